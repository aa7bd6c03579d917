"""Runs probers in this process, against real servers, on a path that can be broken."""

from __future__ import annotations

import asyncio
import io
import json
import queue
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from pingpong.client.discovery.destinations import Destination
from pingpong.client.probe.metrics import ProbeMetrics, TargetCounts
from pingpong.client.probe.supervisor import Supervisor
from pingpong.link import Link
from pingpong.link.session import PingSession
from pingpong.server.sessions.handlers import Router
from pingpong.settings import ProbeSettings
from pingpong.telemetry.logs import configure
from pingpong.webtransport import SessionHandler
from pingpong.webtransport.asyncio import EndpointConfig, Listener, listen
from pingpong.webtransport.session import Session
from tests.support.certificates import self_signed

INTERVAL = 0.05


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells of; the test's timeout ends it."""
    while not condition():
        await asyncio.sleep(0.002)


def to(port: int, name: str = "target", path: str = "/ping", *addresses: str) -> Destination:
    return Destination(name, f"https://127.0.0.1:{port}{path}", addresses or ("127.0.0.1",))


def settings(**options: Any) -> ProbeSettings:
    """Fast ones, for a server with the tests' certificate."""
    known: dict[str, Any] = {
        "targets": ("https://127.0.0.1/ping",),
        "cert_hash": self_signed().sha256,
        "interval": INTERVAL,
        "backoff_min": 0.01,
        "backoff_max": 0.1,
    }
    return ProbeSettings(**(known | options))


def drain(listener: Listener) -> None:
    """Ask the sessions that are there to leave, and go on answering."""
    for connection in list(listener.connections):
        for session in connection.sessions:
            session.drain()
    listener.endpoint.flush()


@asynccontextmanager
async def serving_on(port: int, host: str = "127.0.0.1") -> AsyncIterator[Listener]:
    """A server on a port that another one has, or has had."""
    made = self_signed()
    listener = listen(
        Router(1 << 16),
        host,
        port,
        config=EndpointConfig(certificate=made),
    )
    try:
        yield listener
    finally:
        await listener.close()


@contextmanager
def serving_elsewhere() -> Iterator[int]:
    """A server in a thread of its own, on this port: it answers also while this one is busy."""
    started: queue.SimpleQueue[tuple[int, Callable[[], object]]] = queue.SimpleQueue()

    async def serve() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        async with serving_on(0) as listener:
            started.put((listener.port, lambda: loop.call_soon_threadsafe(over.set)))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    port, stop = started.get(timeout=10)
    try:
        yield port
    finally:
        stop()
        thread.join()


class Tampering(SessionHandler):
    """A server's handler between the network and the real one, which `tamper` stands in for."""

    def __init__(
        self, session: Session, tamper: Callable[[Session, bytes, SessionHandler], None]
    ) -> None:
        self._handler = session.handler
        self._tamper = tamper
        session.handler = self

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        self._tamper(session, data, self._handler)


class Probing:
    """A supervisor, where its targets are, and what it tells."""

    def __init__(self, log: io.StringIO, chosen: ProbeSettings) -> None:
        self.metrics = ProbeMetrics()
        self.destinations: dict[str, Destination] = {}
        self.lookups: list[str] = []
        self.is_slow = False
        """LookupState take for ever."""
        self.supervisor = Supervisor(chosen, self.metrics, self._look_up)
        self._log = log

    def probe(self, *destinations: Destination) -> None:
        """These are the targets from now on."""
        self.destinations = {one.name: one for one in destinations}
        self.supervisor.changed(self.destinations)

    async def _look_up(self, name: str) -> Destination:
        self.lookups.append(name)
        if self.is_slow:
            await asyncio.Event().wait()
        return self.destinations[name]

    def counts(self, name: str = "target") -> TargetCounts:
        return self.metrics.targets[name]

    def completed(self, result: str, mode: str = "datagram", name: str = "target") -> int:
        return self.counts(name).modes[mode].completed[result]

    def sent(self, mode: str = "datagram", name: str = "target") -> int:
        return self.counts(name).modes[mode].sent

    def is_up(self, name: str = "target") -> bool:
        return name in self.metrics.targets and self.counts(name).is_up

    def reason(self, name: str = "target") -> str:
        return next(one.reason for one in self.supervisor.statuses() if one.name == name)

    def link(self, name: str = "target") -> Link:
        link = self.supervisor._targets[name].link
        assert link is not None
        return link

    def session(self, name: str = "target") -> PingSession:
        """Where probes go now."""
        session = self.link(name)._current
        assert session is not None
        return session

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What was logged, of these events, in its order."""
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if not names or line["event"] in names]

    def story(self) -> list[str]:
        """The names of the events that were logged."""
        return [event["event"] for event in self.events()]

    async def answered(self, count: int = 3, name: str = "target") -> None:
        """Wait for so many answers more."""
        before = self.completed("ok", name=name)
        await until(lambda: self.completed("ok", name=name) >= before + count)


@asynccontextmanager
async def probing(*destinations: Destination, **options: Any) -> AsyncIterator[Probing]:
    made = Probing(logs(), settings(**options))
    made.probe(*destinations)
    try:
        yield made
    finally:
        await made.supervisor.close()


def logs() -> io.StringIO:
    """Has all that the test logs from here on, a line of JSON an event."""
    log = io.StringIO()
    configure("info", "json", log)
    return log


class Path:
    """A network path to a port on this machine: what it is given leaves on the other side.

    `lose` and `hold` are asked of every packet; what is held leaves at `let_go`.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._loop = asyncio.get_running_loop()
        self._near = self._socket(lambda data, address: self._out(data, address))
        self.port = int(self._near.getsockname()[1])
        self._far: dict[Any, socket.socket] = {}
        self._held: list[Callable[[], None]] = []
        self.is_dead = False
        """Nothing gets through, nor will."""
        self.is_frozen = False
        """What is on its way to the server stays there for the moment."""
        self.copies = False
        """What comes back comes twice."""
        self.lose: Callable[[bytes, bool], bool] = lambda data, to_server: False

    def lead_to(self, port: int) -> None:
        """Where clients get to that come from now on."""
        self._server = ("127.0.0.1", port)

    @property
    def clients(self) -> int:
        """How many sockets of clients there have been."""
        return len(self._far)

    def let_go(self) -> None:
        """What was held arrives, in its order."""
        self.is_frozen = False
        held, self._held = self._held, []
        for forward in held:
            forward()

    def close(self) -> None:
        for sock in (self._near, *self._far.values()):
            self._loop.remove_reader(sock)
            sock.close()

    def _socket(self, receive: Callable[[bytes, Any], None]) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))

        def readable() -> None:
            while True:
                try:
                    data, address = sock.recvfrom(65_536)
                except (BlockingIOError, ConnectionRefusedError):
                    return
                receive(data, address)

        self._loop.add_reader(sock, readable)
        return sock

    def _out(self, data: bytes, client: Any) -> None:
        if client not in self._far:
            far = self._far[client] = self._socket(lambda answer, _: self._back(answer, client))
            far.connect(self._server)
        far = self._far[client]
        if self.is_dead or self.lose(data, True):
            return
        if self.is_frozen:
            self._held.append(lambda: _send(far, data))
        else:
            _send(far, data)

    def _back(self, data: bytes, client: Any) -> None:
        if not self.is_dead and not self.lose(data, False):
            for _ in range(1 + self.copies):
                self._near.sendto(data, client)


def _send(sock: socket.socket, data: bytes) -> None:
    with suppress(ConnectionRefusedError):
        sock.send(data)


@contextmanager
def path_to(port: int) -> Iterator[Path]:
    path = Path(port)
    try:
        yield path
    finally:
        path.close()
