"""What streams and datagrams carry, as a hostile peer makes it: HTTP/3, capsules, pings."""

from __future__ import annotations

import pylsqpack

from pingpong.ping import encode_ping, frame
from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleType
from pingpong.webtransport.drafts import HTTP2_SETTINGS, Setting, offered_settings
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.http3.frames import FrameType, StreamType
from pingpong.webtransport.limits import Limits
from tests.fuzz.source import Source

OFFERED = dict(offered_settings(Limits(), is_client=True))
CONNECT: dict[bytes, bytes] = {
    b":method": b"CONNECT",
    b":protocol": b"webtransport-h3",
    b":scheme": b"https",
    b":authority": b"localhost",
    b":path": b"/ping",
}
PATHS = (b"/ping", b"/", b"/echo", b"/ping?token=x", b"*", b"", b"/none", b"//", b"/\xff")
PROTOCOLS = (b'"pingpong.v1"', b'"a", "pingpong.v1"', b'"', b"a", b'"\\"', b'("a" "b")', b"", b"?1")
FIELDS: dict[bytes, tuple[bytes, ...]] = {
    b"wt-available-protocols": PROTOCOLS,
    b"wt-protocol": PROTOCOLS,
    b"origin": (b"https://localhost", b"null", b"\xff", b"https://a:99999", b"//"),
    b"authorization": (b"Bearer x", b"Bearer", b"Basic \xff", b""),
    b"sec-webtransport-http3-draft02": (b"1", b""),
    b"sec-webtransport-http3-draft": (b"draft02",),
    b"host": (b"localhost", b"LOCALHOST", b"other"),
    b"te": (b"trailers", b"gzip"),
    b"connection": (b"close",),
    b"content-length": (b"0", b"-1", b"18446744073709551616"),
    b"Upper": (b"x",),
    b"x": (b"\0", b" x", b"\r\n", b"y" * 5_000),
}
STATUSES = (b"200", b"204", b"100", b"103", b"404", b"429", b"503", b"0", b"2000", b"", b"+20")
_STATIC_SIZE = 99
_encoder = pylsqpack.Encoder()


def http_frame(kind: int, data: bytes) -> bytes:
    return varint.encode(kind) + varint.encode(len(data)) + data


def settings(source: Source) -> bytes:
    """A SETTINGS frame's payload: what is offered, with a few changes."""
    chosen: list[tuple[int, int]] = [] if source.chance(8) else list(OFFERED.items())
    for _ in range(source.below(6)):
        if source.chance(2) and chosen:
            at = source.below(len(chosen))
            if source.chance(2):
                del chosen[at]
            else:
                chosen[at] = (chosen[at][0], source.pick((0, 1, 2, source.integer())))
        elif source.error(8):
            chosen.append((source.pick((*sorted(HTTP2_SETTINGS), 0x21, source.integer())), 0))
        else:
            chosen.append((int(source.pick(list(Setting))), source.integer()))
    if not source.error(8):
        chosen = list(dict(chosen).items())
    data = b"".join(source.varint(key) + source.varint(value) for key, value in chosen)
    return source.damaged(data) if source.error(16) else data


def fields(source: Source, *, response: bool) -> list[tuple[bytes, bytes]]:
    """The fields of a request or response, with a few changes."""
    if response:
        pseudo = [(b":status", source.pick(STATUSES) if source.chance(2) else b"200")]
    else:
        pseudo = list(CONNECT.items())
        if source.chance(4):
            pseudo[4] = (b":path", source.pick(PATHS))
        if source.chance(8):
            pseudo[1] = (b":protocol", source.pick((b"webtransport", b"connect-udp", b"")))
    others = []
    for _ in range(source.below(4)):
        name = source.pick(list(FIELDS))
        others.append((name, source.pick(FIELDS[name])))
    headers = pseudo + others
    for _ in range(source.below(3) if source.error(4) and headers else 0):
        at = source.below(len(headers) + 1)
        kind = source.byte() % 5
        if kind == 0:
            del headers[at : at + 1]
        elif kind == 1:
            headers += headers[at : at + 1]
        elif kind == 2:
            headers = headers[at:] + headers[:at]
        elif kind == 3:
            headers[at : at + 1] = [(source.take(20) or b"x", source.take(40))]
        else:
            headers.append((b":" + source.take(6), b"x"))
    return headers


def field_section(source: Source, *, response: bool) -> bytes:
    """An encoded field section (RFC 9204): of pylsqpack, or of lines made by hand."""
    if not source.error(4):
        data: bytes = _encoder.encode(0, fields(source, response=response))[1]
        return source.damaged(data) if source.error(8) else data
    lines = [source.pick((b"\0\0", b"\0\0", b"\0\0", b"\x01\0", b"\0\x80", b"\xff\xff\xff\x7f\0"))]
    for _ in range(source.below(12)):
        index = source.below(64)
        lines.append(
            source.pick(
                (
                    _prefixed(source.below(_STATIC_SIZE + 2), 6, 0xC0),
                    _prefixed(source.below(_STATIC_SIZE + 2), 4, 0x50) + _string(source, 7),
                    _string(source, 3, 0x20) + _string(source, 7),
                    _prefixed(index, 6, 0x80),
                    _prefixed(index, 4, 0x10),
                    _prefixed(source.integer(), 3, 0),
                )
            )
        )
    return b"".join(lines)


def _prefixed(value: int, bits: int, first: int) -> bytes:
    """A prefixed integer (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    data = bytearray((first | most,))
    value -= most
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(data) + bytes((value,))


def _string(source: Source, bits: int, first: int = 0) -> bytes:
    """A string literal, plain or (with bytes of chance) Huffman-coded."""
    data = source.take(16)
    huffman = 1 << bits if source.chance(4) else 0
    size = source.integer() if source.chance(32) else len(data)
    return _prefixed(size, bits, first | huffman) + data


def capsule(source: Source) -> bytes:
    """One capsule; most are well-formed."""
    kind = int(source.pick(list(CapsuleType)))
    if kind == CapsuleType.DATAGRAM:
        value = source.take(64)
    elif kind == CapsuleType.WT_CLOSE_SESSION:
        if not source.error(4):
            kind = 0x21
        value = source.take(4).ljust(4, b"\0") + source.pick((b"", b"bye", b"\xff", b"x" * 1_030))
    elif kind == CapsuleType.WT_DRAIN_SESSION:
        value = b"" if not source.error(16) else b"x"
    else:
        value = source.varint() + (source.varint() if source.error(16) else b"")
    if source.chance(8):
        kind = source.integer()
    size = source.integer() if source.error(32) else len(value)
    return source.varint(kind) + source.varint(size) + value


def message(source: Source, *, v1: bool | None = None) -> bytes:
    """A ping in either language, or what is nearly one."""
    if v1 is None:
        v1 = source.chance(2)
    if v1:
        tag = source.pick((b"ping", b"ping", b"ping", b"pong", b"Ping"))
        size = 36 + source.below(200)
        data = tag + encode_ping(source.below(1 << 32), source.integer(), size)[4:]
        return source.damaged(data) if source.chance(8) else data
    return source.pick((b"ping", b"ping", b"pinpong", b"pi", b"", b"p")) + source.take(12)


def messages(source: Source) -> bytes:
    """Stream bytes: framed messages, tokens."""
    if source.chance(2):
        return b"".join(source.several(5, message))
    data = b"".join(frame(message(source, v1=True)) for _ in range(1 + source.below(5)))
    return data + source.varint() if source.chance(8) else data


def stream_header(source: Source, session_id: int = 0, *, uni: bool) -> bytes:
    """What says whose a stream is."""
    kind = StreamType.WEBTRANSPORT if uni else FrameType.WT_STREAM
    if source.error(6):
        session_id = source.integer() if source.error(2) else 4 * source.below(8)
    return source.varint(kind) + source.varint(session_id)


def control_frame(source: Source) -> bytes:
    kind: int = source.pick((FrameType.GOAWAY, 0x21, 0x21))
    if source.error(4):
        kind = source.pick((FrameType.MAX_PUSH_ID, FrameType.SETTINGS, 0x02, *FrameType))
    if kind == FrameType.SETTINGS:
        data = settings(source)
    elif kind == 0x21:
        data = source.take(32)
    else:
        data = source.varint(4 * source.below(64) if source.chance(2) else None)
    size = source.integer() if source.error(32) else len(data)
    return source.varint(kind) + source.varint(size) + data


def request_frame(source: Source, *, response: bool) -> bytes:
    """A frame of a CONNECT stream: mostly DATA with capsules."""
    kind: int = FrameType.DATA
    if source.chance(6):
        kind = 0x21
    elif source.error(6):
        kind = source.pick((FrameType.HEADERS, FrameType.SETTINGS, 0x06, source.integer()))
    if kind == FrameType.HEADERS:
        data = field_section(source, response=response)
    else:
        data = b"".join(source.several(4, capsule))
        if source.chance(4):
            data = data[: source.below(len(data) + 1)]
    size = source.integer() if source.error(32) else len(data)
    return source.varint(kind) + source.varint(size) + data


def beginning(source: Source, *, uni: bool, response: bool) -> bytes:
    """How a stream of the peer's begins, with some of what follows."""
    if not uni:
        if source.chance(2):
            return stream_header(source, uni=False) + messages(source)
        head = http_frame(FrameType.HEADERS, field_section(source, response=response))
        return head + b"".join(source.several(3, lambda s: request_frame(s, response=response)))
    kind = source.below(8)
    if kind < 4 or not source.error(2):
        return stream_header(source, uni=True) + messages(source)
    if kind == 4:
        control = http_frame(FrameType.SETTINGS, settings(source))
        return b"\0" + control + b"".join(source.several(3, control_frame))
    if kind == 5:
        return b"\2" + b"\x20" * source.below(4) + (source.take(8) if source.chance(8) else b"")
    if kind == 6:
        return b"\3" + b"\x41" * source.below(4) + (source.take(8) if source.chance(8) else b"")
    return source.varint() + source.take(32)


def following(source: Source, *, uni: bool, response: bool) -> bytes:
    """What follows on a stream of which nothing is known."""
    kind = source.below(4)
    if kind == 0 or uni:
        return control_frame(source) if source.chance(4) else messages(source)
    if kind == 1:
        return request_frame(source, response=response)
    return b"".join(source.several(4, capsule)) if kind == 2 else source.take(64)


ERROR_CODES = (*map(int, ErrorCode), 0, 0x52E4A40FA8DB, 0x52E5AC983162, 0x52E4A40FA8DA)
