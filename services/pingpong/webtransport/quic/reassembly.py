"""Reassembles the bytes of a stream at a bounded cost.

aioquic buffers out-of-order bytes in one buffer, gaps included, and scans a list of ranges for
each frame. So a byte far ahead costs as much memory as the gap, and each of a thousand single
bytes a thousand steps (RFC 9000, section 21.6). Here pieces are stored as they arrive: a frame
costs a binary search, a piece its own size, and both are bounded.
"""

from __future__ import annotations

from bisect import bisect_right

from aioquic.quic import events
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.stream import FinalSizeError, QuicStreamReceiver

MAX_CRYPTO_BYTES = 16 << 10
"""How far ahead of what TLS has read CRYPTO data may be, in each epoch."""
MAX_CRYPTO_PIECES = 64
"""Some clients split and shuffle their ClientHello on purpose, into up to two dozen pieces."""
MAX_STREAM_PIECES = 512
MAX_PIECES = 1_024
"""On all streams of a connection. A full window with every tenth packet lost, or packets reordered
by 64, needs a quarter of it."""


class TooManyPiecesError(Exception):
    """There are more pieces, with gaps between them, than may be buffered."""


class Buffers:
    """The buffers of several streams.

    Attributes:
        pieces: pieces that wait for missing bytes before them
        size: bytes of these pieces
        grown: bytes that were ever added, here or to other buffers of the connection
    """

    __slots__ = ("grown", "pieces", "size")

    def __init__(self) -> None:
        self.pieces = self.size = self.grown = 0


class StreamReceiver(QuicStreamReceiver):
    """aioquic's receiving part of a stream, which stores out-of-order bytes as pieces.

    `shared` counts the pieces of all streams of the connection.
    """

    def __init__(
        self,
        stream_id: int | None,
        shared: Buffers,
        *,
        readable: bool = True,
        most: int = MAX_STREAM_PIECES,
    ) -> None:
        # aioquic's __init__ is not called: it creates a buffer and a set of ranges for each
        # stream.
        self.highest_offset = 0
        self.is_finished = not readable
        self.stop_pending = False
        self._buffer_start = 0
        self._final_size = None
        self._stop_error_code = None
        self._stream_id = stream_id
        self._shared = shared
        self._most = most
        self._starts: list[int] | None = None
        self._pieces: list[bytes | bytearray] | None = None
        """Sorted by offset, without overlap; none begins at the next expected byte."""

    def handle_frame(self, frame: QuicStreamFrame) -> events.StreamDataReceived | None:
        """Called by aioquic for CRYPTO frames."""
        data = self.receive(frame.offset, frame.data, frame.fin)
        if data is None:
            return None
        return events.StreamDataReceived(
            data=data, end_stream=self.is_finished, stream_id=self._stream_id or 0
        )

    def receive(self, start: int, data: bytes, fin: bool) -> bytes | None:
        """Add the bytes of a frame. Returns the bytes that are in order now; None if there is
        nothing to report, neither bytes nor the end (`is_finished`).

        Raises `FinalSizeError` if the final size changes (RFC 9000, section 4.5), and
        `TooManyPiecesError` if there are too many pieces.
        """
        end = start + len(data)
        final_size = self._final_size
        if final_size is not None and (end > final_size or (fin and end != final_size)):
            raise FinalSizeError("data beyond the final size, or another final size")
        if fin:
            if end < self.highest_offset:
                raise FinalSizeError("data beyond the final size")
            self._final_size = end
        if end > self.highest_offset:
            self.highest_offset = end
        if self.is_finished:
            return None
        due = self._buffer_start
        if start > due:
            if data:
                self._keep(start, end, data)
            return None
        if start < due:
            data = data[due - start :]
        if self._pieces and data:
            data = self._join(self._pieces, data, end)
        self._buffer_start += len(data)
        if self._buffer_start == self._final_size:
            self.is_finished = True
        elif not data:
            return None
        return data

    def discard(self) -> None:
        """Discard all pieces."""
        if self._pieces:
            self._drop(self._pieces, 0, len(self._pieces))

    def _keep(self, start: int, end: int, data: bytes) -> None:
        if self._starts is None or self._pieces is None:
            self._starts, self._pieces = [], []
        starts, pieces = self._starts, self._pieces
        at = bisect_right(starts, start)
        touches = False
        if at:
            before_end = starts[at - 1] + len(pieces[at - 1])
            if before_end >= end:
                return
            touches = before_end >= start
            if before_end > start:
                data = data[before_end - start :]
                start = before_end
        # Remove pieces that the new bytes cover, and cut an overlap at their end.
        covered = at
        while covered < len(starts) and starts[covered] + len(pieces[covered]) <= end:
            covered += 1
        self._drop(pieces, at, covered)
        if at < len(starts) and starts[at] < end:
            data = data[: starts[at] - start]
        if touches:
            piece = pieces[at - 1]
            if isinstance(piece, bytes):
                piece = pieces[at - 1] = bytearray(piece)
            piece += data
        else:
            shared = self._shared
            if len(pieces) >= self._most or shared.pieces >= MAX_PIECES:
                raise TooManyPiecesError
            shared.pieces += 1
            starts.insert(at, start)
            pieces.insert(at, data)
        self._shared.size += len(data)
        self._shared.grown += len(data)

    def _join(self, pieces: list[bytes | bytearray], data: bytes, end: int) -> bytes:
        """Append to `data`, which ends at `end`, the pieces that follow it without a gap."""
        starts = self._starts
        assert starts is not None
        if starts[0] > end:
            return data
        parts: list[bytes | bytearray | memoryview] = [data]
        reached = 0
        while reached < len(starts) and starts[reached] <= end:
            piece = pieces[reached]
            over = end - starts[reached]
            if over < len(piece):
                parts.append(memoryview(piece)[over:] if over else piece)
                end = starts[reached] + len(piece)
            reached += 1
        joined = b"".join(parts)
        del parts
        self._drop(pieces, 0, reached)
        return joined

    def _drop(self, pieces: list[bytes | bytearray], first: int, last: int) -> None:
        if first < last and self._starts is not None:
            self._shared.pieces -= last - first
            self._shared.size -= sum(map(len, pieces[first:last]))
            del self._starts[first:last]
            del pieces[first:last]
