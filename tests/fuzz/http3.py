"""HTTP/3 and WebTransport above an engine that is made up: streams, datagrams, resets.

The engine obeys the rules of the seam, so that what is found is the fault of what is above
it, and costs so little that much can be tried.
"""

from __future__ import annotations

from typing import Any

from pingpong.server.sessions.handlers import Router
from pingpong.webtransport.connection import Connection
from pingpong.webtransport.events import Headers
from pingpong.webtransport.http3.frames import FrameType, StreamType, encode_headers
from pingpong.webtransport.limits import Limits
from tests.fuzz import content
from tests.fuzz.arena import REQUEST, RESPONSE, Client, Finding, check_accounts
from tests.fuzz.source import Source

_LIMITS = Limits(initial_max_data=4_096, initial_max_streams_bidi=8, initial_max_streams_uni=8)
_EVENTS = 40
_STREAMS = 100


class Engine:
    """A QUIC connection that sends nothing: `engine.QuicConnection`."""

    def __init__(self, is_client: bool) -> None:
        self.is_client = is_client
        self.max_datagram_size = 1_150
        self.reset_stream_at = True
        self.arrival = 1_000
        self.deadline: float | None = None
        self.close_is_authenticated = True
        self.address = ("192.0.2.1", 1)
        self.peer_certificate: Any = None
        self.duplicate_packets = 0
        self.path_statistics: Any = None
        self.idle_timeout = 15.0
        self.closed: int | None = None
        self.unread = 0
        """What `buffered` says of each stream."""
        self.sending: dict[int, bool] = {}
        """Of each stream that can be sent on: whether our half is open."""
        self.over: set[int] = set()
        """Streams of which the peer's half has ended."""
        self.seen: set[int] = set()
        self.asked: dict[int, int] = {}
        self.held = 0
        self._next = [0, 2] if is_client else [1, 3]

    def can_open_stream(self, unidirectional: bool) -> bool:
        return self._next[unidirectional] < 4 * _STREAMS

    def open_stream(self, header: bytes, unidirectional: bool) -> int:
        stream_id = self._next[unidirectional]
        self._next[unidirectional] += 4
        self.sending[stream_id] = True
        if unidirectional:
            self.over.add(stream_id)
        return stream_id

    def send_stream(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        if end_stream:
            self.sending[stream_id] = False

    def send_datagram(self, data: bytes) -> bool:
        return len(data) % 7 != 0

    def reset_stream(self, stream_id: int, code: int, reliable_size: int = 0) -> int:
        self.sending[stream_id] = False
        return 0

    def stop_sending(self, stream_id: int, code: int) -> None:
        pass

    def buffered(self, stream_id: int) -> int:
        return self.unread if self.sending.get(stream_id) else 0

    def notify_writable(self, stream_id: int, below: int) -> None:
        self.asked[stream_id] = below

    def hold(self, stream_id: int, size: int) -> None:
        self.held += size

    def release(self, stream_id: int, size: int) -> None:
        self.held -= size

    def is_receive_closed(self, stream_id: int) -> bool:
        return stream_id in self.over

    def ping(self) -> None:
        pass

    def close(self, code: int, reason: str = "", *, is_application: bool = True) -> None:
        if self.closed is None:
            self.closed = code


class Peer:
    """What the hostile peer has begun, and what it may go on with."""

    def __init__(self, source: Source, connection: Connection, engine: Engine) -> None:
        self.source = source
        self.connection = connection
        self.engine = engine
        self.response = engine.is_client
        """Whether the peer is a server, which responds."""
        self.open: list[int] = []
        self.next = [1, 3] if engine.is_client else [0, 2]

    def begin(self, uni: bool) -> int:
        stream_id = self.next[uni]
        self.next[uni] += 4
        self.open.append(stream_id)
        self.engine.seen.add(stream_id)
        if not uni:
            self.engine.sending[stream_id] = True
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        pieces = [piece for piece in self.source.pieces(data) if piece]
        if end:
            self.open.remove(stream_id)
        for number, piece in enumerate(pieces):
            last = end and number == len(pieces) - 1
            if last:
                self.engine.over.add(stream_id)
            self.connection.stream_data_received(stream_id, piece, last, self.engine.arrival)
        if end and not pieces:
            self.engine.over.add(stream_id)
            self.connection.stream_data_received(stream_id, b"", True, self.engine.arrival)

    def act(self) -> None:
        """One thing that a peer may do as far as QUIC goes."""
        source, connection = self.source, self.connection
        kind = source.below(16)
        if kind < 4 and self.next[kind & 1] < 4 * _STREAMS:
            uni = bool(kind & 1)
            made = content.beginning(source, uni=uni, response=self.response)
            self.send(self.begin(uni), made, source.chance(6))
        elif kind < 9 and self.open:
            stream_id = source.pick(self.open)
            made = content.following(source, uni=bool(stream_id & 2), response=self.response)
            self.send(stream_id, made, source.chance(8))
        elif kind == 9 and self.open:
            stream_id = source.pick(self.open)
            self.open.remove(stream_id)
            self.engine.over.add(stream_id)
            connection.stream_reset_received(
                stream_id, source.pick(content.ERROR_CODES), source.integer()
            )
        elif kind == 10:
            streams = [one for one, sending in self.engine.sending.items() if sending]
            if streams:
                code = source.pick(content.ERROR_CODES)
                connection.stop_sending_received(source.pick(streams), code)
        elif kind == 11:
            self.engine.unread = source.pick((0, 1 << 20))
            if self.engine.unread == 0:
                for stream_id in list(self.engine.asked):
                    del self.engine.asked[stream_id]
                    connection.stream_writable(stream_id)
            connection.stream_credit_received()
        else:
            prefix = source.varint(0) if not source.chance(6) else source.varint()
            connection.datagram_received(prefix + content.message(source), self.engine.arrival)


def run(data: bytes, role: str) -> None:
    """A connection's life in a role: `server` or `client` is what is under attack."""
    source = Source(data, 4)
    engine = Engine(role == "client")
    router, client = Router(2_048), Client()
    handler = router if role == "server" else client
    connection = Connection(engine, handler, _LIMITS)
    client.connection = connection
    connection.handshake_completed()
    peer = Peer(source, connection, engine)
    control = content.http_frame(FrameType.SETTINGS, content.settings(source))
    early = source.chance(8)
    if not early:
        peer.send(peer.begin(True), bytes((StreamType.CONTROL,)) + control)
    if role == "server":
        fields: Headers = REQUEST
        if source.chance(4):
            fields = content.fields(source, response=False)
        peer.send(peer.begin(False), encode_headers(fields))
    else:
        peer.open.append(0)
        fields = RESPONSE if not source.chance(4) else content.fields(source, response=True)
        if client.session is not None:
            peer.send(0, encode_headers(fields))
    for _ in range(_EVENTS):
        if not source.left:
            break
        if source.chance(12):
            _own(source, connection, client)
        peer.act()
    if connection.closed is None:
        if early:
            peer.send(peer.begin(True), bytes((StreamType.CONTROL,)) + control)
        connection.connection_terminated(0x100, "", True, True, False)
    if connection.sessions or connection.has_connect_streams:
        raise Finding(f"state: {connection.sessions} are left")
    if role == "server":
        check_accounts(router.counters)
        if router.admission.active:
            raise Finding(f"account: {router.admission.active} sessions are left")
    else:
        client.check()
        if client.closed is None:
            raise Finding("state: the client does not know of the end")


def _own(source: Source, connection: Connection, client: Client) -> None:
    """What this side does of its own accord."""
    kind = source.below(8)
    if kind == 0:
        connection.drain()
    elif kind == 1:
        for session in connection.sessions:
            session.close(source.below(1 << 32), "\ud800" if source.chance(4) else "bye")
    else:
        client.try_to_ping(("datagram", "stream", "streams", "uni")[kind & 3])


def server(data: bytes) -> None:
    run(data, "server")


def client(data: bytes) -> None:
    run(data, "client")
