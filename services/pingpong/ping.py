"""Ping-pong messages, as bytes.

Two languages are spoken. The plain one needs no negotiation: `ping` is answered with `pong`,
`ping` and a payload with `pong` and the same payload, anything else with `?`. In
`pingpong.v1` messages are binary, big-endian, and both directions carry the same size, as in
STAMP (RFC 8762)::

    ping: "ping" seq:u32 0:u32        t1:u64 0:u64  0:u64  padding…
    pong: "pong" seq:u32 received:u32 t1:u64 t2:u64 t3:u64 padding…

`t1` is a time of the sender's clock, which the server only copies. `t2` and `t3` are the times,
on the server's clock, in nanoseconds, when the ping arrived and the pong left. `received` is how
many pings of this session the server has received: its first pong says 1.

A datagram is a message. On streams plain pings are tokens in a run of bytes (`PlainScanner`),
while each v1 message is preceded by its length (`frame` and `Deframer`).
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
_U32 = 0xFFFF_FFFF

_PING = struct.Struct(">4sI4xQ16x")
_PONG = struct.Struct(">4sIIQQQ")
# The answer's view of a ping: seq and t1 are copied as they came, unread.
_ANSWER = struct.Struct(">4s4sI8sQQ")

# Slicing this is cheaper than making zeros anew for each ping.
_ZEROS = bytes(65536)


# Plain messages


def answer_message(message: bytes) -> bytes:
    """Answer a plain message: a datagram, or all bytes of a unidirectional stream."""
    if message[:_TAG_SIZE] == PING:
        return PONG + message[_TAG_SIZE:]
    return OTHER


class PlainScanner:
    """Finds plain pings in the bytes of a bidirectional stream.

    A `ping` is answered with `pong`, a run of other bytes with one `?`, given as soon as the
    run's first byte is known to begin no `ping`. The answers are the same however the bytes
    were cut. At most three bytes are kept between calls.
    """

    __slots__ = ("_held", "_in_run")

    def __init__(self) -> None:
        # Invariant: `_held` is a proper prefix of `ping`.
        self._held = b""
        # Whether the bytes before `_held` belong to a run that has its `?` already.
        self._in_run = False

    def feed(self, data: bytes, end: bool = False) -> bytes:
        """Take bytes as they came and return the answers that are certain now.

        `end` says that the stream ended behind `data`: what could still have become a `ping`
        is then a run of other bytes.
        """
        if data == PING and not self._held:
            self._in_run = False
            return PONG
        if self._held:
            data = self._held + data
            self._held = b""
        # What is between two pings is one run. Before the first, the run may be an old one.
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
        """Answer bytes that belong to no ping."""
        if not run or self._in_run:
            return b""
        self._in_run = True
        return OTHER

    def _rest(self, rest: bytes, end: bool) -> bytes:
        """Answer what follows the last ping, and hold back what may begin the next one."""
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
    """Of the ping that it answers, modulo 2^32."""
    received: int
    """How many pings of this session the server has received, modulo 2^32."""
    t1: int
    """Copied from the ping."""
    t2: int
    """When the ping arrived, on the server's clock, in nanoseconds."""
    t3: int
    """When the pong was sent, on the server's clock, in nanoseconds."""


def encode_ping(seq: int, t1: int, size: int = DEFAULT_SIZE) -> bytes:
    """Make a ping of `size` bytes. `seq` is taken modulo 2^32.

    Raises `ValueError` when `size` is below `HEADER_SIZE`.
    """
    padding = size - HEADER_SIZE
    if padding < 0:
        raise ValueError(f"a {PROTOCOL} message has at least {HEADER_SIZE} bytes, not {size}")
    zeros = _ZEROS[:padding] if padding <= len(_ZEROS) else bytes(padding)
    return _PING.pack(PING, seq & _U32, t1) + zeros


def answer_ping(message: bytes, received: int, t2: int, t3: int) -> bytes | None:
    """Make the pong that answers a ping, of the same size and with the same padding.

    `received` counts this ping too, and is taken modulo 2^32. `t2` and `t3` are nanoseconds.
    Returns None when the ping is malformed: shorter than the header, or of another tag.
    """
    if len(message) < HEADER_SIZE or message[:_TAG_SIZE] != PING:
        return None
    header = _ANSWER.pack(PONG, message[4:8], received & _U32, message[12:20], t2, t3)
    return header + message[HEADER_SIZE:]


def decode_pong(message: bytes) -> Pong | None:
    """Read a pong; None when it is malformed: shorter than the header, or of another tag."""
    if len(message) < HEADER_SIZE or message[:_TAG_SIZE] != PONG:
        return None
    _, seq, received, t1, t2, t3 = _PONG.unpack_from(message)
    return Pong(seq, received, t1, t2, t3)


# Messages on streams


class MessageTooLarge(ValueError):  # noqa: N818 - the name says what the peer did
    """A peer announced a message above the limit.

    `size` is what it announced, `limit` what is allowed, both in bytes; `messages` are those
    that came complete before it in the same bytes.
    """

    def __init__(self, size: int, limit: int, messages: list[bytes]) -> None:
        super().__init__(f"a message of {size} bytes is above the limit of {limit}")
        self.size = size
        self.limit = limit
        self.messages = messages


def frame(message: bytes) -> bytes:
    """Precede a message by its length, as a QUIC variable-length integer (RFC 9000, 16)."""
    return encode_varint(len(message)) + message


class Deframer:
    """Cuts a stream's bytes into messages, each of at most `max_message_size` bytes.

    It keeps no more than one incomplete message.
    """

    __slots__ = ("_buffer", "_limit", "_needed")

    def __init__(self, max_message_size: int) -> None:
        self._limit = max_message_size
        # The beginning of a frame, from its length on.
        self._buffer = bytearray()
        # How many bytes the buffer must have before looking at it again makes sense.
        self._needed = 0

    @property
    def pending(self) -> int:
        """Bytes of an incomplete message. At the end of a stream, it was truncated then."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came and return the messages that are complete now.

        Raises `MessageTooLarge` as soon as a length above the limit is known; the stream
        can't be used from then on, and further calls raise the same.
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
            length = decode_varint(data, start)
            if length is None:
                self._needed = size - start + 1
                break
            length_value, body = length
            end = body + length_value
            if length_value > self._limit:
                # The length stays as what the next call finds first.
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
