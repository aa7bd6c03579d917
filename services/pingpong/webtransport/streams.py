"""WebTransport streams: their headers, and both directions of them (draft-16, section 4).

Writing is a plain call; received data goes to the stream's handler. Each direction ends once, by
FIN or by reset. When both have ended, the stream is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import varint
from .errors import ErrorCode, StateError, from_http3_code, to_http3_code
from .flow import FlowControl
from .http3.frames import FrameType, StreamType
from .quic.engine import QuicConnection

_BIDIRECTIONAL = varint.encode(FrameType.WT_STREAM)
_UNIDIRECTIONAL = varint.encode(StreamType.WEBTRANSPORT)


def encode_stream_header(session_id: int, unidirectional: bool) -> bytes:
    """The header of a stream: its signal value or type, then the session id."""
    return (_UNIDIRECTIONAL if unidirectional else _BIDIRECTIONAL) + varint.encode(session_id)


class StreamHandler:
    """Callbacks of a stream; no-ops by default."""

    __slots__ = ()

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """The next bytes arrived, in order. They are empty only with `end_stream`.

        `arrival` is the kernel's receive time of the packet, in nanoseconds of the monotonic
        clock.
        """

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        """The peer reset its side. `code` is None if it is not an application's code."""

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        """The peer sent STOP_SENDING, and our side was reset."""

    def stream_writable(self, stream: Stream) -> None:
        """`Stream.buffered` fell to the value that was passed to `notify_writable`."""


_NO_HANDLER = StreamHandler()


class Stream:
    """One stream of a session. Only `Session` creates it.

    `id` is the QUIC stream id. `context` is for the handler's use.
    """

    __slots__ = (
        "_end_pending",
        "_flow",
        "_header_size",
        "_held",
        "_notify_pending",
        "_offset",
        "_on_closed",
        "_pending",
        "_quic",
        "_reading",
        "_unheld",
        "context",
        "handler",
        "handler_buffered",
        "id",
        "is_local",
        "is_unidirectional",
        "receive_open",
        "send_open",
    )

    def __init__(
        self,
        quic: QuicConnection,
        stream_id: int,
        handler: StreamHandler,
        *,
        flow: FlowControl | None,
        on_closed: Callable[[Stream], None],
        is_local: bool,
        header_size: int,
    ) -> None:
        self.id = stream_id
        self.handler = handler
        self.context: Any = None
        self.is_unidirectional = stream_id & 2 != 0
        self.is_local = is_local
        self.send_open = is_local or not self.is_unidirectional
        """Whether bytes can still be sent."""
        self.receive_open = not is_local or not self.is_unidirectional
        """Whether bytes can still be received."""
        self._quic = quic
        self._flow = flow
        self._on_closed = on_closed
        """Called when both directions have ended and the data was read."""
        self._header_size = header_size if is_local else 0
        """Bytes of our header, which a reset must still deliver."""
        self._offset = 0 if is_local else header_size
        """Bytes received so far, with the header: what a final size counts."""
        self.handler_buffered = 0
        """Bytes that the handler buffers, other than by `hold`. The handler sets it."""
        self._pending: bytearray | None = None
        """Bytes that wait for session flow control credit."""
        self._end_pending = False
        self._notify_pending = False
        """Whether `stream_writable` is still to be called."""
        self._reading = True
        self._held = 0
        self._unheld = 0

    # For users.

    def send(self, data: bytes, end_stream: bool = False) -> None:
        """Send bytes, and with `end_stream` end our side.

        All bytes are queued. For backpressure check `buffered` or use `notify_writable`. Raises
        `StateError` if our side has ended.
        """
        if not self.send_open:
            raise StateError("the sending side of the stream has ended")
        if self._flow is None:
            self._quic.send_stream(self.id, data, end_stream)
        else:
            self._send_with_credit(self._flow, data, end_stream)
        if end_stream:
            self._end_send()

    def reset(self, code: int = 0) -> None:
        """Reset our side with an application code. Does nothing if it has ended."""
        if self.send_open or self._pending is not None:
            self._reset(to_http3_code(code))

    def stop(self, code: int = 0) -> None:
        """Ask the peer to stop sending (STOP_SENDING), and discard further data."""
        if self._reading:
            self._stop(to_http3_code(code))

    @property
    def buffered(self) -> int:
        """Bytes that were sent or queued and that the peer has not acknowledged."""
        waiting = len(self._pending) if self._pending is not None else 0
        return waiting + self._quic.buffered(self.id)

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are buffered above QUIC, in either direction."""
        return self.handler_buffered + (len(self._pending) if self._pending else 0)

    def notify_writable(self, below: int) -> bool:
        """Call `StreamHandler.stream_writable` once, when `buffered` is at most `below` bytes.

        Returns False, and does nothing, if that is so already, and if both directions have ended:
        then the stream is forgotten. The call comes also if our side has ended meanwhile, but not
        if the session has closed.
        """
        if self._is_closed or self.buffered <= below:
            return False
        self._notify_pending = True
        self._quic.notify_writable(self.id, below)
        return True

    def hold(self, size: int) -> None:
        """Within `stream_data_received`: keep `size` of the bytes unread.

        The peer gets no flow control credit for them until `release`. So a slow reader makes the
        peer wait instead of buffering here.
        """
        if size:
            self._held += size
            self._unheld -= size
            self._quic.hold(self.id, size)

    def release(self, size: int) -> None:
        """`size` of the held bytes were read: grant the peer credit for them."""
        size = min(size, self._held)
        self._held -= size
        self._quic.release(self.id, size)
        if self._flow is not None:
            self._flow.data_consumed(size)
        self._forget_if_closed()

    # For the connection.

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Process the next bytes of the peer."""
        size = len(data)
        self._offset += size
        flow = self._flow
        sending = self.send_open
        if end_stream:
            self.receive_open = False
        if flow is None:
            if self._reading:
                self.handler.stream_data_received(self, data, end_stream, arrival)
        else:
            flow.data_in.receive(size)
            self._unheld = size
            if self._reading:
                self.handler.stream_data_received(self, data, end_stream, arrival)
            flow.data_consumed(self._unheld)
        if end_stream and not sending:
            # Otherwise it is forgotten as soon as our side ends, maybe in the handler.
            self._forget_if_closed()

    def receive_reset(self, code: int, final_size: int) -> None:
        """The peer reset its side. Its final size counts against flow control."""
        if not self.receive_open:
            return
        self.receive_open = False
        if self._flow is not None:
            unseen = final_size - self._offset
            self._flow.data_in.receive(unseen)
            self._flow.data_consumed(unseen)
        if self._reading:
            self.handler.stream_reset_received(self, from_http3_code(code))
        self._forget_if_closed()

    def receive_stop(self, code: int) -> None:
        """The peer sent STOP_SENDING: reset our side with its code (RFC 9000, section 3.5)."""
        if self.is_unidirectional and not self.is_local:
            return
        unfinished = self.send_open or self._pending is not None
        self._drop_pending()
        self.send_open = False
        self._reset_half(code)
        if unfinished:
            self.handler.stop_sending_received(self, from_http3_code(code))
        self._forget_if_closed()

    def writable(self) -> None:
        """The engine reports that the stream is writable."""
        self._notify_pending = False
        self.handler.stream_writable(self)
        self._forget_if_closed()

    def connection_lost(self) -> None:
        """The connection closed, and the session before it."""
        self.receive_open = False
        self._forget_if_closed()

    # For the session and its flow control.

    def abandon(self, code: ErrorCode) -> None:
        """Reset and stop the stream with a wire code, and do not call the handler again.

        A side whose FIN is queued but not sent is reset too (section 6).
        """
        self.handler = _NO_HANDLER
        self._notify_pending = False
        self._stop(code)
        if self.is_local or not self.is_unidirectional:
            self._reset(code)
        self._forget_if_closed()

    def flush(self) -> None:
        """Send bytes that waited for session flow control, as far as its credit allows."""
        flow = self._flow
        pending = self._pending
        if pending is None or flow is None:
            return
        granted = flow.data_out.take(len(pending))
        done = granted == len(pending)
        self._quic.send_stream(self.id, bytes(pending[:granted]), self._end_pending and done)
        if done:
            self._pending = None
            if self._end_pending:
                self._end_pending = False
                self._end_send()
        else:
            del pending[:granted]
            flow.data_blocked(self.flush)

    # Private.

    def _send_with_credit(self, flow: FlowControl, data: bytes, end_stream: bool) -> None:
        if self._pending is None:
            granted = flow.data_out.take(len(data))
            if granted == len(data):
                self._quic.send_stream(self.id, data, end_stream)
                return
            self._quic.send_stream(self.id, data[:granted])
            self._pending = bytearray(data[granted:])
        else:
            self._pending += data
        self._end_pending = end_stream
        flow.data_blocked(self.flush)

    def _end_send(self) -> None:
        self.send_open = False
        self._forget_if_closed()

    def _reset(self, code: int) -> None:
        self._drop_pending()
        self._reset_half(code)
        self._end_send()

    def _reset_half(self, code: int) -> None:
        unsent = self._quic.reset_stream(self.id, code, self._header_size)
        if unsent and self._flow is not None:
            # The final size is what was sent. The rest gives its credit back.
            self._flow.data_unsent(unsent)

    @property
    def _is_closed(self) -> bool:
        if self.send_open or self.receive_open:
            return False
        return not self._held and not self._notify_pending and self._pending is None

    def _forget_if_closed(self) -> None:
        # First what is so for every ping on a stream that goes on.
        if not self.send_open and self._is_closed:
            self._on_closed(self)

    def _drop_pending(self) -> None:
        if self._pending is not None and self._flow is not None:
            self._flow.stop_waiting(self.flush)
        self._pending = None
        self._end_pending = False

    def _stop(self, code: int) -> None:
        self._reading = False
        if self._held:
            self.release(self._held)
        if self.receive_open:
            self._quic.stop_sending(self.id, code)
