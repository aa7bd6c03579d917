"""`/echo`: sends back what it receives."""

from __future__ import annotations

from ...webtransport import DatagramTooLargeError, Session, Stream, StreamHandler
from .admission import RateLimit
from .counters import ECHO, QUEUE_FULL, RATE, TOO_LARGE, MessageCounters, SessionCounters
from .messages import CountedSession, PausingStream, WholeMessage


class EchoStream(PausingStream):
    """Echoes a stream, with its end or reset."""

    __slots__ = ()

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Echo the bytes, unless too much is unread."""
        if not stream.send_open:
            return
        if self._held is not None:
            self._hold(stream, self._held, data, end_stream)
        else:
            stream.send(data, end_stream)
            self._answered(stream, len(data))

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        """Echo a reset too."""
        self._resume(stream)
        stream.reset(code or 0)


class EchoSession(CountedSession):
    """Echoes datagrams and streams; a unidirectional stream as a whole, on a new one."""

    __slots__ = ()

    def __init__(
        self,
        session: Session,
        counters: MessageCounters,
        max_message_size: int,
        *,
        limit: RateLimit | None = None,
        sessions: SessionCounters | None = None,
    ) -> None:
        super().__init__(session, counters, max_message_size, ECHO, limit, sessions)

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        """Echo a datagram."""
        if not self._may_answer(arrival):
            return
        try:
            if not session.send_datagram(data):
                self.counters.dropped[ECHO, QUEUE_FULL] += 1
        except DatagramTooLargeError:
            self._too_large()

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """Echo the stream, or the one message of a unidirectional one."""
        if stream.is_unidirectional:
            return WholeMessage(self.max_message_size, self._echo, self._too_large)
        return EchoStream(self.counters.clock)

    def _may_answer(self, arrival: int) -> bool:
        if self._limit is None or self._limit.allow(arrival):
            return True
        self.counters.dropped[ECHO, RATE] += 1
        return False

    def _echo(self, data: bytes, arrival: int) -> None:
        if self._may_answer(arrival):
            self.uni_answers.send(data, 1, len(data))

    def _too_large(self) -> None:
        self.counters.dropped[ECHO, TOO_LARGE] += 1
