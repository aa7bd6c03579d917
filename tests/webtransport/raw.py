"""A peer of bytes, to abuse either side of a `wire.Wire` with."""

from __future__ import annotations

from collections.abc import Mapping

from aioquic.quic import connection as aioquic
from aioquic.quic.configuration import QuicConfiguration

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleDecoder, CapsuleType
from pingpong.webtransport.drafts import Setting, offered_settings
from pingpong.webtransport.events import ConnectionClosed, Headers
from pingpong.webtransport.http3.frames import (
    FrameType,
    StreamType,
    decode_headers,
    encode_frame,
    encode_headers,
    encode_settings,
)
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.connection import AioquicConnection
from pingpong.webtransport.quic.engine import QuicConnection, QuicEvents

CONNECT = (
    (b":method", b"CONNECT"),
    (b":protocol", b"webtransport-h3"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/"),
)
NO_FLOW_CONTROL: dict[int, int] = {
    Setting.WT_INITIAL_MAX_DATA: 0,
    Setting.WT_INITIAL_MAX_STREAMS_BIDI: 0,
    Setting.WT_INITIAL_MAX_STREAMS_UNI: 0,
}


class Raw:
    """A peer of bytes: what a test sends leaves as it is, what comes is written down."""

    quic: AioquicConnection

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.final_sizes: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.datagrams: list[bytes] = []
        self.closed: ConnectionClosed | None = None
        self.control = -1

    def attach(self, quic: QuicConnection) -> QuicEvents:
        assert isinstance(quic, AioquicConnection)
        self.quic = quic
        return self

    # `QuicEvents`.

    def handshake_completed(self) -> None:
        pass

    def stream_data_received(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        self.data[stream_id] = self.data.get(stream_id, b"") + data
        if end_stream:
            self.ended.add(stream_id)

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None:
        self.resets[stream_id] = code
        self.final_sizes[stream_id] = final_size

    def stop_sending_received(self, stream_id: int, code: int) -> None:
        self.stops[stream_id] = code

    def stream_writable(self, stream_id: int) -> None:
        pass

    def stream_credit_received(self) -> None:
        pass

    def buffered_bytes(self) -> int:
        return 0

    def datagram_received(self, data: bytes, arrival: int) -> None:
        self.datagrams.append(data)

    def deadline_passed(self, now: float) -> None:
        pass

    def connection_terminated(
        self, code: int, reason: str, by_peer: bool, is_application: bool, timed_out: bool
    ) -> None:
        self.closed = ConnectionClosed(code, reason, by_peer, is_application, timed_out)

    # What tests call.

    def open(self, data: bytes = b"", *, uni: bool = False, end: bool = False) -> int:
        """Open a stream with these first bytes."""
        stream_id = self.quic.open_stream(b"", uni)
        self.quic.send_stream(stream_id, data, end)
        return stream_id

    def send(self, stream_id: int, data: bytes = b"", *, end: bool = False) -> None:
        self.quic.send_stream(stream_id, data, end)

    def reset(self, stream_id: int, code: int = 0x100, reliable_size: int = 0) -> None:
        self.quic.reset_stream(stream_id, code, reliable_size)

    def stop(self, stream_id: int, code: int = 0x100) -> None:
        self.quic.stop_sending(stream_id, code)

    def datagram(self, data: bytes, session_id: int = 0) -> None:
        self.quic.send_datagram(varint.encode(session_id >> 2) + data)

    def send_settings(self, changes: Mapping[int, int] | None = None) -> None:
        """Open the control stream; settings changed to 0 are left out."""
        settings = {**offered_settings(Limits(), is_client=self.quic.is_client), **(changes or {})}
        payload = encode_settings({key: value for key, value in settings.items() if value})
        self.control = self.open(varint.encode(StreamType.CONTROL) + payload, uni=True)

    def request(self, headers: Headers = CONNECT, *, end: bool = False) -> int:
        """Open a request stream."""
        return self.open(encode_headers(headers), end=end)

    def capsule(self, stream_id: int, kind: int, value: bytes = b"", *, end: bool = False) -> None:
        """Send a capsule in a DATA frame of its own."""
        self.send(stream_id, encode_frame(FrameType.DATA, capsule(kind, value)), end=end)

    def open_in(
        self, session_id: int, data: bytes = b"", *, uni: bool = False, end: bool = False
    ) -> int:
        """Open a stream of a session."""
        return self.open(stream_header(session_id, uni=uni) + data, uni=uni, end=end)

    def frames(self, stream_id: int) -> list[tuple[int, bytes]]:
        """The frames that came on a stream, whole ones only."""
        return parse_frames(self.data.get(stream_id, b""))

    def headers(self, stream_id: int) -> dict[bytes, bytes]:
        """The first field section that came on a stream."""
        payload = next(p for kind, p in self.frames(stream_id) if kind == FrameType.HEADERS)
        return dict(decode_headers(payload, 1 << 16))

    def status(self, stream_id: int) -> int:
        return int(self.headers(stream_id)[b":status"])

    def capsules(self, stream_id: int) -> list[tuple[CapsuleType, bytes]]:
        """The capsules that came on a stream."""
        data = b"".join(p for kind, p in self.frames(stream_id) if kind == FrameType.DATA)
        return list(CapsuleDecoder().feed(data))


def capsule(kind: int, value: bytes = b"") -> bytes:
    return varint.encode(kind) + varint.encode(len(value)) + value


def stream_header(session_id: int, *, uni: bool) -> bytes:
    return varint.encode(0x54 if uni else 0x41) + varint.encode(session_id)


def parse_frames(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    position = 0
    while (kind := varint.decode(data, position)) and (length := varint.decode(data, kind[1])):
        position = length[1] + length[0]
        frames.append((kind[0], data[length[1] : position]))
    return frames


def control(*frames: bytes) -> bytes:
    """A control stream's bytes."""
    return varint.encode(StreamType.CONTROL) + b"".join(frames)


def goaway(identifier: int) -> bytes:
    return encode_frame(FrameType.GOAWAY, varint.encode(identifier))


def parse_control(raw: Raw, stream_id: int) -> list[tuple[int, bytes]]:
    """The frames that came on a control stream."""
    assert raw.data[stream_id][0] == StreamType.CONTROL
    return parse_frames(raw.data[stream_id][1:])


def grease(n: int) -> int:
    """Types of frames, capsules, settings and streams that mean nothing (RFC 9114, 7.2.8)."""
    return 0x1F * n + 0x21


def first_packet(now: float = 1_000.0) -> bytes:
    """What a client begins a connection with."""
    configuration = QuicConfiguration(alpn_protocols=["h3"], is_client=True)
    connection = aioquic.QuicConnection(configuration=configuration)
    connection.connect(("192.0.2.2", 4433), now)
    return connection.datagrams_to_send(now)[0][0]
