"""Sends the pings of one session, in one or several modes, and matches the answers.

The server counts the pings of a session in all modes together. So one `Statistics` tracks all of
them, and each mode is a kind. Answers are processed in the turn in which their packet arrived,
with its arrival time, so delays of the event loop are not measured.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable

from ..ping import (
    HEADER_SIZE,
    PROTOCOL,
    Deframer,
    MessageTooLarge,
    Mode,
    decode_pong,
    encode_ping,
    frame,
)
from ..statistics import HORIZON_NS, Answer, AnswerStatus, Statistics
from ..webtransport import (
    DatagramTooLargeError,
    PathStatistics,
    Session,
    SessionClosed,
    StateError,
    Stream,
    StreamHandler,
)
from ..webtransport.asyncio import SessionWaiter

_PLAIN = struct.Struct(">4sI")
_U32 = 0xFFFF_FFFF
_TOKEN = 4
"""Bytes of a plain `pong` on a bidirectional stream."""
_MAX_UNREAD = 1 << 20
"""Unacknowledged bytes of pings on one stream; above it the server does not read the stream."""


class SendError(Exception):
    """A ping could not be sent; the text says why."""


class PingStream(StreamHandler):
    """Parses the answers on a stream: frames in `pingpong.v1`, tokens or one message in plain."""

    __slots__ = ("_data", "_messages", "_mode", "_pinger", "_seq", "_size")

    def __init__(self, pinger: Pinger, mode: Mode, seq: int | None = None) -> None:
        self._pinger = pinger
        self._mode = mode
        self._messages = Deframer(pinger.max_answer) if pinger.is_v1 else None
        self._seq = seq
        self._data = b""
        """The unmatched rest of plain answers, or the beginning of a plain message."""
        self._size = 0

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Match the complete answers."""
        if self._messages is not None:
            try:
                for message in self._messages.feed(data):
                    self._pinger.take(message, self._mode, arrival)
            except MessageTooLarge:
                self._pinger.malformed(self._mode)
                stream.stop()
        elif stream.is_unidirectional:
            # Only the sequence number is needed.
            self._data += data[: _PLAIN.size - len(self._data)]
            self._size += len(data)
            if end_stream:
                self._pinger.take_plain(self._data, self._mode, self._size, arrival)
        else:
            data = self._data + data
            whole = len(data) - len(data) % _TOKEN
            for at in range(0, whole, _TOKEN):
                self._pinger.take_token(data[at : at + _TOKEN], self._mode, self._seq, arrival)
            self._data = data[whole:]


class Pinger(SessionWaiter):
    """Sends pings of `size` bytes on a session and tracks their answers: a base class.

    Subclasses override the callbacks. An answer within `timeout_ns` is in time, one within
    `horizon_ns` after that is late. Times are in nanoseconds.
    """

    clock: Callable[[], int] = staticmethod(time.monotonic_ns)
    """Nanoseconds; the clock of arrival times."""

    def __init__(self, size: int, timeout_ns: int, horizon_ns: int = HORIZON_NS) -> None:
        super().__init__()
        self.is_v1 = False
        self.statistics: Statistics
        """Set when the session is established."""
        self._size = size
        self._times_ns = (timeout_ns, horizon_ns)
        self._session: Session
        self._duplicates = 0
        self._stream: Stream | None = None
        self._tokens: deque[int] = deque()
        """Sequence numbers of plain pings on one stream: answers have none, but are in order."""

    @property
    def max_answer(self) -> int:
        """The maximum size of an answer in bytes: that of a ping."""
        return max(self._size, HEADER_SIZE)

    # Callbacks.

    def flush(self) -> int:
        """Send queued packets now. Returns the time in nanoseconds; 0 if it is not known."""
        return 0

    def answered(self, answer: Answer, size: int, arrival: int) -> None:
        """An answer of `size` bytes arrived."""

    def malformed(self, mode: Mode) -> None:
        """A message arrived that is no answer to a ping."""

    def duplicated(self, count: int) -> None:
        """The network duplicated this number of packets."""

    def drain_received(self) -> None:
        """The server drains the session."""

    def session_ended(self, closed: SessionClosed) -> None:
        """An established session ended."""

    # Sending.

    @property
    def path_statistics(self) -> PathStatistics | None:
        """What QUIC knows of the session's path; None before a round trip was measured."""
        return self._session.path_statistics

    def count_duplicates(self) -> None:
        """Count the packets that the network has duplicated since the last call."""
        copies = self._session.duplicate_packets
        if copies != self._duplicates:
            count, self._duplicates = copies - self._duplicates, copies
            self.statistics.duplicated(count)
            self.duplicated(count)

    def ping(self, seq: int, mode: Mode) -> None:
        """Send a ping now. Raises `SendError`."""
        now = self.clock()
        message = (
            encode_ping(seq & _U32, now, self._size)
            if self.is_v1
            else _PLAIN.pack(b"ping", seq & _U32).ljust(self._size, b"\0")
        )
        self.statistics.sent(seq, now, mode)
        try:
            self._send(message, seq, mode)
        except (SendError, StateError, DatagramTooLargeError) as error:
            self.statistics.send_failed(seq)
            raise SendError(str(error)) from None
        sent_at = self.flush()
        if sent_at:
            self.statistics.departed(seq, sent_at)

    def _send(self, message: bytes, seq: int, mode: Mode) -> None:
        match mode:
            case "datagram":
                self._send_datagram(message)
            case "stream":
                self._send_stream(message, seq)
            case "streams":
                self._send_streams(message, seq)
            case "uni":
                self._send_uni(message)

    def _send_datagram(self, message: bytes) -> None:
        if not self._session.send_datagram(message):
            raise SendError("the send queue is full")

    def _send_stream(self, message: bytes, seq: int) -> None:
        if self._stream is None or not self._stream.send_open:
            self._tokens.clear()
            self._stream = self._session.open_stream(PingStream(self, "stream"))
        elif self._stream.buffered > _MAX_UNREAD:
            raise SendError("the server does not read the stream")
        if not self.is_v1:
            self._tokens.append(seq)
        self._stream.send(frame(message) if self.is_v1 else b"ping")

    def _send_streams(self, message: bytes, seq: int) -> None:
        stream = self._session.open_stream(PingStream(self, "streams", seq))
        stream.send(frame(message) if self.is_v1 else b"ping", True)

    def _send_uni(self, message: bytes) -> None:
        stream = self._session.open_stream(PingStream(self, "uni"), unidirectional=True)
        stream.send(frame(message) if self.is_v1 else message, True)

    # Answers.

    def take(self, message: bytes, mode: Mode, arrival: int) -> None:
        """Process a `pingpong.v1` message."""
        pong = decode_pong(message)
        if pong is None:
            self.malformed(mode)
            return
        self.count_duplicates()
        answer = self.statistics.answered(pong.seq, arrival, pong.t3 - pong.t2, pong.received)
        self._report(answer, len(message), mode, arrival)

    def take_plain(self, message: bytes, mode: Mode, size: int, arrival: int) -> None:
        """Process a plain message of `size` bytes; `message` may be only its beginning."""
        if len(message) < _PLAIN.size or message[:4] != b"pong":
            self.malformed(mode)
            return
        answer = self.statistics.answered(_PLAIN.unpack_from(message)[1], arrival)
        self._report(answer, size, mode, arrival)

    def take_token(self, token: bytes, mode: Mode, seq: int | None, arrival: int) -> None:
        """Process a plain `pong` of a bidirectional stream: for ping `seq`, or in order."""
        if seq is None and self._tokens:
            seq = self._tokens.popleft()
        if token != b"pong" or seq is None:
            self.malformed(mode)
            return
        answer = self.statistics.answered(seq & _U32, arrival)
        self._report(answer, len(token), mode, arrival)

    def _report(self, answer: Answer, size: int, mode: Mode, arrival: int) -> None:
        if answer.status is AnswerStatus.UNKNOWN:
            self.malformed(mode)
        else:
            self.answered(answer, size, arrival)

    # `SessionHandler`.

    def session_established(self, session: Session) -> None:
        """Set up the statistics for the negotiated protocol."""
        self._session = session
        self.is_v1 = session.protocol == PROTOCOL
        timeout_ns, horizon_ns = self._times_ns
        self.statistics = Statistics(timeout_ns, directions=self.is_v1, horizon_ns=horizon_ns)
        self._duplicates = session.duplicate_packets
        super().session_established(session)

    def session_draining(self, session: Session) -> None:
        """The server drains the session."""
        self.drain_received()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """Report the end of an established session."""
        established = self._established.done() and self._established.exception() is None
        super().session_closed(session, closed)
        if established:
            self.session_ended(closed)

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        """Process an answer to a datagram."""
        if self.is_v1:
            self.take(data, "datagram", arrival)
        else:
            self.take_plain(data, "datagram", len(data), arrival)

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """Accept the answer to a unidirectional stream; refuse bidirectional streams."""
        if stream.is_unidirectional:
            return PingStream(self, "uni")
        return super().stream_opened(stream)
