"""What is done on each path: pings are answered on `/ping` and `/`, `/echo` echoes.

Handlers are called in the turn in which a packet arrived, and answer in it: between a
ping and its pong there is no task, no queue and no future.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..ping import (
    PROTOCOL,
    Deframer,
    MessageTooLarge,
    PlainScanner,
    answer_message,
    answer_ping,
    frame,
)
from ..webtransport.errors import DatagramTooLargeError
from ..webtransport.events import SessionClosed
from ..webtransport.handler import ConnectionHandler, SessionHandler
from ..webtransport.session import Session
from ..webtransport.streams import SilentStreamHandler, Stream, StreamHandler
from .messages import (
    ECHO,
    MESSAGE_TOO_LARGE,
    MessageCounters,
    Paused,
    UnidirectionalAnswers,
    WholeMessage,
)

PING_PATHS = frozenset(("/", "/ping"))
ECHO_PATH = "/echo"

_DATAGRAM = "datagram"
_STREAM = "stream"
_UNI = "uni"


class Answers(NamedTuple):
    """Answers to what came on a stream."""

    data: bytes
    """As they go on a stream."""
    number: int
    size: int
    """Of the messages, in bytes."""
    may_go_on: bool
    """False: the peer has sent a message above the limit."""


class PingStream:
    """A bidirectional stream with pings on it; answers go back on the same stream."""

    __slots__ = ("_messages", "_paused", "_scanner", "_session")

    def __init__(self, session: PingSession) -> None:
        self._session = session
        self._paused = Paused()
        self._messages = Deframer(session.max_message_size) if session.is_v1 else None
        self._scanner = PlainScanner()

    def stream_data_received(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Answer the pings that are complete now."""
        if self._paused.keep(stream, data, end_stream):
            return
        session = self._session
        if self._messages is None:
            answers = session.answer_tokens(self._scanner, data, end_stream)
        else:
            answers = session.answer_frames(self._messages, data, end_stream, _STREAM)
        if not stream.send_open:
            return
        if answers.data or end_stream:
            stream.send(answers.data, end_stream and answers.may_go_on)
            session.counters.count_answers(_STREAM, answers.number, answers.size)
        if not answers.may_go_on:
            stream.stop(MESSAGE_TOO_LARGE)
            stream.reset(MESSAGE_TOO_LARGE)
        elif not end_stream:
            self._paused.check(stream)

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        """Nothing more to answer: what is answered already goes out, and then the end."""
        self._paused.drop(stream)
        if stream.send_open:
            stream.send(b"", True)

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        """Nobody reads the answers: nothing more is to be asked."""
        stream.stop(code or 0)
        self._paused.drop(stream)

    def stream_writable(self, stream: Stream) -> None:
        """The peer has read on."""
        data, ended = self._paused.resume(stream)
        if data or ended:
            self.stream_data_received(stream, data, ended)


class PingUnidirectional(SilentStreamHandler):
    """A unidirectional stream with `pingpong.v1` on it; answers go on another."""

    __slots__ = ("_messages", "_session")

    def __init__(self, session: PingSession) -> None:
        self._session = session
        self._messages = Deframer(session.max_message_size)

    def stream_data_received(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Answer each message as it is complete."""
        answers = self._session.answer_frames(self._messages, data, end_stream, _UNI)
        if answers.number:
            self._session.uni_answers.send(answers.data, answers.number, answers.size)
        if not answers.may_go_on:
            stream.stop(MESSAGE_TOO_LARGE)


class PingSession(SessionHandler):
    """Answers pings, in plain ping-pong or `pingpong.v1`."""

    __slots__ = (
        "_received",
        "_session",
        "counters",
        "is_v1",
        "max_message_size",
        "uni_answers",
    )

    def __init__(
        self, session: Session, counters: MessageCounters, max_message_size: int, *, is_v1: bool
    ) -> None:
        self.counters = counters
        self.is_v1 = is_v1
        self.max_message_size = max_message_size
        self.uni_answers = UnidirectionalAnswers(session, counters, _UNI)
        self._session = session
        self._received = 0
        """Pings of this session, in all modes: what a pong reports (RFC 8762, section 4)."""

    def datagram_received(self, session: Session, data: bytes) -> None:
        """One message, one answer."""
        counters = self.counters
        if self.is_v1:
            answer = self._answer(data, _DATAGRAM)
            if answer is None:
                return
        else:
            answer = answer_message(data)
            counters.received[_DATAGRAM] += 1
            counters.received_bytes += len(data)
        try:
            sent = session.send_datagram(answer)
        except DatagramTooLargeError:
            counters.dropped[_DATAGRAM, "too_large"] += 1
            return
        if sent:
            counters.answered[_DATAGRAM] += 1
            counters.sent_bytes += len(answer)
        else:
            counters.dropped[_DATAGRAM, "queue_full"] += 1

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """A stream of pings."""
        if not stream.is_unidirectional:
            return PingStream(self)
        if self.is_v1:
            return PingUnidirectional(self)
        return WholeMessage(self.max_message_size, self._answer_whole, self._whole_too_large)

    def credit_received(self, session: Session) -> None:
        """Answers may be waiting for a stream."""
        self.uni_answers.credit_received()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """Nothing waits any more."""
        self.uni_answers.session_closed()

    # What its streams call.

    def answer_tokens(self, scanner: PlainScanner, data: bytes, end: bool) -> Answers:
        """Answer the plain pings that are complete now; anything else gets a `?`."""
        answers = scanner.feed(data, end)
        count = answers.count(b"pong") + answers.count(b"?")
        self.counters.received[_STREAM] += count
        self.counters.received_bytes += len(data)
        return Answers(answers, count, len(answers), True)

    def answer_frames(self, messages: Deframer, data: bytes, end: bool, mode: str) -> Answers:
        """Answer the v1 messages that are complete now, each framed.

        One that is above the limit is counted, and so is one that the stream's end cuts off.
        """
        counters = self.counters
        may_go_on = True
        try:
            complete = messages.feed(data)
        except MessageTooLarge as error:
            counters.dropped[mode, "too_large"] += 1
            complete = error.messages
            may_go_on = False
        answers = b""
        count = size = 0
        for message in complete:
            answer = self._answer(message, mode)
            if answer is not None:
                answers += frame(answer)
                count += 1
                size += len(answer)
        if end and may_go_on and messages.pending:
            counters.dropped[mode, "malformed"] += 1
        return Answers(answers, count, size, may_go_on)

    # The rest.

    def _answer(self, message: bytes, mode: str) -> bytes | None:
        """Answer a v1 message; None, and counted, where it is none."""
        counters = self.counters
        counters.received_bytes += len(message)
        answer = answer_ping(
            message, self._received + 1, self._session.arrival, time.monotonic_ns()
        )
        if answer is None:
            counters.dropped[mode, "malformed"] += 1
            return None
        counters.received[mode] += 1
        self._received += 1
        return answer

    def _answer_whole(self, message: bytes) -> None:
        self.counters.received[_UNI] += 1
        self.counters.received_bytes += len(message)
        answer = answer_message(message)
        self.uni_answers.send(answer, 1, len(answer))

    def _whole_too_large(self) -> None:
        self.counters.dropped[_UNI, "too_large"] += 1


class EchoStream:
    """Sends back what it gets, as it gets it, and ends as it ends."""

    __slots__ = ("_paused",)

    def __init__(self) -> None:
        self._paused = Paused()

    def stream_data_received(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Send it back, unless what was sent before is still unread."""
        if stream.send_open and not self._paused.keep(stream, data, end_stream):
            stream.send(data, end_stream)
            self._paused.check(stream)

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        """A reset is echoed too."""
        self._paused.drop(stream)
        stream.reset(code or 0)

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        """Nobody reads the echo."""
        stream.stop(code or 0)
        self._paused.drop(stream)

    def stream_writable(self, stream: Stream) -> None:
        """The peer has read on."""
        data, ended = self._paused.resume(stream)
        if data or ended:
            self.stream_data_received(stream, data, ended)


class EchoSession(SessionHandler):
    """Echoes datagrams and streams; a unidirectional one comes back whole, on another."""

    __slots__ = ("_counters", "_max_message_size", "_uni_answers")

    def __init__(self, session: Session, counters: MessageCounters, max_message_size: int) -> None:
        self._counters = counters
        self._max_message_size = max_message_size
        self._uni_answers = UnidirectionalAnswers(session, counters, ECHO)

    def datagram_received(self, session: Session, data: bytes) -> None:
        """Send it back."""
        try:
            if not session.send_datagram(data):
                self._counters.dropped[ECHO, "queue_full"] += 1
        except DatagramTooLargeError:
            self._too_large()

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """Have it echoed."""
        if stream.is_unidirectional:
            return WholeMessage(self._max_message_size, self._echo, self._too_large)
        return EchoStream()

    def credit_received(self, session: Session) -> None:
        """Echoes may be waiting for a stream."""
        self._uni_answers.credit_received()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """Nothing waits any more."""
        self._uni_answers.session_closed()

    def _echo(self, data: bytes) -> None:
        self._uni_answers.send(data, 1, len(data))

    def _too_large(self) -> None:
        self._counters.dropped[ECHO, "too_large"] += 1


class Router(ConnectionHandler):
    """Gives each session to the handler of its path; unknown paths get 404."""

    __slots__ = ("_max_message_size", "counters")

    def __init__(self, max_message_size: int, counters: MessageCounters | None = None) -> None:
        self.counters = counters or MessageCounters()
        self._max_message_size = max_message_size

    def session_requested(self, session: Session) -> None:
        """Accept or reject at once."""
        path = session.request.path.partition("?")[0]
        if path in PING_PATHS:
            is_v1 = PROTOCOL in session.request.protocols
            session.accept(
                PingSession(session, self.counters, self._max_message_size, is_v1=is_v1),
                PROTOCOL if is_v1 else None,
            )
        elif path == ECHO_PATH:
            session.accept(EchoSession(session, self.counters, self._max_message_size))
        else:
            session.reject(404)
