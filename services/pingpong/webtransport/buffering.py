"""What a peer sends that belongs to no session: not yet, or not any more.

A stream begins as a `UntypedStream`, until its first bytes say what it is. What names a session
that is not there yet is kept within limits (draft-16, section 4.5): a client may send
CONNECT, streams and datagrams in one flight, and packets overtake each other; even in
order, datagrams are commonly packed before stream frames.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Protocol, TypeAlias

from .errors import ErrorCode
from .limits import Limits
from .quic.engine import QuicConnection
from .streams import Stream


class Receiver(Protocol):
    """What takes the bytes of a stream: a session, its streams, HTTP/3's, and those here."""

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Take the next bytes, of a packet that came at `arrival`."""

    def receive_reset(self, code: int, final_size: int) -> None:
        """The peer's half ended early."""

    def receive_stop(self, code: int) -> None:
        """The peer reads our half no more."""


Begin: TypeAlias = Callable[[int, bytes, bool, int], Receiver | None]
"""Looks at all bytes so far of a stream: its id, the bytes, whether they end it, and when the last
of them came."""
Refuse: TypeAlias = Callable[[int, ErrorCode, bool], None]
"""Ends both halves of a stream: its id, with what code, whether the peer's half is over."""


class UntypedStream:
    """A peer's stream of which too little has come to know what it is."""

    __slots__ = ("_begin", "_buffer", "_id", "_quic", "_refuse", "_stop_code")

    def __init__(
        self, quic: QuicConnection, begin: Begin, refuse: Refuse, stream_id: int, data: bytes = b""
    ) -> None:
        self._quic = quic
        self._begin = begin
        self._refuse = refuse
        self._id = stream_id
        self._buffer = data
        self._stop_code: int | None = None

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Take the next bytes; the connection decides when they suffice."""
        self._buffer += data
        receiver = self._begin(self._id, self._buffer, end_stream, arrival)
        if self._stop_code is not None and receiver is not None:
            receiver.receive_stop(self._stop_code)

    def receive_reset(self, code: int, final_size: int) -> None:
        """It will never be known whose it was (draft-16, section 4.4: lacking RESET_STREAM_AT)."""
        self._refuse(self._id, ErrorCode.WT_BUFFERED_STREAM_REJECTED, True)

    def receive_stop(self, code: int) -> None:
        """End our half; the stream's owner is to know as well."""
        self._stop_code = code
        self._quic.reset_stream(self._id, code)


class BufferedStream:
    """A stream whose header is read and whose session is not there yet."""

    __slots__ = (
        "_ended",
        "_kept",
        "_refuse",
        "_reset",
        "_stop_code",
        "data",
        "header_size",
        "id",
        "session_id",
    )

    def __init__(
        self,
        kept: SessionBuffers,
        refuse: Refuse,
        stream_id: int,
        session_id: int,
        header_size: int,
    ) -> None:
        self.id = stream_id
        self.session_id = session_id
        self.header_size = header_size
        self.data = bytearray()
        self._kept = kept
        self._refuse = refuse
        self._ended = False
        self._reset: tuple[int, int] | None = None
        self._stop_code: int | None = None

    @property
    def is_receive_closed(self) -> bool:
        """Whether the peer's half has ended."""
        return self._ended or self._reset is not None

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Keep bytes, or refuse the stream where they are too many."""
        self._ended = end_stream
        if not self._kept.add_data(self, data):
            self._refuse(self.id, ErrorCode.WT_BUFFERED_STREAM_REJECTED, end_stream)

    def receive_reset(self, code: int, final_size: int) -> None:
        """Keep that the peer has reset it."""
        self._reset = code, final_size

    def receive_stop(self, code: int) -> None:
        """Keep that the peer will not read an answer."""
        self._stop_code = code

    def deliver(self, stream: Stream, arrival: int) -> None:
        """Hand on what was kept, as if it came at `arrival`."""
        if self.data or self._ended:
            stream.receive(bytes(self.data), self._ended, arrival)
        if self._reset is not None:
            stream.receive_reset(*self._reset)
        if self._stop_code is not None:
            stream.receive_stop(self._stop_code)


class SessionBuffers:
    """The streams and datagrams of one connection that wait for their sessions."""

    __slots__ = ("_bytes", "_datagram_count", "_datagrams", "_limits", "_streams")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, BufferedStream] = {}
        self._datagrams: dict[int, list[bytes]] = {}
        self._datagram_count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._streams) + self._datagram_count

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def add_stream(self, stream: BufferedStream) -> bool:
        """Keep a stream; false where there are too many of them."""
        if len(self._streams) >= self._limits.max_buffered_streams:
            return False
        self._streams[stream.id] = stream
        return True

    def add_data(self, stream: BufferedStream, data: bytes) -> bool:
        """Keep bytes of a kept stream; false, and nothing kept, where it is too much."""
        if self._bytes + len(data) > self._limits.max_buffered_bytes:
            self.forget_stream(stream.id)
            return False
        self._bytes += len(data)
        stream.data += data
        return True

    def add_datagram(self, session_id: int, data: bytes) -> bool:
        """Keep a datagram; false where it is dropped."""
        if (
            self._datagram_count >= self._limits.max_buffered_datagrams
            or self._bytes + len(data) > self._limits.max_buffered_bytes
        ):
            return False
        self._datagrams.setdefault(session_id, []).append(data)
        self._datagram_count += 1
        self._bytes += len(data)
        return True

    def take(self, session_id: int) -> tuple[list[BufferedStream], list[bytes]]:
        """All that waits for a session, in the order of its arrival; it is forgotten here."""
        if not self._streams and not self._datagrams:
            return [], []
        streams = [s for s in self._streams.values() if s.session_id == session_id]
        for stream in streams:
            self.forget_stream(stream.id)
        return streams, self._forget_datagrams(session_id)

    def drop_datagrams(self, expected: Container[int]) -> bool:
        """Drop the datagrams of all but `expected` sessions; whether any are left."""
        for session_id in [i for i in self._datagrams if i not in expected]:
            self._forget_datagrams(session_id)
        return bool(self._datagrams)

    def forget_stream(self, stream_id: int) -> None:
        """Keep nothing of a stream, if it is one of these."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._bytes -= len(stream.data)

    def _forget_datagrams(self, session_id: int) -> list[bytes]:
        datagrams = self._datagrams.pop(session_id, [])
        self._datagram_count -= len(datagrams)
        self._bytes -= sum(map(len, datagrams))
        return datagrams

    def clear(self) -> None:
        """Nothing will ever come for what waits: the connection is gone."""
        self._streams.clear()
        self._datagrams.clear()
        self._datagram_count = self._bytes = 0


class DiscardedStream:
    """A peer's half that was refused; kept until it ends, so as not to begin again."""

    __slots__ = ("_id", "_streams")

    def __init__(self, streams: dict[int, Receiver], stream_id: int) -> None:
        self._streams = streams
        self._id = stream_id

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Drop bytes; forget the stream at its end."""
        if end_stream:
            self._streams.pop(self._id, None)

    def receive_reset(self, code: int, final_size: int) -> None:
        """Forget the stream."""
        self._streams.pop(self._id, None)

    def receive_stop(self, code: int) -> None:
        """Ignored: our half is over already."""
