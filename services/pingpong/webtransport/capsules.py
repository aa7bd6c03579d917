"""Capsules on the CONNECT stream (RFC 9297, section 3; draft-16, sections 4.6, 5.6, 6)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from .errors import ErrorCode, SessionProtocolError
from .varint import decode as decode_varint
from .varint import encode as encode_varint


class CapsuleType(IntEnum):
    """Known capsule types; all others are skipped."""

    DATAGRAM = 0x00
    WT_CLOSE_SESSION = 0x2843
    WT_DRAIN_SESSION = 0x78AE
    WT_MAX_DATA = 0x190B4D3D
    WT_MAX_STREAM_DATA = 0x190B4D3E
    WT_MAX_STREAMS_BIDI = 0x190B4D3F
    WT_MAX_STREAMS_UNI = 0x190B4D40
    WT_DATA_BLOCKED = 0x190B4D41
    WT_STREAM_DATA_BLOCKED = 0x190B4D42
    WT_STREAMS_BLOCKED_BIDI = 0x190B4D43
    WT_STREAMS_BLOCKED_UNI = 0x190B4D44


MAX_CLOSE_REASON = 1024
"""Bytes of a close message (section 6)."""

MAX_PAYLOAD = {
    CapsuleType.DATAGRAM: 65_535,
    CapsuleType.WT_CLOSE_SESSION: 4 + MAX_CLOSE_REASON,
    CapsuleType.WT_DRAIN_SESSION: 0,
    CapsuleType.WT_MAX_DATA: 8,
    CapsuleType.WT_MAX_STREAM_DATA: 16,
    CapsuleType.WT_MAX_STREAMS_BIDI: 8,
    CapsuleType.WT_MAX_STREAMS_UNI: 8,
    CapsuleType.WT_DATA_BLOCKED: 8,
    CapsuleType.WT_STREAM_DATA_BLOCKED: 16,
    CapsuleType.WT_STREAMS_BLOCKED_BIDI: 8,
    CapsuleType.WT_STREAMS_BLOCKED_UNI: 8,
}

# CapsuleType(n) raises for an unknown type, which is slow.
_KNOWN: dict[int, CapsuleType] = {int(kind): kind for kind in CapsuleType}


def encode_capsule(kind: CapsuleType, payload: bytes = b"") -> bytes:
    """A capsule's bytes: type, length, value."""
    return encode_varint(kind) + encode_varint(len(payload)) + payload


def encode_limit(kind: CapsuleType, limit: int) -> bytes:
    """The bytes of a flow control capsule: its value is one integer."""
    return encode_capsule(kind, encode_varint(limit))


def decode_limit(payload: bytes) -> int:
    """The integer of a flow control capsule.

    Raises `SessionProtocolError` with H3_MESSAGE_ERROR if the value is not exactly one integer
    (RFC 9297, section 3.3: a malformed capsule is a malformed message).
    """
    decoded = decode_varint(payload)
    if decoded is None or decoded[1] != len(payload):
        raise SessionProtocolError(ErrorCode.H3_MESSAGE_ERROR, "malformed flow control capsule")
    return decoded[0]


def encode_close(code: int, reason: str) -> bytes:
    """The bytes of WT_CLOSE_SESSION. The reason is truncated to 1024 bytes, after a whole
    character.

    A lone surrogate becomes a question mark, so any reason can be sent.
    """
    message = reason.encode(errors="replace")
    if len(message) > MAX_CLOSE_REASON:
        message = message[:MAX_CLOSE_REASON].decode(errors="ignore").encode()
    return encode_capsule(CapsuleType.WT_CLOSE_SESSION, code.to_bytes(4, "big") + message)


def decode_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of WT_CLOSE_SESSION.

    Raises `SessionProtocolError` with H3_MESSAGE_ERROR if it has no code, or its reason is not
    UTF-8 (section 6).
    """
    if len(payload) < 4:
        raise SessionProtocolError(ErrorCode.H3_MESSAGE_ERROR, "WT_CLOSE_SESSION without a code")
    try:
        reason = payload[4:].decode()
    except UnicodeDecodeError:
        raise SessionProtocolError(
            ErrorCode.H3_MESSAGE_ERROR, "WT_CLOSE_SESSION's reason is not UTF-8"
        ) from None
    return int.from_bytes(payload[:4], "big"), reason


class CapsuleDecoder:
    """Parses a byte stream into capsules, however the bytes are split.

    It buffers at most one capsule of a known type, up to the maximum size of the type. It skips
    capsules of other types, of any length.
    """

    __slots__ = ("_buffer", "_kind", "_remaining")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._kind: CapsuleType | None = None
        self._remaining = -1
        """Missing bytes of the current capsule's value; -1 between capsules."""

    @property
    def incomplete(self) -> bool:
        """Whether a capsule is incomplete: an error at the end of the stream."""
        return self._remaining >= 0 or bool(self._buffer)

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are buffered of an incomplete capsule."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[tuple[CapsuleType, bytes]]:
        """Parse `data`, and iterate over the known capsules that are complete now.

        If a capsule is longer than its type allows, the iterator raises `SessionProtocolError`
        with H3_MESSAGE_ERROR, after the capsules before it. The decoder cannot be used after that.
        """
        capsules: list[tuple[CapsuleType, bytes]] = []
        self._buffer += data
        try:
            self._cut(capsules)
        except SessionProtocolError as error:
            return _then_raise(capsules, error)
        return iter(capsules)

    def _cut(self, capsules: list[tuple[CapsuleType, bytes]]) -> None:
        buffer = self._buffer
        position = 0
        while position < len(buffer):
            if self._remaining < 0:
                start = self._begin(position)
                if start < 0:
                    break
                position = start
                if not self._remaining and self._kind is None:
                    self._remaining = -1
                    continue
            end = position + self._remaining
            if self._kind is not None:
                if end > len(buffer):
                    break
                capsules.append((self._kind, bytes(buffer[position:end])))
            elif end > len(buffer):
                self._remaining = end - len(buffer)
                position = len(buffer)
                break
            position = end
            self._remaining = -1
        del buffer[:position]

    def _begin(self, position: int) -> int:
        """Parse type and length at `position`. Returns where the value starts, or -1."""
        buffer = self._buffer
        kind = decode_varint(buffer, position)
        length = kind and decode_varint(buffer, kind[1])
        if not kind or not length:
            return -1
        self._remaining = length[0]
        self._kind = known = _KNOWN.get(kind[0])
        if known is not None and length[0] > MAX_PAYLOAD[known]:
            raise SessionProtocolError(
                ErrorCode.H3_MESSAGE_ERROR, f"{known.name} of {length[0]} bytes"
            )
        return length[1]


def _then_raise(
    capsules: list[tuple[CapsuleType, bytes]], error: SessionProtocolError
) -> Iterator[tuple[CapsuleType, bytes]]:
    yield from capsules
    raise error
