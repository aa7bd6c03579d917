"""What is done on each path: pings are answered on `/ping` and `/`, `/echo` echoes.

Handlers are called in the turn in which a packet arrived, and answer in it: between a
ping and its pong there is no task, no queue and no future.

A session that asks for more than its rate allows has its messages dropped and counted, in all
modes. On a stream they could be left to wait instead, but then what the client measures would be
the limit, shown as latency; a ping that is not answered is seen for what it is. It counts as
received in later pongs, since it was not lost on its way here. Of a plain stream's
pings the last of those that came together are the ones that get no answer. The bytes of an
echoed stream are no messages: they go as fast as the peer takes them back.
"""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

from ...ping import (
    HEADER_SIZE,
    PROTOCOL,
    Deframer,
    MessageTooLarge,
    PlainScanner,
    answer_message,
    answer_ping,
    frame,
)
from ...webtransport import (
    ConnectionHandler,
    DatagramTooLargeError,
    ErrorCode,
    Session,
    SessionClosed,
    State,
    Stream,
    StreamHandler,
)
from .admission import Admission, RateLimit, Refusal
from .counters import (
    DATAGRAM,
    MALFORMED,
    QUEUE_FULL,
    RATE,
    STREAM,
    TOO_LARGE,
    UNI,
    MessageCounters,
    Result,
    SessionCounters,
)
from .echo import EchoSession
from .messages import MESSAGE_TOO_LARGE, CountedSession, PausingStream, WholeMessage

PING_PATHS = frozenset(("/", "/ping"))
ECHO_PATH = "/echo"
PATHS = PING_PATHS | {ECHO_PATH}
"""All that there are."""

_NS = 1e-9
_PLAIN_ANSWER = re.compile(rb"pong|\?")


class Answers(NamedTuple):
    """Answers to what came on a stream."""

    data: bytes
    """As they go on a stream."""
    number: int
    size: int
    """Of the messages, in bytes."""
    may_go_on: bool
    """False: the peer has sent a message above the limit."""


class PingStream(PausingStream):
    """A bidirectional stream with pings on it; answers go back on the same stream."""

    __slots__ = ("_parser", "_session")

    def __init__(self, session: PingSession) -> None:
        super().__init__(session.counters.clock)
        self._session = session
        self._parser = Deframer(session.max_message_size) if session.is_v1 else PlainScanner()

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Answer the pings that are complete now."""
        if self._paused.keep(stream, data, end_stream):
            return
        session, parser = self._session, self._parser
        if isinstance(parser, PlainScanner):
            answers = session.answer_tokens(parser, data, end_stream, arrival)
        else:
            answers = session.answer_frames(stream, parser, data, end_stream, arrival)
        if not stream.send_open:
            return
        if answers.data or end_stream:
            stream.send(answers.data, end_stream and answers.may_go_on)
            session.counters.count_answers(STREAM, answers.number, answers.size)
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


class PingUnidirectional(StreamHandler):
    """A unidirectional stream with `pingpong.v1` on it; answers go on another."""

    __slots__ = ("_messages", "_session")

    def __init__(self, session: PingSession) -> None:
        self._session = session
        self._messages = Deframer(session.max_message_size)

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Answer each message as it is complete."""
        answers = self._session.answer_frames(stream, self._messages, data, end_stream, arrival)
        if answers.number:
            self._session.uni_answers.send(answers.data, answers.number, answers.size)
        if not answers.may_go_on:
            stream.stop(MESSAGE_TOO_LARGE)


class PingSession(CountedSession):
    """Answers pings, in plain ping-pong or `pingpong.v1`."""

    __slots__ = ("_received", "is_v1")

    def __init__(
        self,
        session: Session,
        counters: MessageCounters,
        max_message_size: int,
        *,
        is_v1: bool,
        limit: RateLimit | None = None,
        sessions: SessionCounters | None = None,
    ) -> None:
        super().__init__(session, counters, max_message_size, UNI, limit, sessions)
        self.is_v1 = is_v1
        self._received = 0
        """Pings of this session, in all modes: what a pong reports (RFC 8762, section 4)."""

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        """One message, one answer."""
        counters = self.counters
        if self.is_v1:
            answer = self._answer(data, DATAGRAM, arrival)
        else:
            answer = self._answer_plain(data, DATAGRAM, arrival)
        if answer is None:
            return
        try:
            sent = session.send_datagram(answer)
        except DatagramTooLargeError:
            counters.dropped[DATAGRAM, TOO_LARGE] += 1
            return
        if sent:
            counters.answered[DATAGRAM] += 1
            counters.sent_bytes += len(answer)
        else:
            counters.dropped[DATAGRAM, QUEUE_FULL] += 1

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """Answer the pings on the stream."""
        if not stream.is_unidirectional:
            return PingStream(self)
        if self.is_v1:
            return PingUnidirectional(self)
        return WholeMessage(self.max_message_size, self._answer_whole, self._whole_too_large)

    # What its streams call.

    def answer_tokens(self, scanner: PlainScanner, data: bytes, end: bool, arrival: int) -> Answers:
        """Answer the plain pings that are complete now; anything else gets a `?`."""
        counters = self.counters
        answers = scanner.feed(data, end)
        count = answers.count(b"pong") + answers.count(b"?")
        counters.received[STREAM] += count
        counters.received_bytes += len(data)
        if self._limit is not None and count:
            granted = self._limit.take(arrival, count)
            if granted < count:
                counters.dropped[STREAM, RATE] += count - granted
                answers = b"".join(_PLAIN_ANSWER.findall(answers)[:granted])
                count = granted
        if count:
            counters.answer_durations.observe((counters.clock() - arrival) * _NS)
        return Answers(answers, count, len(answers), True)

    def answer_frames(
        self, stream: Stream, messages: Deframer, data: bytes, end: bool, arrival: int
    ) -> Answers:
        """Answer the v1 messages of a stream that are complete now, each framed.

        One that is above the limit is counted, and so is one that the stream's end cuts off.
        """
        counters = self.counters
        mode = UNI if stream.is_unidirectional else STREAM
        may_go_on = True
        try:
            complete = messages.feed(data)
        except MessageTooLarge as error:
            counters.dropped[mode, TOO_LARGE] += 1
            complete = error.messages
            may_go_on = False
        stream.handler_buffered = messages.pending
        answers = b""
        count = size = 0
        for message in complete:
            answer = self._answer(message, mode, arrival)
            if answer is not None:
                answers += frame(answer)
                count += 1
                size += len(answer)
        if end and may_go_on and messages.pending:
            counters.dropped[mode, MALFORMED] += 1
        return Answers(answers, count, size, may_go_on)

    # The rest.

    def _answer(self, message: bytes, mode: str, arrival: int) -> bytes | None:
        """Answer a v1 message; None, and counted, where it is none, or one too many."""
        counters = self.counters
        counters.received_bytes += len(message)
        if len(message) < HEADER_SIZE:
            # Malformed as well; decoding it would cost more than its few bytes are worth.
            counters.dropped[mode, MALFORMED] += 1
            return None
        leaves = counters.send_delay.expect(counters.clock())
        received = self._received + 1
        answer = answer_ping(message, received, arrival, leaves)
        if answer is None:
            counters.dropped[mode, MALFORMED] += 1
            return None
        counters.received[mode] += 1
        self._received = received
        if self._limit is not None and not self._limit.allow(arrival):
            counters.dropped[mode, RATE] += 1
            return None
        counters.answer_durations.observe((leaves - arrival) * _NS)
        return answer

    def _answer_plain(self, message: bytes, mode: str, arrival: int) -> bytes | None:
        """Answer a plain message; None, and counted, where it is one too many."""
        counters = self.counters
        counters.received_bytes += len(message)
        counters.received[mode] += 1
        if self._limit is not None and not self._limit.allow(arrival):
            counters.dropped[mode, RATE] += 1
            return None
        counters.answer_durations.observe((counters.clock() - arrival) * _NS)
        return answer_message(message)

    def _answer_whole(self, message: bytes, arrival: int) -> None:
        answer = self._answer_plain(message, UNI, arrival)
        if answer is not None:
            self.uni_answers.send(answer, 1, len(answer))

    def _whole_too_large(self) -> None:
        self.counters.dropped[UNI, TOO_LARGE] += 1


class Router(ConnectionHandler):
    """Gives each session that is admitted to the handler of its path, and counts the others.

    Messages a second that a session may send: `rate_limit`; 0 is any number.
    """

    __slots__ = ("_max_message_size", "_rate_limit", "admission", "counters")

    def __init__(
        self,
        max_message_size: int,
        counters: MessageCounters | None = None,
        *,
        admission: Admission | None = None,
        rate_limit: int = 0,
    ) -> None:
        self.admission = admission or Admission(PATHS)
        self.counters = counters or MessageCounters()
        self._max_message_size = max_message_size
        self._rate_limit = rate_limit

    def session_requested(self, session: Session) -> None:
        """Accept or reject, at once or when it is known whether the token is good."""
        self.admission.decide(session.request, partial(self._decided, session))

    def request_refused(self, session: Session, closed: SessionClosed) -> None:
        """Count a request that ended before it was asked about."""
        result = _refused_as(session, closed)
        if result is not None:
            self.admission.counters.results[result] += 1

    def _decided(self, session: Session, refusal: Refusal | None) -> None:
        if session.state is not State.REQUESTED:
            return  # The client didn't wait.
        sessions = self.admission.counters
        if refusal is not None:
            sessions.results[refusal.result] += 1
            session.reject(refusal.status, refusal.headers)
            return
        sessions.opened()
        counters, size = self.counters, self._max_message_size
        limit = RateLimit(self._rate_limit) if self._rate_limit else None
        if session.request.path.partition("?")[0] == ECHO_PATH:
            session.accept(EchoSession(session, counters, size, limit=limit, sessions=sessions))
            return
        is_v1 = PROTOCOL in session.request.protocols
        handler = PingSession(session, counters, size, is_v1=is_v1, limit=limit, sessions=sessions)
        session.accept(handler, PROTOCOL if is_v1 else None)


def _refused_as(session: Session, closed: SessionClosed) -> Result | None:
    """What the connection refused a request for; None: the client took it back."""
    if closed.by_peer:
        return None
    if closed.status == 429:
        return Result.CAPACITY
    if closed.wire_code == ErrorCode.H3_REQUEST_REJECTED:
        # Without flow control a connection has room for one session only.
        return Result.DRAINING if session.draining else Result.CAPACITY
    return Result.MALFORMED
