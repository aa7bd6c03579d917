"""A server of several worker processes, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pingpong.server.health import SELF_PING
from pingpong.server.workers.group import WorkerGroup
from pingpong.settings import ServeSettings
from pingpong.webtransport.asyncio import (
    ClientConnection,
    EndpointConfig,
    SessionWaiter,
    Target,
    establish,
    open_connection,
)
from pingpong.webtransport.certificates import Certificate
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.session import Session
from tests.support.certificates import self_signed
from tests.support.processes import is_alive

HOST = "127.0.0.1"


def certificate() -> Certificate:
    return self_signed(HOST, "localhost")


def settings(**changes: Any) -> ServeSettings:
    """Of a server that does nothing by itself, unless a test says otherwise."""
    given: dict[str, Any] = {"bind_host": HOST, "bind_port": 0, "self_ping_interval": 0, **changes}
    return ServeSettings(**given)


@contextlib.asynccontextmanager
async def group(workers: int, **changes: Any) -> AsyncIterator[WorkerGroup]:
    """Worker processes that listen; none of them is left."""
    server = WorkerGroup(settings(**changes), certificate(), workers)
    try:
        await server.start()
        yield server
    finally:
        pids = server.pids
        await server.close()
        assert not [pid for pid in pids if is_alive(pid)]


async def until(condition: Any, timeout: float = 20) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def is_complete(server: WorkerGroup) -> bool:
    """Whether all workers are there, and listen."""
    return "is gone" not in server.health().result(SELF_PING).reason


async def replaced(server: WorkerGroup, index: int, pid: int) -> None:
    """Wait until another process than this one has a worker's place."""
    await until(lambda: server.pids[index] not in (0, pid) and is_complete(server))


async def values(server: WorkerGroup, name: str) -> dict[tuple[str, ...], Any]:
    """A metric of the whole server."""
    found = {
        tuple(sample.labels.values()): sample.value
        for metric in await server.families()
        for sample in metric.samples
        if sample.name == f"pingpong_server_{name}"
    }
    assert found, f"no {name}"
    return found


async def value(server: WorkerGroup, name: str) -> float:
    (found,) = (await values(server, name)).values()
    return float(found)


class Client(SessionWaiter):
    """A session that pings by datagrams; counts what comes back, and hears of its end."""

    def __init__(self) -> None:
        super().__init__()
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self.draining = asyncio.Event()
        self.ended: asyncio.Future[SessionClosed] = asyncio.get_running_loop().create_future()
        self.connection: ClientConnection
        self.session: Session

    @classmethod
    async def join(
        cls, port: int, place: tuple[int, int] = (0, 1), timeout: float = 10, **options: Any
    ) -> Client:
        """Join worker `place[0]` of `place[1]`, or any."""
        self = cls()
        target = Target(HOST, port, "/ping", certificate_hash=certificate().sha256)
        config = EndpointConfig(worker=place[0], workers=place[1])
        self.connection = await open_connection(target, config=config, timeout=timeout)
        try:
            self.session = await establish(self.connection, self, timeout=timeout, **options)
        except BaseException:
            self.connection.abort()
            raise
        return self

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        self.pongs.put_nowait(data)

    def session_draining(self, session: Session) -> None:
        self.draining.set()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        super().session_closed(session, closed)
        self.ended.set_result(closed)

    def send(self, number: int) -> None:
        self.session.send_datagram(b"ping%d" % number)
        self.connection.endpoint.flush()

    async def ping(self, number: int = 0, patience: float = 2.0) -> bool:
        """One ping, never repeated: whether it was answered."""
        self.send(number)
        try:
            async with asyncio.timeout(patience):
                while await self.pongs.get() != b"pong%d" % number:
                    pass
        except TimeoutError:
            return False
        return True

    async def leave(self) -> None:
        await self.connection.close()


def environment_of(pid: int) -> str:
    """What others may see of a process: its words and its environment."""
    return "".join(
        Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
        for name in ("cmdline", "environ")
    )
