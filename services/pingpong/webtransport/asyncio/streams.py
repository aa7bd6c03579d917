"""Awaitable streams with backpressure: writing waits for a slow peer, and unread data slows it down.

The names are those of the W3C WebTransport API, in snake case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ..errors import SessionClosedError, StateError, StreamResetError, WebTransportError
from ..streams import Stream, StreamHandler
from .opening import Closable, Closing

WRITE_HIGH_WATER = 256 << 10
"""Unacknowledged bytes above which writing waits."""
WRITE_LOW_WATER = 64 << 10
"""Unacknowledged bytes below which it continues."""


def check_bytes(data: object) -> None:
    """Raises `TypeError` if it is not bytes."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data must be bytes, not {type(data).__name__}")


class ReceiveStream:
    """The receiving half of a stream; `async for` reads it to the end, piece by piece.

    Unread bytes count against the peer's flow control credit, so the peer waits for a slow reader.
    """

    __slots__ = ("_buffer", "_ended", "_error", "_released", "_stream", "_waiter")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._released = 0
        """Bytes at the start of the buffer that were read, and put back."""
        self._ended = False
        self._error: WebTransportError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def at_end(self) -> bool:
        """Whether the peer has ended the stream and all of it was read."""
        return self._ended and not self._buffer

    async def read(self, size: int = -1) -> bytes:
        """Wait for data, and return what is there, at most `size` bytes.

        Returns b"" at the end. Raises `StreamResetError` if the peer reset the stream, and
        `SessionClosedError` if the session has ended, both after the data before it is read;
        `StateError` if another `read` waits or `cancel` was called. Cancelling a `read` loses no
        data.
        """
        if size == 0:
            return b""
        if not self._buffer and not self._ended:
            await self._wait()
        if not self._buffer:
            if self._error is not None:
                raise self._error.again()
            return b""
        if size < 0 or size >= len(self._buffer):
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
        released = min(self._released, len(data))
        self._released -= released
        self._stream.release(len(data) - released)
        return data

    async def read_all(self, limit: int = 1 << 20) -> bytes:
        """Read to the end. Raises as `read`, and `ValueError` above `limit` bytes.

        After an error, the data can be read again.
        """
        data = bytearray()
        try:
            while chunk := await self.read():
                data += chunk
                if len(data) > limit:
                    raise ValueError(f"more than {limit} bytes")
        except BaseException:
            self._put_back(data)
            raise
        return bytes(data)

    async def read_exactly(self, size: int) -> bytes:
        """Read `size` bytes. Raises as `read`, and `EOFError` if the stream ends before that.

        After an error, the data can be read again.
        """
        data = bytearray()
        try:
            while len(data) < size:
                chunk = await self.read(size - len(data))
                if not chunk:
                    raise EOFError(f"the stream ended after {len(data)} of {size} bytes")
                data += chunk
        except BaseException:
            self._put_back(data)
            raise
        return bytes(data)

    def __aiter__(self) -> ReceiveStream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def cancel(self, code: int = 0) -> None:
        """Stop reading, and ask the peer to stop sending (STOP_SENDING).

        Raises `ValueError` for a code of more than 32 bits.
        """
        self._stream.stop(code)
        if self._buffer or not self._ended:
            self._buffer.clear()
            self._released = 0
            self._ended = True
            self._error = StateError("reading was cancelled")
        self._wake()

    # Called by the stream's handler.

    def feed(self, data: bytes, end_stream: bool) -> None:
        """Add bytes that arrived."""
        if data:
            self._stream.hold(len(data))
            self._buffer += data
        if end_stream:
            self._ended = True
        self._wake()

    def end(self, error: WebTransportError) -> None:
        """End with an error, after the buffered data."""
        if not self._ended:
            self._ended = True
            self._error = error
        self._wake()

    def _put_back(self, data: bytearray) -> None:
        if isinstance(self._error, StateError):
            return  # Reading was cancelled.
        # The peer already got credit for these bytes.
        self._buffer[:0] = data
        self._released += len(data)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise StateError("another read waits already")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SendStream(Closable):
    """The sending half of a stream; `async with` closes it at the end, and aborts it after an error."""

    __slots__ = ("_closed", "_error", "_stream", "_waiters")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._closed = False
        """Whether `close` or `abort` was called."""
        self._error: WebTransportError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait while more than `WRITE_HIGH_WATER` are unacknowledged.

        The bytes are sent even if the wait is cancelled. Raises `StreamResetError` if the peer asked
        to stop, `SessionClosedError` if the session has ended, and `StateError` after `close` or
        `abort`.
        """
        check_bytes(data)
        if (error := self._refusal()) is not None:
            raise error
        self._stream.send(data)
        await self._wait_below_high_water()

    def close(self, data: bytes = b"") -> Awaitable[None]:
        """Send the last bytes, if any, and end the stream. Another call does nothing.

        Await the result to wait as in `write`; only then are errors raised. It does not wait until
        the bytes have arrived.
        """
        check_bytes(data)
        error = None
        if not self._closed or data:
            error = self._refusal()
            if error is None:
                self._end(data)
        return Closing(lambda: self._wait_closed(error))

    async def _wait_closed(self, error: WebTransportError | None) -> None:
        if error is not None:
            raise error
        await self._wait_below_high_water()

    def _end(self, data: bytes) -> None:
        self._closed = True
        stream = self._stream
        if stream.buffered + len(data) > WRITE_HIGH_WATER:
            # After both halves have ended, the stream can no longer notify.
            stream.send(data)
            stream.notify_writable(WRITE_LOW_WATER)
            data = b""
        stream.send(data, end_stream=True)

    async def _close_after_error(self) -> None:
        self.abort()

    def abort(self, code: int = 0) -> None:
        """Reset the stream (RESET_STREAM): data that was sent before may not arrive.

        Raises `ValueError` for a code of more than 32 bits.
        """
        self._stream.reset(code)
        self._closed = True
        self.end(StateError("the stream was reset by this side"))

    # Called by the stream's handler.

    def wake(self) -> None:
        """Wake the writers that wait: most of the data was acknowledged."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def end(self, error: WebTransportError) -> None:
        """Make `write` and `close` raise `error` from now on."""
        self._error = self._error or error
        self.wake()

    def _refusal(self) -> WebTransportError | None:
        if self._error is not None:
            return self._error.again()
        return StateError("the stream has ended") if self._closed else None

    async def _wait_below_high_water(self) -> None:
        stream = self._stream
        if stream.buffered <= WRITE_HIGH_WATER:
            return
        # Several times if the session has no credit: such data is not in QUIC yet, which notifies.
        while stream.buffered > WRITE_LOW_WATER and self._error is None:
            if not stream.notify_writable(WRITE_LOW_WATER):
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        if self._error is not None:
            raise self._error.again()


class BidirectionalStream(Closable):
    """A bidirectional stream: its halves `readable` and `writable`.

    `async with` closes it at the end, and aborts `writable` after an error.
    """

    __slots__ = ("_stream", "readable", "writable")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.readable = ReceiveStream(stream)
        self.writable = SendStream(stream)

    @property
    def stream_id(self) -> int:
        """The QUIC stream ID."""
        return self._stream.id

    def close(self, data: bytes = b"") -> Awaitable[None]:
        """Close `writable`, and cancel `readable` unless it was read to its end."""
        closing = self.writable.close(data)
        if not self.readable.at_end:
            self.readable.cancel()
        return closing

    async def _close_after_error(self) -> None:
        self.writable.abort()
        self.readable.cancel()


class StreamAdapter(StreamHandler):
    """Passes the callbacks of a stream to its awaitable halves."""

    __slots__ = ("receiving", "sending")

    def __init__(self, receiving: ReceiveStream | None, sending: SendStream | None) -> None:
        self.receiving = receiving
        self.sending = sending

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Pass bytes to the reader."""
        if self.receiving is not None:
            self.receiving.feed(data, end_stream)

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        """The peer reset the stream."""
        if self.receiving is not None:
            self.receiving.end(StreamResetError(f"the peer reset the stream: {code}", code))

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        """The peer stopped reading."""
        if self.sending is not None:
            self.sending.end(StreamResetError(f"the peer stopped reading: {code}", code))

    def stream_writable(self, stream: Stream) -> None:
        """Wake the writers: most of the data was acknowledged."""
        if self.sending is not None:
            self.sending.wake()

    def session_closed(self, error: SessionClosedError) -> None:
        """The session ended, and with it the stream."""
        if self.receiving is not None:
            self.receiving.end(error)
        if self.sending is not None:
            self.sending.end(error)
