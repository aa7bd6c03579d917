"""Encodes and parses the HTTP/3 frames that sessions need: SETTINGS, HEADERS, DATA (RFC 9114).

QPACK is used without a dynamic table (RFC 9204, section 2). So encoder and decoder have no state,
and all connections share one of each.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

import pylsqpack

from ..errors import ConnectionProtocolError, ErrorCode, ProtocolError, StreamProtocolError
from ..events import Headers
from ..varint import decode as decode_varint
from ..varint import encode as encode_varint

_MAX_QUARTER_STREAM_ID = (1 << 60) - 1


class FrameType(IntEnum):
    """Frame types that are used here, or that are an error."""

    DATA = 0x00
    HEADERS = 0x01
    CANCEL_PUSH = 0x03
    SETTINGS = 0x04
    PUSH_PROMISE = 0x05
    GOAWAY = 0x07
    MAX_PUSH_ID = 0x0D
    WT_STREAM = 0x41
    """Not a frame: the signal value of a bidirectional stream (draft-16, section 4.3)."""


class StreamType(IntEnum):
    """Types of unidirectional streams."""

    CONTROL = 0x00
    PUSH = 0x01
    QPACK_ENCODER = 0x02
    QPACK_DECODER = 0x03
    WEBTRANSPORT = 0x54


HTTP2_FRAMES = frozenset((0x02, 0x06, 0x08, 0x09))
"""Reserved: receipt is an error (RFC 9114, section 7.2.8)."""

_UNEXPECTED_ON_CONTROL: dict[int, ErrorCode] = {
    FrameType.DATA: ErrorCode.H3_FRAME_UNEXPECTED,
    FrameType.HEADERS: ErrorCode.H3_FRAME_UNEXPECTED,
    FrameType.PUSH_PROMISE: ErrorCode.H3_FRAME_UNEXPECTED,
    FrameType.WT_STREAM: ErrorCode.H3_FRAME_ERROR,
}
_UNEXPECTED_ON_REQUEST: dict[int, ErrorCode] = {
    FrameType.CANCEL_PUSH: ErrorCode.H3_FRAME_UNEXPECTED,
    FrameType.SETTINGS: ErrorCode.H3_FRAME_UNEXPECTED,
    FrameType.GOAWAY: ErrorCode.H3_FRAME_UNEXPECTED,
    FrameType.MAX_PUSH_ID: ErrorCode.H3_FRAME_UNEXPECTED,
    FrameType.WT_STREAM: ErrorCode.H3_FRAME_ERROR,
}
_UNEXPECTED_BY_CLIENT = {**_UNEXPECTED_ON_REQUEST, FrameType.PUSH_PROMISE: ErrorCode.H3_ID_ERROR}
_UNEXPECTED_BY_SERVER = {
    **_UNEXPECTED_ON_REQUEST,
    FrameType.PUSH_PROMISE: ErrorCode.H3_FRAME_UNEXPECTED,
}
_INTEGER_FRAME = 8
_DATA = int(FrameType.DATA)
_ONE_BYTE = 0x40
"""Variable-length integers below this take one byte."""


class _Rules(NamedTuple):
    """What a stream may have."""

    wanted: Mapping[int, int]
    """The types that are passed on, with the maximum size of each."""
    refused: Mapping[int, ErrorCode]
    limits: Mapping[int, int]
    """Maximum size of the frames of wanted types; below zero for those that are refused."""


# Streams with the same limit share rules: each connection needs two.
@functools.lru_cache(maxsize=16)
def _rules_on_control(max_settings: int) -> _Rules:
    wanted = {
        FrameType.SETTINGS: max_settings,
        FrameType.GOAWAY: _INTEGER_FRAME,
        FrameType.MAX_PUSH_ID: _INTEGER_FRAME,
        FrameType.CANCEL_PUSH: _INTEGER_FRAME,
    }
    return _rules(wanted, _UNEXPECTED_ON_CONTROL)


@functools.lru_cache(maxsize=16)
def _rules_on_request(max_field_section: int, is_client: bool) -> _Rules:
    refused = _UNEXPECTED_BY_CLIENT if is_client else _UNEXPECTED_BY_SERVER
    return _rules({FrameType.HEADERS: max_field_section}, refused)


def _rules(wanted: Mapping[FrameType, int], refused: Mapping[int, ErrorCode]) -> _Rules:
    # Integers as keys: an enumeration's hash is a call.
    sizes = {int(kind): size for kind, size in wanted.items()}
    unexpected = dict.fromkeys((*map(int, refused), *HTTP2_FRAMES), -1)
    return _Rules(MappingProxyType(sizes), refused, MappingProxyType({**sizes, **unexpected}))


class FrameReader:
    """Parses a stream into frames, however its bytes are split.

    A frame of a wanted type is buffered until it is complete, up to the maximum size of its type.
    DATA is passed on without buffering. Frames of unknown types are skipped.
    """

    __slots__ = ("_buffer", "_limits", "_refused", "_remaining", "_type", "_wanted")

    def __init__(self, rules: _Rules) -> None:
        self._wanted, self._refused, self._limits = rules
        self._buffer = b""
        self._type = -1
        self._remaining = -1
        """Missing bytes of the current frame; -1 between frames."""

    @classmethod
    def for_control(cls, max_settings: int) -> FrameReader:
        """For a control stream (RFC 9114, section 7.2, table 1)."""
        return cls(_rules_on_control(max_settings))

    @classmethod
    def for_request(cls, max_field_section: int, *, is_client: bool) -> FrameReader:
        """For a request stream.

        PUSH_PROMISE is always an error: a client must not send it, and we never allowed a server
        to (RFC 9114, sections 7.2.5 and 4.6).
        """
        return cls(_rules_on_request(max_field_section, is_client))

    @property
    def incomplete(self) -> bool:
        """Whether a frame is incomplete: an error at the end of the stream."""
        return self._remaining > 0 or bool(self._buffer)

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are buffered of an incomplete frame."""
        return len(self._buffer)

    def first_type(self, data: bytes) -> int | None:
        """The type of the next frame, with `data` appended; None if bytes are missing."""
        if self._remaining >= 0:
            return self._type
        decoded = decode_varint(self._buffer + data)
        return None if decoded is None else decoded[0]

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Parse `data`, and iterate over the complete frames as (type, payload), and DATA in
        pieces.

        A piece joins the payloads of consecutive DATA frames, so that frames of one byte are
        cheap. Parsing is lazy: a frame is yielded even if an error follows it. Iterate to the end
        before the next call. Raises `ConnectionProtocolError` with H3_FRAME_UNEXPECTED or
        H3_FRAME_ERROR for a frame that this stream may not have. A frame that is too large is
        H3_EXCESSIVE_LOAD: a connection error for SETTINGS, a stream error (`StreamProtocolError`)
        for HEADERS.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        limits, wanted = self._limits, self._wanted
        kind, remaining = self._type, self._remaining
        position, end = 0, len(data)
        while position < end:
            if remaining < 0:
                kind = data[position]
                # Type and length mostly take a byte each, and so little time: a packet may have
                # some hundred frames of two bytes.
                if (
                    kind < _ONE_BYTE
                    and position + 1 < end
                    and (remaining := data[position + 1]) < _ONE_BYTE
                    and remaining <= limits.get(kind, _ONE_BYTE)
                ):
                    position += 2
                else:
                    try:
                        kind, remaining, start = self._read_frame_header(data, position)
                    except ProtocolError:
                        if pieces:
                            yield FrameType.DATA, b"".join(pieces)
                        raise
                    if start < 0:
                        break
                    position = start
            stop = position + remaining
            if kind in wanted:
                if stop > end:
                    break
                if pieces:
                    yield FrameType.DATA, b"".join(pieces)
                    pieces = []
                yield kind, data[position:stop]
                position, remaining = stop, -1
            else:
                if kind == _DATA and remaining:
                    pieces.append(data[position:stop])
                remaining = stop - end if stop > end else -1
                position = stop
        self._type, self._remaining = kind, remaining
        self._buffer = data[position:]
        if pieces:
            yield FrameType.DATA, b"".join(pieces)

    def _read_frame_header(self, data: bytes, position: int) -> tuple[int, int, int]:
        """Parse the frame header at `position`.

        Returns type and length, and where the payload starts: -1 if bytes are missing.
        """
        kind = decode_varint(data, position)
        if kind is None:
            return -1, -1, -1
        if (code := self._refused.get(kind[0])) is not None or kind[0] in HTTP2_FRAMES:
            raise ConnectionProtocolError(
                code or ErrorCode.H3_FRAME_UNEXPECTED, f"frame of type 0x{kind[0]:x}"
            )
        length = decode_varint(data, kind[1])
        if length is None:
            return -1, -1, -1
        if length[0] > self._wanted.get(kind[0], length[0]):
            reason = f"{FrameType(kind[0]).name} of {length[0]} bytes"
            if kind[0] == FrameType.HEADERS:
                raise StreamProtocolError(ErrorCode.H3_EXCESSIVE_LOAD, reason)
            if kind[0] == FrameType.SETTINGS:
                raise ConnectionProtocolError(ErrorCode.H3_EXCESSIVE_LOAD, reason)
            raise ConnectionProtocolError(ErrorCode.H3_FRAME_ERROR, reason)
        return kind[0], length[0], length[1]


def encode_frame(kind: FrameType, payload: bytes) -> bytes:
    """Encode a frame: type, length, payload."""
    return encode_varint(kind) + encode_varint(len(payload)) + payload


def encode_settings(settings: Mapping[int, int]) -> bytes:
    """Encode a SETTINGS frame (RFC 9114, section 7.2.4)."""
    return encode_frame(
        FrameType.SETTINGS,
        b"".join(encode_varint(key) + encode_varint(value) for key, value in settings.items()),
    )


# Cached, because most clients send the same settings.
@functools.lru_cache(maxsize=64)
def decode_settings(payload: bytes) -> Mapping[int, int]:
    """Parse the payload of a SETTINGS frame.

    Raises `ConnectionProtocolError` with H3_FRAME_ERROR if the payload ends within a setting, and
    H3_SETTINGS_ERROR if a setting is repeated.
    """
    settings: dict[int, int] = {}
    position = 0
    while position < len(payload):
        key = decode_varint(payload, position)
        value = key and decode_varint(payload, key[1])
        if not key or not value:
            raise ConnectionProtocolError(ErrorCode.H3_FRAME_ERROR, "truncated SETTINGS")
        if key[0] in settings:
            raise ConnectionProtocolError(
                ErrorCode.H3_SETTINGS_ERROR, f"setting 0x{key[0]:x} comes twice"
            )
        settings[key[0]], position = value
    return MappingProxyType(settings)


def decode_integer(payload: bytes, name: str) -> int:
    """Parse the payload of GOAWAY, MAX_PUSH_ID or CANCEL_PUSH: one integer.

    Raises `ConnectionProtocolError` with H3_FRAME_ERROR for any other payload.
    """
    if len(payload) == 1 and payload[0] < _ONE_BYTE:
        return payload[0]
    decoded = decode_varint(payload)
    if decoded is None or decoded[1] != len(payload):
        raise ConnectionProtocolError(ErrorCode.H3_FRAME_ERROR, f"malformed {name}")
    return decoded[0]


def decode_quarter_id(datagram: bytes) -> tuple[int, int]:
    """Parse the quarter stream ID of an HTTP datagram. Returns it, and where the payload starts.

    Raises `ConnectionProtocolError` with H3_DATAGRAM_ERROR (RFC 9297, section 2.1).
    """
    decoded = decode_varint(datagram)
    if decoded is None or decoded[0] > _MAX_QUARTER_STREAM_ID:
        raise ConnectionProtocolError(ErrorCode.H3_DATAGRAM_ERROR, "no quarter stream ID")
    return decoded


# Without a dynamic table both are stateless.
_QPACK_ENCODER = pylsqpack.Encoder()
_QPACK_DECODER = pylsqpack.Decoder(0, 0)
_FIELD_OVERHEAD = 32
"""Bytes that each field adds to a field section's size (RFC 9114, section 4.2.2)."""


def encode_headers(headers: Headers) -> bytes:
    """Encode a HEADERS frame."""
    return encode_frame(FrameType.HEADERS, _QPACK_ENCODER.encode(0, list(headers))[1])


def decode_headers(payload: bytes, max_size: int) -> list[tuple[bytes, bytes]]:
    """Parse the payload of a HEADERS frame into fields.

    Raises `ConnectionProtocolError` with QPACK_DECOMPRESSION_FAILED if it cannot be decoded
    without a dynamic table (RFC 9204, section 6), and `StreamProtocolError` with H3_EXCESSIVE_LOAD
    if the decoded section is larger than our SETTINGS_MAX_FIELD_SECTION_SIZE.
    """
    if payload == b"\0\0":
        # A section without fields is valid, but pylsqpack rejects it as truncated.
        return []
    try:
        headers = _QPACK_DECODER.feed_header(0, payload)[1]
    except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked):
        raise ConnectionProtocolError(
            ErrorCode.QPACK_DECOMPRESSION_FAILED, "undecodable field section"
        ) from None
    if sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in headers) > max_size:
        raise StreamProtocolError(ErrorCode.H3_EXCESSIVE_LOAD, "field section too large")
    return headers
