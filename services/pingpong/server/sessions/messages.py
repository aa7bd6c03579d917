"""Base classes of session handlers: backpressure and limits for slow peers.

A peer may send many messages and read no answers. So buffers are bounded: on a bidirectional
stream input is paused, without flow control credit, until the peer has read (`PausingStream`); answers on
unidirectional streams wait for credit, and are dropped above a limit (`UnidirectionalAnswers`).
"""

from __future__ import annotations

from collections.abc import Callable

from ...webtransport import Session, SessionClosed, SessionHandler, Stream, StreamHandler
from .admission import RateLimit
from .counters import CLOSED, ECHO, QUEUE_FULL, UNREAD, MessageCounters, SessionCounters

MESSAGE_TOO_LARGE = 1
"""The error code for a stream with a message above the limit."""

UNREAD_HIGH_WATER = 256 << 10
"""Unacknowledged bytes of answers on a stream above which its input pauses."""
UNREAD_LOW_WATER = 64 << 10
"""Unacknowledged bytes at which its input resumes."""

WAITING_ANSWERS = 128
"""Answers of a session that may wait for unidirectional stream credit."""
UNREAD_ANSWERS = 1024
"""Answers of a session on unidirectional streams that may be unacknowledged."""
UNREAD_ANSWER_BYTES = 1 << 20
"""Bytes of both above which further answers are dropped."""


class PausingStream(StreamHandler):
    """Base class of handlers of bidirectional streams, whose input pauses while the peer reads no
    answers.

    The peer gets no flow control credit for held bytes, so it soon cannot send more. `clock` is
    the clock of arrival times, in nanoseconds.
    """

    __slots__ = ("_clock", "_has_ended", "_held", "_unread")

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._held: bytearray | None = None
        """Input that is held back; None while it is not paused."""
        self._has_ended = False
        """Whether the peer's side ended while the input was paused."""
        self._unread = 0
        """No fewer bytes of answers than are unread."""

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        """The peer reads no more answers: ask it to stop sending."""
        stream.stop(code or 0)
        self._resume(stream)

    def stream_writable(self, stream: Stream) -> None:
        """The peer has read answers: process the held input, as if it arrived now."""
        data, ended = self._resume(stream)
        if data or ended:
            self.stream_data_received(stream, data, ended, self._clock())

    def _hold(self, stream: Stream, held: bytearray, data: bytes, end_stream: bool) -> None:
        """Hold input back, while it is paused."""
        stream.hold(len(data))
        held += data
        self._has_ended = end_stream

    def _answered(self, stream: Stream, size: int) -> None:
        """`size` bytes of answers were sent: pause the input if too many are unread."""
        self._unread += size
        if self._unread > UNREAD_HIGH_WATER and stream.send_open:
            self._unread = stream.buffered
            if self._unread > UNREAD_HIGH_WATER:
                self._held = bytearray()
                stream.notify_writable(UNREAD_LOW_WATER)

    def _resume(self, stream: Stream) -> tuple[bytes, bool]:
        """End the pause. Returns the held bytes, and whether the peer's side ended."""
        data, self._held = bytes(self._held or b""), None
        ended, self._has_ended = self._has_ended, False
        stream.release(len(data))
        return data, ended


class UnidirectionalAnswers:
    """Sends answers on unidirectional streams, as the peer's credit allows."""

    __slots__ = ("_counters", "_mode", "_pending_bytes", "_session", "_unread", "_waiting")

    def __init__(self, session: Session, counters: MessageCounters, mode: str) -> None:
        self._session = session
        self._counters = counters
        self._mode = mode
        # Lists, which are mostly empty and always short: an empty deque takes 760 bytes.
        self._waiting: list[tuple[bytes, int, int]] = []
        self._unread: list[tuple[Stream, int]] = []
        self._pending_bytes = 0

    def send(self, data: bytes, count: int, size: int) -> None:
        """Send `count` answers of `size` bytes on one stream, now or when the peer allows it.

        `data` are the encoded answers. They are dropped above the limits.
        """
        self._forget_read()
        if self._pending_bytes >= UNREAD_ANSWER_BYTES or len(self._unread) >= UNREAD_ANSWERS:
            self._drop(count, UNREAD)
        elif not self._waiting and self._session.can_open_stream(True):
            self._open(data, count, size)
        elif len(self._waiting) < WAITING_ANSWERS:
            self._waiting.append((data, count, size))
            self._pending_bytes += len(data)
            self._session.handler_buffered += len(data)
        else:
            self._drop(count, QUEUE_FULL)

    def credit_received(self) -> None:
        """Send waiting answers, as far as the stream credit allows."""
        self._forget_read()
        while self._waiting and self._session.can_open_stream(True):
            data, count, size = self._waiting.pop(0)
            self._pending_bytes -= len(data)
            self._session.handler_buffered -= len(data)
            self._open(data, count, size)

    def session_closed(self) -> None:
        """Count waiting answers as dropped."""
        for _, count, _ in self._waiting:
            self._drop(count, CLOSED)
        self._session.handler_buffered = 0
        self._waiting.clear()
        self._unread.clear()

    def _open(self, data: bytes, count: int, size: int) -> None:
        stream = self._session.open_stream(StreamHandler(), unidirectional=True)
        stream.send(data, True)
        self._unread.append((stream, len(data)))
        self._pending_bytes += len(data)
        if self._mode != ECHO:
            self._counters.count_answers(self._mode, count, size)

    def _forget_read(self) -> None:
        # In order, which is cheap: an unread stream makes later ones count as unread too, up to
        # the limit.
        unread = self._unread
        while unread and not unread[0][0].buffered:
            self._pending_bytes -= unread.pop(0)[1]

    def _drop(self, count: int, reason: str) -> None:
        self._counters.dropped[self._mode, reason] += count


class WholeMessage(StreamHandler):
    """A unidirectional stream with one message, which is answered at its end."""

    __slots__ = ("_answer", "_data", "_too_large", "max_size")

    def __init__(
        self, max_size: int, answer: Callable[[bytes, int], None], too_large: Callable[[], None]
    ) -> None:
        self.max_size = max_size
        self._answer = answer
        self._too_large = too_large
        self._data = bytearray()

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Buffer the message until its end, or until it is too large."""
        self._data += data
        stream.handler_buffered = len(self._data)
        if stream.handler_buffered > self.max_size:
            self._data.clear()
            stream.handler_buffered = 0
            self._too_large()
            stream.stop(MESSAGE_TOO_LARGE)
        elif end_stream:
            self._answer(bytes(self._data), arrival)


class CountedSession(SessionHandler):
    """Base class of session handlers: counters, rate limit, and the duration of the session."""

    __slots__ = ("_limit", "_opened_at", "_sessions", "counters", "max_message_size", "uni_answers")

    def __init__(
        self,
        session: Session,
        counters: MessageCounters,
        max_message_size: int,
        mode: str,
        limit: RateLimit | None,
        sessions: SessionCounters | None,
    ) -> None:
        self.counters = counters
        self.max_message_size = max_message_size
        self.uni_answers = UnidirectionalAnswers(session, counters, mode)
        """Counted as `mode`."""
        self._limit = limit
        self._sessions = sessions
        self._opened_at = counters.clock()

    def credit_received(self, session: Session) -> None:
        """Send waiting answers."""
        self.uni_answers.credit_received()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """Drop waiting answers, and observe the session's duration."""
        self.uni_answers.session_closed()
        if self._sessions is not None:
            self._sessions.closed((self.counters.clock() - self._opened_at) * 1e-9)
