"""Two endpoints joined by nothing but Python: packets are handed over, time is a number.

With it the whole stack below asyncio, aioquic included, runs exactly and without a
socket. `Wire` can lose packets, reorder them, and be asked what went over it. Either
side can be a `Raw` peer instead, which sends the bytes that a test tells it to send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pingpong.webtransport import ConnectionHandler, SessionHandler
from pingpong.webtransport.certificates import Certificate
from pingpong.webtransport.connection import Connection
from pingpong.webtransport.errors import ErrorCode, ProtocolError
from pingpong.webtransport.events import ConnectionClosed, Request, SessionClosed
from pingpong.webtransport.http3.frames import (
    encode_headers,
)
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.config import EndpointConfig, KeyLimits, ServerIdentity, Windows
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from pingpong.webtransport.quic.engine import Address, QuicConnection, QuicEvents
from pingpong.webtransport.session import Session
from pingpong.webtransport.streams import Stream, StreamHandler
from tests.support.certificates import self_signed
from tests.webtransport.raw import Raw as Raw
from tests.webtransport.raw import capsule as capsule
from tests.webtransport.raw import stream_header as stream_header

CLIENT = ("192.0.2.1", 50_000)
SERVER = ("192.0.2.2", 4433)
LIMITS = Limits()
LATENCY = 0.0005
"""Seconds that a packet is on its way, unless a test says otherwise."""
BUSY = 2_000
"""Exchanges without a pause that no test needs."""


def certificate() -> Certificate:
    return self_signed("localhost")


def identity() -> ServerIdentity:
    return ServerIdentity("localhost", certificate_hash=certificate().sha256)


class Recorder(SessionHandler, StreamHandler):
    """Writes down what a session tells, in order; streams' bytes are joined."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.datagrams: list[bytes] = []
        self.opened: list[Stream] = []
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int | None] = {}
        self.stops: dict[int, int | None] = {}
        self.closed: SessionClosed | None = None
        self.established = 0
        self.draining = 0
        self.holding = False
        """Whether what arrives is kept unread."""

    def session_established(self, session: Session) -> None:
        self.check_open()
        self.established += 1

    def session_draining(self, session: Session) -> None:
        self.check_open()
        self.draining += 1

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        assert self.closed is None, "session_closed came twice"
        self.closed = closed

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        self.check_open()
        self.datagrams.append(data)

    def stream_opened(self, stream: Stream) -> StreamHandler:
        self.check_open()
        self.opened.append(stream)
        return self

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        self.check_open()
        assert data or end_stream
        assert stream.id not in self.ended | self.resets.keys()
        self.data[stream.id] = self.data.get(stream.id, b"") + data
        if self.holding:
            stream.hold(len(data))
        if end_stream:
            self.ended.add(stream.id)

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        self.check_open()
        assert stream.id not in self.ended | self.resets.keys()
        self.resets[stream.id] = code

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        self.check_open()
        assert stream.id not in self.stops
        self.stops[stream.id] = code

    def stream_writable(self, stream: Stream) -> None:
        self.check_open()
        self.calls.append(("writable", stream.id))

    def credit_received(self, session: Session) -> None:
        self.check_open()
        self.calls.append(("credit",))

    def check_open(self) -> None:
        assert self.closed is None, "called after session_closed"


class Side(ConnectionHandler):
    """A connection's handler that accepts every session, unless told what else to do."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.sessions: list[Session] = []
        self.errors: list[ProtocolError] = []
        self.ended: list[Connection] = []
        self.closed: ConnectionClosed | None = None
        self.ready = False
        self.requests_ended = 0
        self.refused: list[SessionClosed] = []
        self.unused: list[Connection] = []
        self.decide: Callable[[Session], None] | None = None
        self.limits = LIMITS

    def attach(self, quic: QuicConnection) -> QuicEvents:
        connection = Connection(quic, self, self.limits)
        self.connections.append(connection)
        return connection

    @property
    def connection(self) -> Connection:
        return self.connections[-1]

    @property
    def engine(self) -> AioquicConnection:
        quic = self.connection.quic
        assert isinstance(quic, AioquicConnection)
        return quic

    def connection_ready(self, connection: Connection) -> None:
        self.ready = True

    def session_requested(self, session: Session) -> None:
        self.sessions.append(session)
        if self.decide is not None:
            self.decide(session)
        else:
            session.accept(Recorder())

    def request_refused(self, session: Session, closed: SessionClosed) -> None:
        self.refused.append(closed)

    def connect_streams_closed(self, connection: Connection) -> None:
        self.requests_ended += 1

    def session_request_timed_out(self, connection: Connection) -> None:
        self.unused.append(connection)

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        self.errors.append(error)

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        assert connection not in self.ended, "connection_closed came twice"
        self.ended.append(connection)
        self.closed = closed

    def assert_forgotten(self) -> None:
        """A connection that has ended keeps no stream, no session, and nothing that waits."""
        connection = self.connection
        assert connection.closed is not None
        assert connection.sessions == ()
        assert connection._streams == {}
        assert not connection._pending
        assert not len(connection._buffered)

    def assert_nothing_left(self, *session_ids: int) -> None:
        """Nothing but the critical streams, and these sessions, is remembered."""
        connection = self.connection
        left = {
            key: value
            for key, value in connection._streams.items()
            if "control" not in type(value).__module__
        }
        assert left.keys() == set(session_ids)
        assert connection._sessions.keys() == set(session_ids)
        assert not any(session.streams for session in connection.sessions)
        assert not connection._pending
        assert not len(connection._buffered)
        quic = self.engine._quic
        assert not quic.held
        assert not quic.held_total
        assert not quic._sent_resets
        assert not quic._late_resets
        assert not quic._pending_resets
        assert not self.engine._writable_below
        assert {i for i in quic._streams if not i & 2} == set(session_ids)
        assert len(quic._streams) - len(session_ids) <= 6


class Wire:
    """A client and a server, and the packets between them.

    `raw_client` and `raw_server` put a `Raw` peer on that side, found as `raw`.
    """

    def __init__(
        self,
        *,
        client_limits: Limits = LIMITS,
        server_limits: Limits = LIMITS,
        windows: Windows | None = None,
        client_windows: Windows | None = None,
        client_key_limits: KeyLimits | None = None,
        raw_client: bool = False,
        raw_server: bool = False,
        idle_timeout: float = 15.0,
        connect: bool = True,
        **server: Any,
    ) -> None:
        self.now = 1_000.0
        self.client, self.server, self.raw = Side(), Side(), Raw()
        self.client.limits, self.server.limits = client_limits, server_limits
        self.lose: Callable[[bytes, bool], bool] = lambda packet, to_server: False
        self.network: Callable[[list[bytes], bool], list[bytes]] = lambda packets, to_server: (
            packets
        )
        """What becomes of the packets that leave together in one direction."""
        self.latency = LATENCY
        self.client_address: Address = CLIENT
        self.packets = 0
        self.timers_fired = 0
        self.woken = 0
        windows = windows or Windows()
        made = certificate()
        self.client_end = AioquicEndpoint(
            EndpointConfig(
                windows=client_windows or windows,
                idle_timeout=idle_timeout,
                key_limits=client_key_limits or KeyLimits(),
            ),
            self._wake,
        )
        self.server_end = AioquicEndpoint(
            EndpointConfig(
                certificate=made,
                windows=windows,
                idle_timeout=idle_timeout,
                **server,
            ),
            self._wake,
            self.raw.attach if raw_server else self.server.attach,
        )
        self._attach_client = self.raw.attach if raw_client else self.client.attach
        if connect:
            self.connect()

    def connect(self, server: ServerIdentity | None = None) -> AioquicConnection:
        """Begin a connection, and let it get as far as it gets."""
        made = self.client_end.connect(SERVER, server or identity(), self._attach_client, self.now)
        self.run()
        return made

    def step(self) -> bool:
        """One exchange of what both sides have to send; false where neither had anything."""
        to_server = self.client_end.transmit(self.now)
        to_client = self.server_end.transmit(self.now)
        if to_server or to_client:
            self.now += self.latency
        self._deliver([p for _, packets in to_server for p in packets], to_server=True)
        self._deliver([p for _, packets in to_client for p in packets], to_server=False)
        return bool(to_server or to_client)

    def run(self, seconds: float = 0.1) -> None:
        """Exchange packets, and let timers fire, for a while of the clock's time."""
        end = self.now + seconds
        while True:
            steps = 0
            while self.step():
                steps += 1
                assert steps < BUSY, "the two never come to rest"
            ends = (self.client_end, self.server_end)
            timers = [timer for one in ends if (timer := one.next_timer()) is not None]
            if not timers or min(timers) > end:
                break
            self.now = max(self.now, min(timers))
            for one in ends:
                timer = one.next_timer()
                if timer is not None and timer <= self.now:
                    self.timers_fired += 1
                    one.handle_timers(self.now)
        self.now = max(self.now, end)

    def session(self, **request: Any) -> tuple[Session, Recorder]:
        """A session, established as far as the server lets it."""
        recorder = Recorder()
        request = {"authority": "localhost", "path": "/", **request}
        session = self.client.connection.open_session(Request(**request), recorder)
        self.run()
        return session, recorder

    def pair(self, **request: Any) -> tuple[Session, Recorder, Session, Recorder]:
        """An established session, seen from both sides, with what each was told."""
        session, recorder = self.session(**request)
        peer = self.server.sessions[-1]
        peer_recorder = peer.handler
        assert isinstance(peer_recorder, Recorder)
        return session, recorder, peer, peer_recorder

    def raw_session(self, settings: Mapping[int, int] | None = None) -> tuple[int, Recorder]:
        """A raw client's session: its id, and what the server is told."""
        if self.raw.control < 0:
            self.raw.send_settings(settings)
        session_id = self.raw.request()
        self.run()
        recorder = self.server.sessions[-1].handler
        assert isinstance(recorder, Recorder)
        return session_id, recorder

    def raw_accepted(self, settings: Mapping[int, int] | None = None) -> tuple[int, Recorder]:
        """A client's session that a raw server accepts: its id, and what the client is told."""
        if self.raw.control < 0:
            self.raw.send_settings(settings)
            self.run()
        session, recorder = self.session()
        self.raw.send(session.id, encode_headers([(b":status", b"200")]))
        self.run()
        return session.id, recorder

    def _wake(self) -> None:
        self.woken += 1

    def _deliver(self, packets: list[bytes], *, to_server: bool) -> None:
        self.packets += len(packets)
        for packet in self.network(packets, to_server):
            if self.lose(packet, to_server):
                continue
            arrival = int(self.now * 1e9)
            if to_server:
                self.server_end.receive(packet, self.client_address, self.now, arrival)
            else:
                self.client_end.receive(packet, SERVER, self.now, arrival)


def hand_over(
    end: AioquicEndpoint, packet: bytes, address: Address = CLIENT, now: float = 1_000.0
) -> list[bytes]:
    """Give an endpoint a packet, and take all that it answers."""
    end.receive(packet, address, now, int(now * 1e9))
    answers = end.transmit(now)
    assert all(to == address for to, _ in answers)
    return [answer for _, packets in answers for answer in packets]


def raw_wire(role: str) -> tuple[Wire, Side]:
    """A raw peer in a role, and the side that is under test."""
    wire = Wire(raw_client=role == "client", raw_server=role == "server")
    return wire, wire.server if role == "client" else wire.client


def assert_session_failed(wire: Wire, recorder: Recorder, code: ErrorCode) -> None:
    """A raw client's session 0 ended with an error, on the wire and to its handler; no other."""
    assert recorder.closed is not None
    assert recorder.closed.wire_code == code
    assert recorder.closed.code is None
    assert not recorder.closed.by_peer
    assert wire.raw.resets[0] == code
    assert wire.raw.stops[0] == code
    assert [error.code for error in wire.server.errors] == [code]
    assert wire.server.closed is None


def assert_connection_failed(wire: Wire, side: Side, code: ErrorCode) -> None:
    """The raw peer got the code in CONNECTION_CLOSE, and the handler was told, once."""
    assert wire.raw.closed is not None
    assert wire.raw.closed.is_application
    assert wire.raw.closed.by_peer
    assert ErrorCode(wire.raw.closed.code) == code
    assert [error.code for error in side.errors] == [code]
    assert side.closed is not None
    assert side.closed.code == code
    assert not side.closed.by_peer
    side.assert_forgotten()
