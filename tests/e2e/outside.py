"""Clients outside the cluster, on this machine: the command of this source, and one that stays."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

from pingpong.webtransport.asyncio import Session, SessionClosed, SessionClosedError, connect
from tests.e2e.cluster import Cluster
from tests.e2e.commands import Result, attempt
from tests.e2e.machine import ROOT
from tests.e2e.waiting import eventually

SERVICE = "pingpong-server-external"
"""The Service with an address of its own, of the release `pingpong`."""

_INTERVAL = 0.05


def server_url(cluster: Cluster, namespace: str, node: str, path: str = "/ping") -> str:
    """Of the server, at that Service's port of a node."""
    service = cluster.core.read_namespaced_service(SERVICE, namespace).spec
    [port] = [each.node_port for each in service.ports if each.protocol == "UDP"]
    return f"https://{cluster.node_address(node)}:{port}{path}"


def ping(*words: str) -> Result:
    """Run `pingpong ping` with these URLs and options."""
    environment = {name: value for name, value in os.environ.items() if "PINGPONG" not in name}
    return attempt(
        *(sys.executable, "-m", "pingpong", "ping", *words),
        environment={**environment, "PYTHONPATH": str(ROOT / "services")},
        timeout=30,
    )


def eventually_ping(*words: str) -> str:
    """What `ping` wrote once all answered: each node's kube-proxy hears of a server by itself."""

    def answered() -> str:
        result = ping(*words)
        assert result.ok, result.output
        return result.output

    return eventually(answered, timeout=20, what="a server is reached from outside")


class Stayer:
    """A session that is not left when the server asks for it: 20 datagrams a second are echoed.

    It lasts from `with` to its end, or for as long as the server and the way there let it. Times
    are `time.monotonic`'s.
    """

    def __init__(self, url: str) -> None:
        """The URL is that of a server's `/echo`; its certificate is not verified."""
        self.answered_at = 0.0
        """The last time."""
        self.asked_to_leave_at: float | None = None
        self.closed: SessionClosed | None = None
        """How it ended, if it has."""
        self._url = url
        self._connected = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Stayer:
        self._thread.start()
        if not self._connected.wait(10):
            raise AssertionError(f"no session at {self._url}")
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopped.set()
        self._thread.join()

    async def _run(self) -> None:
        async with await connect(self._url, insecure=True) as session:
            self._connected.set()
            watching = [
                asyncio.create_task(self._receive(session)),
                asyncio.create_task(self._watch(session)),
            ]
            ended = session.closed
            while not (ended.done() or self._stopped.is_set()):
                session.datagrams.send(b"still here")
                await asyncio.sleep(_INTERVAL)
            if ended.done():
                self.closed = ended.result()
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)

    async def _receive(self, session: Session) -> None:
        async for _ in session.datagrams:
            self.answered_at = time.monotonic()

    async def _watch(self, session: Session) -> None:
        try:
            await session.draining
        except SessionClosedError:
            return
        self.asked_to_leave_at = time.monotonic()
