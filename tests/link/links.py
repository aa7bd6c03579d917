"""A link whose attempts the test decides, on connections that the test plays."""

from __future__ import annotations

import asyncio
import errno
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

from pingpong.link import Link, LinkError, LinkOptions, Observer, Outage, Peer
from pingpong.link.dial import Lookup
from pingpong.link.session import PingSession
from pingpong.webtransport import SessionClosed
from pingpong.webtransport.asyncio import Cause, ConnectError

A = ("192.0.2.1", 443)
B = ("192.0.2.2", 443)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the test's timeout ends it."""
    while not condition():
        await asyncio.sleep(0.002)


def refused(*tried: tuple[str, int]) -> LinkError:
    """What an attempt fails with where the hosts say that nothing listens."""
    cause = ConnectError(Cause.UNREACHABLE, "nothing listens")
    return LinkError("refused", "nothing listens", cause, tried=frozenset(tried))


class Wire:
    """A connection and the session on it, in plain: each ping is kept, and the test answers."""

    def __init__(self, address: tuple[str, int] = A) -> None:
        self.address = address
        self.target = SimpleNamespace(path="/ping")
        self.timings = SimpleNamespace(resolve=1, handshake=1, session=1)
        self.peer_certificate = None
        self.idle_timeout = 15.0
        self.stray_packets = 0
        self.received_packets = 0
        self.sent_packets = 0
        self.unsent_packets = 0
        self.connection = SimpleNamespace(closed=None)
        self.socket_error: Callable[[OSError], None]
        self.protocol = None
        self.draft = "draft-16"
        self.duplicate_packets = 0
        self.path_statistics = None
        self.pings: list[int] = []
        self.sent = 0
        """Pings in datagrams."""
        self.streams = 0
        """Pings on streams of their own, which are not answered."""
        self.is_closed = False
        self.session: PingSession
        self.opened: Callable[[], None] = lambda: None
        """Called in the turn in which the attempt succeeds."""

    def open_session(self, handler: Any, *_: object) -> Wire:
        self.session = handler
        handler.session_established(self)
        return self

    def send_datagram(self, data: bytes) -> bool:
        self.sent += 1
        self.pings.append(struct.unpack_from(">4sI", data)[1])
        return True

    def open_stream(self, *_: object, **__: object) -> Wire:
        self.streams += 1
        return self

    def send(self, *_: object) -> None:
        pass

    def answer(self, *numbers: int) -> None:
        """Answer these pings, or all that were not answered."""
        for seq in numbers or tuple(self.pings):
            if seq in self.pings:
                self.pings.remove(seq)
            self.received_packets += 1
            data = struct.pack(">4sI", b"pong", seq)
            self.session.datagram_received(cast(Any, self), data, time.monotonic_ns())

    def refuse(self) -> None:
        """The host says that nothing listens."""
        self.socket_error(ConnectionRefusedError(errno.ECONNREFUSED, "connection refused"))

    def drain(self) -> None:
        self.session.session_draining(cast(Any, self))

    def end(self) -> None:
        """The server closes the session."""
        closed = SessionClosed(0, "over")
        self.session.session_closed(cast(Any, self), closed)

    def ping(self) -> None:
        pass

    def receive_backlog(self) -> None:
        pass

    def flush(self) -> int:
        return 0

    async def close(self, timeout: float) -> None:
        self.is_closed = True


class Attempts:
    """A dialer whose attempts end as the test says."""

    def __init__(self) -> None:
        self.all: list[asyncio.Future[Wire]] = []
        self.dialed_at = 0.0

    async def dial(
        self, name: str, lookup: Lookup, make: Callable[[Any], PingSession], **_: object
    ) -> PingSession:
        attempt: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        dialed_at = self.dialed_at = time.monotonic()
        self.all.append(attempt)
        wire = await attempt
        session = make(cast(Any, wire))
        await session.establish((), 1.0)
        session.dialed_at = dialed_at
        wire.opened()
        return session

    async def next(self) -> asyncio.Future[Wire]:
        """The attempt that is under way, or the next one."""
        await until(lambda: self.all and not self.all[-1].done())
        return self.all[-1]

    async def succeed(self, address: tuple[str, int] = A) -> Wire:
        wire = Wire(address)
        (await self.next()).set_result(wire)
        await until(lambda: hasattr(wire, "session"))
        return wire


class Seen(Observer):
    """Keeps the calls, each with what tells it from others."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.outages: list[Outage | None] = []

    def of(self, *names: str) -> list[tuple[str, object]]:
        return [call for call in self.calls if call[0] in names]

    def up(self, peer: Peer, outage: Outage | None) -> None:
        self.calls.append(("up", peer.address))
        self.outages.append(outage)

    def down(self, cause: str) -> None:
        self.calls.append(("down", cause))

    def dialed(self, peer: Peer) -> None:
        self.calls.append(("dialed", peer.address))

    def connect_failed(self, error: LinkError) -> None:
        self.calls.append(("connect_failed", str(error)))

    def connected(self, peer: Peer) -> None:
        self.calls.append(("connected", peer.address))

    def moved(self, before: Peer, peer: Peer, cause: str) -> None:
        self.calls.append(("moved", cause))

    def closed(self, reason: str) -> None:
        self.calls.append(("closed", reason))


class Linked:
    """A link that runs."""

    def __init__(self, options: LinkOptions, seen: Seen) -> None:
        self.seen = seen
        self.attempts = Attempts()
        self.link = Link("target", cast(Any, None), cast(Any, self.attempts), seen, options)
        self.task = asyncio.create_task(self.link.run())

    async def up(self, address: tuple[str, int] = A) -> Wire:
        """Connect, and answer the first probe."""
        wire = await self.attempts.succeed(address)
        await until(lambda: wire.pings)
        wire.answer()
        return wire


@asynccontextmanager
async def linked(seen: Seen | None = None, **options: Any) -> AsyncIterator[Linked]:
    chosen: dict[str, Any] = {"interval": 0.05, "warms_up": True, "backoff": (0.01, 0.01)} | options
    made = Linked(LinkOptions(**chosen), seen or Seen())
    try:
        yield made
    finally:
        made.task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await made.task
        await made.link.close()
