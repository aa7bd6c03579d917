"""The handlers by path: `/ping` and `/` answer pings, `/echo` echoes.

A handler is called in the turn in which a packet arrived, and answers in the same turn: there is
no task, queue or future between a ping and its pong.

Messages above the rate limit of a session are dropped and counted, in all modes. If messages on
streams were delayed instead, the client would measure the limit as latency. A dropped ping counts
as received in later pongs, since it was not lost in the network. Of several plain pings on a
stream, the last ones are dropped. The bytes of an echoed stream are not messages and have no rate
limit.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TypeAlias

from ...ping import (
    HEADER_SIZE,
    OTHER,
    PING,
    PONG,
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
"""All paths."""

_NS = 1e-9
_PLAIN_ANSWER = re.compile(rb"pong|\?")


Answers: TypeAlias = tuple[bytes, int, int, bool]
"""The answers to the messages of a stream: encoded; their number; their size in bytes, without
framing; and false if a message was above the limit, so that the stream cannot go on."""


class PingStream(PausingStream):
    """A bidirectional stream with pings; the answers go on the same stream."""

    __slots__ = ("_parser", "_session")

    def __init__(self, session: PingSession) -> None:
        super().__init__(session.counters.clock)
        self._session = session
        self._parser: Deframer | PlainScanner | None = None
        """None as long as each part that arrived was one plain ping."""

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Answer the complete pings."""
        if self._held is not None:
            self._hold(stream, self._held, data, end_stream)
            return
        session, parser = self._session, self._parser
        if parser is None and (session.is_v1 or data != PING):
            size = session.max_message_size
            parser = self._parser = Deframer(size) if session.is_v1 else PlainScanner()
        if isinstance(parser, Deframer):
            answers = session.answer_frames(stream, parser, data, end_stream, arrival)
        else:
            tokens = PONG if parser is None else parser.feed(data, end_stream)
            answers = session.answer_tokens(tokens, len(data), arrival)
        encoded, number, size, may_go_on = answers
        if not stream.send_open:
            return
        if encoded or end_stream:
            stream.send(encoded, end_stream and may_go_on)
            session.counters.count_answers(STREAM, number, size)
        if not may_go_on:
            stream.stop(MESSAGE_TOO_LARGE)
            stream.reset(MESSAGE_TOO_LARGE)
        elif not end_stream:
            self._answered(stream, len(encoded))

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        """Finish the stream after the answers that were made."""
        self._resume(stream)
        if stream.send_open:
            stream.send(b"", True)


class PingUnidirectional(StreamHandler):
    """A unidirectional stream with `pingpong.v1`; the answers go on a new stream."""

    __slots__ = ("_messages", "_session")

    def __init__(self, session: PingSession) -> None:
        self._session = session
        self._messages = Deframer(session.max_message_size)

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Answer the complete messages."""
        answers, number, size, may_go_on = self._session.answer_frames(
            stream, self._messages, data, end_stream, arrival
        )
        if number:
            self._session.uni_answers.send(answers, number, size)
        if not may_go_on:
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
        """Pings of this session in all modes, which a pong reports (RFC 8762, section 4)."""

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        """Answer a message."""
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

    # For its streams.

    def answer_tokens(self, answers: bytes, size: int, arrival: int) -> Answers:
        """Count the answers to plain pings in `size` bytes, and drop those above the rate."""
        counters = self.counters
        count = 1 if answers == PONG else answers.count(PONG) + answers.count(OTHER)
        counters.received[STREAM] += count
        counters.received_bytes += size
        if self._limit is not None and count:
            granted = self._limit.take(arrival, count) if count > 1 else self._limit.allow(arrival)
            if granted < count:
                counters.dropped[STREAM, RATE] += count - granted
                answers = b"".join(_PLAIN_ANSWER.findall(answers)[:granted])
                count = granted
        if count:
            counters.answer_durations.observe((counters.clock() - arrival) * _NS)
        return answers, count, len(answers), True

    def answer_frames(
        self, stream: Stream, messages: Deframer, data: bytes, end: bool, arrival: int
    ) -> Answers:
        """Answer the complete v1 messages of a stream, in frames.

        Counts a message that is above the limit, or truncated by the end of the stream.
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
        count = size = malformed = 0
        for message in complete:
            if len(message) < HEADER_SIZE:
                # Here, because a peer can send a thousand of them in a packet.
                malformed += 1
                counters.received_bytes += len(message)
                continue
            answer = self._answer(message, mode, arrival)
            if answer is not None:
                answers += frame(answer)
                count += 1
                size += len(answer)
        if malformed:
            counters.dropped[mode, MALFORMED] += malformed
        if end and may_go_on and messages.pending:
            counters.dropped[mode, MALFORMED] += 1
        return answers, count, size, may_go_on

    # The rest.

    def _answer(self, message: bytes, mode: str, arrival: int) -> bytes | None:
        """Answer a v1 message; None if it is dropped: malformed, or above the rate."""
        counters = self.counters
        counters.received_bytes += len(message)
        if len(message) < HEADER_SIZE:
            # Malformed; this check avoids the cost of decoding it.
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
        """Answer a plain message; None if it is dropped, and counted, as above the rate."""
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
    """Passes accepted sessions to the handler of their path, and counts refused ones.

    `rate_limit` is the number of messages a second of a session; 0 means no limit.
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
        """Accept or reject, at once or when the token is verified."""
        self.admission.decide(session.request, partial(self._decided, session))

    def request_refused(self, session: Session, closed: SessionClosed) -> None:
        """Count a request that the connection refused."""
        result = _refused_as(session, closed)
        if result is not None:
            self.admission.counters.results[result] += 1

    def _decided(self, session: Session, refusal: Refusal | None) -> None:
        if session.state is not State.REQUESTED:
            return  # The client cancelled the request.
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
    """Why the connection refused a request; None if the client cancelled it."""
    if closed.by_peer:
        return None
    if closed.status == 429:
        return Result.CAPACITY
    if closed.wire_code == ErrorCode.H3_REQUEST_REJECTED:
        # Without flow control a connection may have only one session.
        return Result.DRAINING if session.draining else Result.CAPACITY
    return Result.MALFORMED
