"""Whole sessions: a client and a server of ours, a bad link between, in virtual time.

Both sides obey the rules; the link loses, repeats, delays and damages packets, and cuts
those apart that share a UDP payload. What is done, and what the link does, is decided by the
input. In the end the link is good again, everything is closed, and nothing may be left.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, cast

from aioquic.quic.packet import QuicErrorCode

from pingpong.ping import Mode
from pingpong.server.sessions.handlers import Router
from pingpong.webtransport import SessionHandler
from pingpong.webtransport.connection import Connection
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.events import ConnectionClosed, SessionClosed
from pingpong.webtransport.quic.config import Engine
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.engine import RESET_REASON, QuicConnection, QuicEvents
from pingpong.webtransport.session import Session
from pingpong.webtransport.states import State
from pingpong.webtransport.streams import Stream, StreamHandler
from tests.fuzz.arena import LIMITS, MAX_MESSAGE, Client, Finding, check_accounts, endpoint
from tests.fuzz.live import split
from tests.fuzz.source import Source
from tests.webtransport.wire import SERVER, identity

ADDRESSES = (("192.0.2.1", 50_000), ("192.0.2.1", 50_001), ("198.51.100.9", 7))
GOOD = (ErrorCode.H3_NO_ERROR, QuicErrorCode.APPLICATION_ERROR, ErrorCode.H3_MISSING_SETTINGS)
"""The second says the first before the handshake is complete (RFC 9000, section 10.2.3); the third
is said where the link has lost SETTINGS for longer than they are waited for."""
MODES: tuple[Mode, ...] = ("datagram", "stream", "streams", "uni")
_STEPS = 60
_HORIZON = 60.0
"""Seconds in which, with a good link, everything comes to its end."""
_AGAIN = 20
"""Seconds after which pings get through again, or the connection has ended."""
_BUSY = 20_000
_TICK = 1e-7
"""Seconds that pass at least between two looks at the clock."""


class Watched:
    """A session's handler, and how the session ended."""

    def __init__(self, handler: SessionHandler) -> None:
        self.handler = handler
        self.closed: SessionClosed | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handler, name)

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        if self.closed is not None:
            raise Finding(f"agree: session {session.id} ended twice")
        self.closed = closed
        self.handler.session_closed(session, closed)


class Server(Router):
    """The server's half, which notes how its sessions and connections end."""

    def __init__(self) -> None:
        super().__init__(MAX_MESSAGE)
        self.connections: list[Connection] = []
        self.closed: list[ConnectionClosed] = []
        self.sessions: list[Watched] = []

    def attach(self, quic: QuicConnection) -> QuicEvents:
        self.connections.append(Connection(quic, self, LIMITS))
        return self.connections[-1]

    def session_requested(self, session: Session) -> None:
        super().session_requested(session)
        self.sessions.append(watched := Watched(session.handler))
        session.handler = cast(SessionHandler, watched)

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        self.closed.append(closed)


class Link:
    """Two endpoints, and packets on their way between them."""

    def __init__(self, source: Source, client: Engine, server: Engine) -> None:
        self.source = source
        self.now = 1_000.0
        self.client = Client()
        self.server = Server()
        self.client_end = endpoint(client, server=False)
        self.server_end = endpoint(server, server=True, accept=self.server.attach)
        self.address = ADDRESSES[0]
        self.loss = self.copies = self.damage = 0
        """Of 256 packets."""
        self.jitter = 0.0
        self.blocked = False
        self._flying: list[tuple[float, int, bool, object, bytes]] = []
        self._number = 0

    def send(self, packets: list[bytes], to_server: bool) -> None:
        """Put UDP payloads on their way."""
        source = self.source
        for packet in packets:
            if self.blocked or (self.loss and source.byte() < self.loss):
                continue
            pieces = [packet]
            if self.damage and source.byte() < self.damage:
                pieces = split(packet) if source.chance(2) else [source.damaged(packet)]
            if self.copies and source.byte() < self.copies:
                pieces *= 2
            for piece in pieces:
                delay = 0.001 + (source.byte() * self.jitter / 256 if self.jitter else 0)
                self._number += 1
                flying = (self.now + delay, self._number, to_server, self.address, piece)
                heapq.heappush(self._flying, flying)

    def flush(self) -> None:
        """Send what both sides have to send."""
        for end, to_server in ((self.client_end, True), (self.server_end, False)):
            for address, packets in end.transmit(self.now):
                # What is sent to an address that the client has left, is lost.
                if to_server or address == self.address:
                    self.send(packets, to_server)

    def run(self, seconds: float) -> None:
        """Let time pass: packets arrive, timers act."""
        until = self.now + seconds
        for _ in range(_BUSY):
            self.flush()
            timers = [t for end in (self.client_end, self.server_end) if (t := end.next_timer())]
            if self._flying:
                timers.append(self._flying[0][0])
            if not timers or min(timers) > until:
                break
            # A timer may be early by a rounding error, and wants to be called again.
            self.now = max(self.now + _TICK, min(timers))
            while self._flying and self._flying[0][0] <= self.now:
                _, _, to_server, address, packet = heapq.heappop(self._flying)
                arrival = int(self.now * 1e9)
                if to_server:
                    self.server_end.receive(packet, address, self.now, arrival)
                else:
                    self.client_end.receive(packet, SERVER, self.now, arrival)
            for end in (self.client_end, self.server_end):
                timer = end.next_timer()
                if timer is not None and timer <= self.now:
                    end.handle_timers(self.now)
        else:
            raise Finding("busy: the two never come to rest")
        self.now = until


def run(data: bytes) -> None:
    """Live through what an input says, and look at what is left."""
    live(Link(source := Source(data), "aioquic", "aioquic"), source)


def run_with_quinn(data: bytes) -> None:
    """The same with quinn on one side or both, as the input says."""
    pairs: tuple[tuple[Engine, Engine], ...] = (
        ("quinn", "quinn"),
        ("quinn", "aioquic"),
        ("aioquic", "quinn"),
    )
    source = Source(data)
    live(Link(source, *source.pick(pairs)), source)


def live(link: Link, source: Source) -> None:
    """One session, and what becomes of it."""
    make_bad(link, source)
    link.client_end.connect(SERVER, identity(), link.client.attach, link.now)
    link.run(0.05)
    actions: tuple[Callable[[Link, Source], None], ...] = (
        *(ping,) * 8, *(wait,) * 4, burst, open_stream, end_streams, reset_streams, drain,
        close_session, update_keys, change_address, make_bad, make_good, change_id, block,
    )  # fmt: skip
    for _ in range(_STEPS):
        if not source.left:
            break
        source.pick(actions)(link, source)
        if source.chance(2):
            link.flush()
        else:
            link.run(source.byte() / 2_000)
    check(link, source)


def check(link: Link, source: Source) -> None:
    """Heal the link and end everything: all that was begun has come to its end."""
    client, server = link.client, link.server
    make_good(link, source)
    graceful = source.chance(2)
    before = client.answers
    for _ in range(_AGAIN):
        link.run(1.0)
        if client.closed is not None or not client.established or client.answers > before:
            break
        ping(link, Source(b""))
    else:
        raise Finding("others: no pong on a link that is good again")
    if graceful and client.session is not None and client.closed is None:
        client.session.close(7, "done")
        link.run(1.0)
    if client.connection.closed is None:
        client.connection.close()
    link.run(_HORIZON)
    if len(link.client_end) or len(link.server_end):
        raise Finding(f"state: {len(link.client_end)}, {len(link.server_end)} connections left")
    if link.client_end.next_timer() is not None or link.server_end.next_timer() is not None:
        raise Finding("state: timers are left")
    client.check()
    check_accounts(server.counters)
    if server.admission.active:
        raise Finding(f"account: {server.admission.active} sessions are left")
    if len(server.closed) != len(server.connections) or client.closed is None:
        raise Finding(f"agree: {client.closed}, {server.closed}")
    agree(link)


def agree(link: Link) -> None:
    """Both sides say the same of how the session ended, and neither blames the other's bytes."""
    ours = link.client.session_closed
    theirs = link.server.sessions[-1].closed if link.server.sessions else None
    if ours is not None and theirs is not None and ours.clean and theirs.clean:
        same = (ours.code, ours.reason) == (theirs.code, theirs.reason)
        if not same and ours.by_peer != theirs.by_peer:
            raise Finding(f"agree: {ours} / {theirs}")
    for closed in (link.client.closed, *link.server.closed):
        if closed is not None and closed.code not in GOOD and not closed.timed_out:
            if closed.by_peer and closed.reason == RESET_REASON:
                continue  # The server's idle time had passed, and it forgot.
            raise Finding(f"agree: an honest peer's connection ended with {closed}")


# What is done.


def ping(link: Link, source: Source) -> None:
    link.client.try_to_ping(source.pick(MODES))


def burst(link: Link, source: Source) -> None:
    for _ in range(source.below(100)):
        ping(link, source)


def wait(link: Link, source: Source) -> None:
    link.run(source.pick((0.001, 0.02, 0.2, 1.0, 5.0, 16.0 if source.chance(4) else 0.1)))


def _session(link: Link, source: Source) -> Session | None:
    if source.chance(2) and link.server.connections:
        sessions = link.server.connections[-1].sessions
        return sessions[0] if sessions else None
    return link.client.session


def open_stream(link: Link, source: Source) -> None:
    session = _session(link, source)
    uni = source.chance(2)
    if session is not None and session.can_open_stream(uni):
        stream = session.open_stream(StreamHandler(), unidirectional=uni)
        stream.send(bytes(source.below(20_000)), source.chance(2))


def end_streams(link: Link, source: Source) -> None:
    for stream in _streams(link, source):
        if stream.send_open:
            stream.send(b"x", True)


def reset_streams(link: Link, source: Source) -> None:
    for stream in _streams(link, source):
        stream.reset(source.byte()) if source.chance(2) else stream.stop(source.byte())


def drain(link: Link, source: Source) -> None:
    if source.chance(4):
        connections = [*link.server.connections[-1:], link.client.connection]
        source.pick(connections).drain()


def close_session(link: Link, source: Source) -> None:
    session = _session(link, source)
    if session is not None and source.chance(4) and session.state is State.ESTABLISHED:
        session.close(source.byte(), "why not")


def update_keys(link: Link, source: Source) -> None:
    for quic in _engines(link, source):
        if quic._quic._handshake_confirmed and quic._quic.ending is None:
            quic._quic.request_key_update()


def change_id(link: Link, source: Source) -> None:
    for quic in _engines(link, source):
        if quic._quic._handshake_confirmed and quic._quic._peer_cid_available:
            quic._quic.change_connection_id()


def change_address(link: Link, source: Source) -> None:
    link.address = source.pick(ADDRESSES)


def make_bad(link: Link, source: Source) -> None:
    link.loss = source.pick((0, 0, 10, 40, 100))
    link.copies = source.pick((0, 0, 10, 60))
    link.damage = source.pick((0, 0, 10, 60))
    link.jitter = source.pick((0.0, 0.0, 0.01, 0.1))


def make_good(link: Link, source: Source) -> None:
    link.loss = link.copies = link.damage = 0
    link.jitter = 0.0
    link.blocked = False


def block(link: Link, source: Source) -> None:
    link.blocked = source.chance(4)


def _engines(link: Link, source: Source) -> list[AioquicConnection]:
    connections = [link.client.connection] if source.chance(2) else link.server.connections[-1:]
    return [one.quic for one in connections if isinstance(one.quic, AioquicConnection)]


def _streams(link: Link, source: Source) -> list[Stream]:
    session = _session(link, source)
    streams = [stream for stream in session.streams if stream.is_local] if session else []
    streams.sort(key=lambda stream: stream.id)
    return streams[: 1 + source.below(4)]
