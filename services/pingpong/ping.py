"""Encodes and parses ping-pong messages.

There are two protocols. The plain one needs no negotiation: the answer to `ping` is `pong`, to
`ping` with a payload `pong` with the same payload, to anything else `?`. In `pingpong.v1` messages
are binary and big-endian, and a pong has the size of its ping, as in STAMP (RFC 8762)::

    ping: "ping" seq:u32 0:u32        t1:u64 0:u64  0:u64  padding…
    pong: "pong" seq:u32 received:u32 t1:u64 t2:u64 t3:u64 padding…

`t1` is a time of the client's clock, which the server copies. `t2` and `t3` are the times of the
server's clock, in nanoseconds, when the ping arrived and the pong was sent. `received` is the
number of pings of this session that the server has received, with this one.

A datagram is one message. On streams plain pings are tokens in a byte stream (`PlainScanner`), and
each v1 message has a length prefix (`frame` and `Deframer`).
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple, TypeAlias

from .webtransport import decode_varint, encode_varint

PROTOCOL = "pingpong.v1"
"""The name in WT-Available-Protocols and WT-Protocol."""

HEADER_SIZE = 36
"""The size of the smallest v1 message, in bytes."""

DEFAULT_SIZE = 64
"""The size of a message by default, in bytes."""

Mode: TypeAlias = Literal["datagram", "stream", "streams", "uni"]
"""How pings travel: in datagrams; all on one bidirectional stream; each on a new bidirectional
stream; each on a new unidirectional stream, and answered on another."""

PING = b"ping"
PONG = b"pong"
OTHER = b"?"

_TAG_SIZE = 4
_ONE_BYTE_LENGTH = 0x40
"""Length prefixes below this take one byte."""
_U32 = 0xFFFF_FFFF

_PING = struct.Struct(">4sI4xQ16x")
_PONG = struct.Struct(">4sIIQQQ")
# For an answer: seq and t1 are copied as bytes.
_ANSWER = struct.Struct(">4s4sI8sQQ")

# Slicing this is faster than creating zeros for each ping.
_ZEROS = bytes(65536)


# Plain messages


def answer_message(message: bytes) -> bytes:
    """Answer a plain message: a datagram, or all bytes of a unidirectional stream."""
    if message[:_TAG_SIZE] == PING:
        return PONG + message[_TAG_SIZE:]
    return OTHER


class PlainScanner:
    """Finds plain pings in the bytes of a bidirectional stream.

    The answer to `ping` is `pong`, and to a run of other bytes one `?`, as soon as the run's first
    byte cannot begin a `ping`. The answers do not depend on how the bytes are split. At most three
    bytes are buffered between calls.
    """

    __slots__ = ("_held", "_in_run")

    def __init__(self) -> None:
        # Invariant: `_held` is a proper prefix of `ping`.
        self._held = b""
        # Whether the bytes before `_held` belong to a run that was answered.
        self._in_run = False

    def feed(self, data: bytes, end: bool = False) -> bytes:
        """Parse bytes, and return the answers.

        `end` says that the stream ends after `data`: an incomplete `ping` is then a run of other
        bytes.
        """
        if data == PING and not self._held:
            self._in_run = False
            return PONG
        if self._held:
            data = self._held + data
            self._held = b""
        # The bytes between two pings are one run. The bytes before the first may continue a run.
        first, *others = data.split(PING)
        if not others:
            return self._rest(first, end)
        answers = [self._run(first)]
        *between, last = others
        self._in_run = False
        answers += [PONG + OTHER if run else PONG for run in between]
        answers += (PONG, self._rest(last, end))
        return b"".join(answers)

    def _run(self, run: bytes) -> bytes:
        """Answer bytes that are no ping."""
        if not run or self._in_run:
            return b""
        self._in_run = True
        return OTHER

    def _rest(self, rest: bytes, end: bool) -> bytes:
        """Answer the bytes after the last ping, but buffer what may begin the next one."""
        if not end:
            for size in (3, 2, 1):
                if rest.endswith(PING[:size]):
                    self._held = PING[:size]
                    return self._run(rest[:-size])
        return self._run(rest)


# pingpong.v1


class Pong(NamedTuple):
    """A v1 pong's fields."""

    seq: int
    """The ping's number, modulo 2^32."""
    received: int
    """Pings of this session that the server has received, modulo 2^32."""
    t1: int
    """Copied from the ping."""
    t2: int
    """When the ping arrived, on the server's clock, in nanoseconds."""
    t3: int
    """When the pong was sent, on the server's clock, in nanoseconds."""


def encode_ping(seq: int, t1: int, size: int = DEFAULT_SIZE) -> bytes:
    """Encode a ping of `size` bytes. `seq` is used modulo 2^32.

    Raises `ValueError` if `size` is below `HEADER_SIZE`.
    """
    padding = size - HEADER_SIZE
    if padding < 0:
        raise ValueError(f"a {PROTOCOL} message has at least {HEADER_SIZE} bytes, not {size}")
    zeros = _ZEROS[:padding] if padding <= len(_ZEROS) else bytes(padding)
    return _PING.pack(PING, seq & _U32, t1) + zeros


def answer_ping(message: bytes, received: int, t2: int, t3: int) -> bytes | None:
    """Encode the pong for a ping, with the same size and padding.

    `received` includes this ping, and is used modulo 2^32. `t2` and `t3` are in nanoseconds.
    Returns None if the ping is malformed: shorter than the header, or with another tag.
    """
    if len(message) < HEADER_SIZE or message[:_TAG_SIZE] != PING:
        return None
    header = _ANSWER.pack(PONG, message[4:8], received & _U32, message[12:20], t2, t3)
    return header + message[HEADER_SIZE:]


def decode_pong(message: bytes) -> Pong | None:
    """Parse a pong; None if it is malformed: shorter than the header, or with another tag."""
    if len(message) < HEADER_SIZE or message[:_TAG_SIZE] != PONG:
        return None
    _, seq, received, t1, t2, t3 = _PONG.unpack_from(message)
    return Pong(seq, received, t1, t2, t3)


# Messages on streams


class MessageTooLarge(ValueError):  # noqa: N818 - the name says what the peer did
    """A peer announced a message above the limit.

    `size` and `limit` are in bytes; `messages` are the complete messages before it.
    """

    def __init__(self, size: int, limit: int, messages: list[bytes]) -> None:
        super().__init__(f"a message of {size} bytes is above the limit of {limit}")
        self.size = size
        self.limit = limit
        self.messages = messages


def frame(message: bytes) -> bytes:
    """A message with its length before it, as a QUIC variable-length integer (RFC 9000, 16)."""
    return encode_varint(len(message)) + message


class Deframer:
    """Parses a stream into messages of at most `max_message_size` bytes.

    It buffers at most one incomplete message.
    """

    __slots__ = ("_buffer", "_limit", "_needed")

    def __init__(self, max_message_size: int) -> None:
        self._limit = max_message_size
        # An incomplete frame, with its length prefix.
        self._buffer = bytearray()
        # The buffer size at which parsing can continue.
        self._needed = 0

    @property
    def pending(self) -> int:
        """Bytes of an incomplete message; at the end of a stream, of a truncated one."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Parse bytes, and return the complete messages.

        Raises `MessageTooLarge` as soon as a length is above the limit. Further calls raise it
        again.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        messages: list[bytes] = []
        start, size = 0, len(data)
        while start < size:
            length_value = data[start]
            if length_value < _ONE_BYTE_LENGTH:
                body = start + 1
            else:
                length = decode_varint(data, start)
                if length is None:
                    self._needed = size - start + 1
                    break
                length_value, body = length
            end = body + length_value
            if length_value > self._limit:
                # Keep the length, so that the next call raises too.
                self._buffer += data[start:body]
                self._needed = 0
                raise MessageTooLarge(length_value, self._limit, messages)
            if end > size:
                self._needed = end - start
                break
            messages.append(data[body:end])
            start = end
        if start < size:
            self._buffer += data[start:]
        return messages
