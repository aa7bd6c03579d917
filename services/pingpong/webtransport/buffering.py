"""Streams and datagrams that have no session: not yet, or no longer (draft-16, section 4.5).

A stream begins as an `UntypedStream` until its first bytes say its type. Streams and datagrams of
a session that is not established are buffered, up to limits: a client may send CONNECT, streams
and datagrams in one flight, packets may be reordered, and many senders write DATAGRAM frames
before STREAM frames.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Protocol, TypeAlias

from .errors import ErrorCode
from .limits import Limits
from .quic.engine import QuicConnection
from .streams import Stream


class Receiver(Protocol):
    """Receives the data of a stream: a session, a stream of one, or one of the classes here."""

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Process the next bytes, of a packet that arrived at `arrival`."""

    def receive_reset(self, code: int, final_size: int) -> None:
        """The peer reset its side."""

    def receive_stop(self, code: int) -> None:
        """The peer sent STOP_SENDING."""


Begin: TypeAlias = Callable[[int, bytes, bool, int], Receiver | None]
"""Parses the type of a stream: its id, all its bytes, whether it ended, and the arrival time."""
Refuse: TypeAlias = Callable[[int, ErrorCode, bool], None]
"""Closes a stream in both directions: its id, the code, whether the peer's side has ended."""


class UntypedStream:
    """A peer's stream whose type is not known yet."""

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
        """Buffer the next bytes, until the type can be parsed."""
        self._buffer += data
        receiver = self._begin(self._id, self._buffer, end_stream, arrival)
        if self._stop_code is not None and receiver is not None:
            receiver.receive_stop(self._stop_code)

    def receive_reset(self, code: int, final_size: int) -> None:
        """Close the stream: its session will never be known (draft-16, section 4.4)."""
        self._refuse(self._id, ErrorCode.WT_BUFFERED_STREAM_REJECTED, True)

    def receive_stop(self, code: int) -> None:
        """Reset our side, and notify the owner of the stream later."""
        self._stop_code = code
        self._quic.reset_stream(self._id, code)


class BufferedStream:
    """A stream that is buffered until its session is established."""

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
        """Whether the peer's side has ended."""
        return self._ended or self._reset is not None

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Buffer bytes, or refuse the stream if the buffer is full."""
        self._ended = end_stream
        if not self._kept.add_data(self, data):
            self._refuse(self.id, ErrorCode.WT_BUFFERED_STREAM_REJECTED, end_stream)

    def receive_reset(self, code: int, final_size: int) -> None:
        """Remember the reset."""
        self._reset = code, final_size

    def receive_stop(self, code: int) -> None:
        """Remember STOP_SENDING."""
        self._stop_code = code

    def deliver(self, stream: Stream, arrival: int) -> None:
        """Pass the buffered data to the session's stream, with the arrival time `arrival`."""
        if self.data or self._ended:
            stream.receive(bytes(self.data), self._ended, arrival)
        if self._reset is not None:
            stream.receive_reset(*self._reset)
        if self._stop_code is not None:
            stream.receive_stop(self._stop_code)


class SessionBuffers:
    """The buffered streams and datagrams of one connection."""

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
        """Buffered bytes."""
        return self._bytes

    def add_stream(self, stream: BufferedStream) -> bool:
        """Buffer a stream; false if there are too many."""
        if len(self._streams) >= self._limits.max_buffered_streams:
            return False
        self._streams[stream.id] = stream
        return True

    def add_data(self, stream: BufferedStream, data: bytes) -> bool:
        """Buffer bytes of a stream. If the buffer is full, forget the stream and return False."""
        if self._bytes + len(data) > self._limits.max_buffered_bytes:
            self.forget_stream(stream.id)
            return False
        self._bytes += len(data)
        stream.data += data
        return True

    def add_datagram(self, session_id: int, data: bytes) -> bool:
        """Buffer a datagram; false if it is dropped."""
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
        """Remove and return the streams and datagrams of a session, in order of arrival."""
        if not self._streams and not self._datagrams:
            return [], []
        streams = [s for s in self._streams.values() if s.session_id == session_id]
        for stream in streams:
            self.forget_stream(stream.id)
        return streams, self._forget_datagrams(session_id)

    def drop_datagrams(self, expected: Container[int]) -> bool:
        """Drop the datagrams of all but the `expected` sessions; whether any are left."""
        for session_id in [i for i in self._datagrams if i not in expected]:
            self._forget_datagrams(session_id)
        return bool(self._datagrams)

    def forget_stream(self, stream_id: int) -> None:
        """Drop a stream, if it is buffered."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._bytes -= len(stream.data)

    def _forget_datagrams(self, session_id: int) -> list[bytes]:
        datagrams = self._datagrams.pop(session_id, [])
        self._datagram_count -= len(datagrams)
        self._bytes -= sum(map(len, datagrams))
        return datagrams

    def clear(self) -> None:
        """Drop everything: the connection closed."""
        self._streams.clear()
        self._datagrams.clear()
        self._datagram_count = self._bytes = 0


class DiscardedStream:
    """A refused stream. It stays known until it ends, so that late data does not open it again."""

    __slots__ = ("_id", "_streams")

    def __init__(self, streams: dict[int, Receiver], stream_id: int) -> None:
        self._streams = streams
        self._id = stream_id

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Discard bytes. Forget the stream at its end."""
        if end_stream:
            self._streams.pop(self._id, None)

    def receive_reset(self, code: int, final_size: int) -> None:
        """Forget the stream."""
        self._streams.pop(self._id, None)

    def receive_stop(self, code: int) -> None:
        """Ignored: our side has ended already."""
