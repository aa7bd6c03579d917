"""Putting the bytes of a stream in order, at a cost that the peer does not choose.

aioquic keeps what arrives early in one buffer with its gaps filled, and scans a list of ranges
for each frame: a byte far ahead costs as much memory as the gap is wide, and a thousand single
bytes a thousand steps each (RFC 9000, section 21.6). Here the pieces are kept as they came: a
frame costs a search by halving, a piece what it is long, and both are bounded.
"""

from __future__ import annotations

from bisect import bisect_right

from aioquic.quic import events
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.stream import FinalSizeError, QuicStreamReceiver

MAX_CRYPTO_BYTES = 16 << 10
"""How far ahead of what TLS has read the bytes of a handshake may be, in each epoch."""
MAX_CRYPTO_PIECES = 64
"""Clients shuffle their first message on purpose, in a dozen pieces or two."""
MAX_STREAM_PIECES = 512
MAX_PIECES = 1_024
"""On all streams of a connection. Packets of a full window that lost every tenth, or are 64
apart, leave a quarter as many."""


class TooManyPiecesError(Exception):
    """More pieces wait for what is missing between them than are kept."""


class Buffers:
    """What several streams keep.

    Attributes:
        pieces: pieces that wait for bytes before them
        size: their bytes
        grown: bytes that were ever added, here or to other buffers of the connection
    """

    __slots__ = ("grown", "pieces", "size")

    def __init__(self) -> None:
        self.pieces = self.size = self.grown = 0


class StreamReceiver(QuicStreamReceiver):
    """aioquic's receiving half of a stream, which keeps early bytes as pieces.

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
        # Not aioquic's, which makes a buffer and a set of ranges for each stream.
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
        """Sorted by where they start, without overlap; none begins where the next byte is due."""

    def handle_frame(self, frame: QuicStreamFrame) -> events.StreamDataReceived | None:
        """What aioquic calls for CRYPTO frames."""
        return self.receive(frame.offset, frame.data, frame.fin)

    def receive(self, start: int, data: bytes, fin: bool) -> events.StreamDataReceived | None:
        """Take the bytes of a frame, and return what is in order now.

        Raises `FinalSizeError` where the stream's end is another than before (RFC 9000, section
        4.5), `TooManyPiecesError` where too much is in pieces.
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
        return events.StreamDataReceived(
            data=data, end_stream=self.is_finished, stream_id=self._stream_id or 0
        )

    def discard(self) -> None:
        """Forget the pieces: nothing will be put in order any more."""
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
        # What the new bytes cover goes, which happens once to each piece; an overlap at their end
        # is cut off.
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
        """The bytes that are due, up to `end`, with the pieces that they reach."""
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
