"""The pings of one session: sends them in any mode, or several, and matches the answers to them.

The server counts the pings of a session in all modes together, so all of them are followed by one
`Statistics`, where each mode is a kind of its own. It all happens in the turn in which a packet
arrived, by its arrival time: what the event loop had to do meanwhile is not the network's.
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
"""Bytes of pings on one stream that the server has not acknowledged: then it does not read."""


class SendError(Exception):
    """A ping could not be sent; the text says why. Never the network's loss."""


class PingStream(StreamHandler):
    """A stream that answers come on: framed in `pingpong.v1`, tokens or a whole in plain."""

    __slots__ = ("_data", "_messages", "_mode", "_pinger", "_seq", "_size")

    def __init__(self, pinger: Pinger, mode: Mode, seq: int | None = None) -> None:
        self._pinger = pinger
        self._mode = mode
        self._messages = Deframer(pinger.max_answer) if pinger.is_v1 else None
        self._seq = seq
        self._data = b""
        """Of a plain answer: what is not yet matched, or the beginning of a whole one."""
        self._size = 0

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """Match what is complete now."""
        if self._messages is not None:
            try:
                for message in self._messages.feed(data):
                    self._pinger.take(message, self._mode, arrival)
            except MessageTooLarge:
                self._pinger.malformed(self._mode)
                stream.stop()
        elif stream.is_unidirectional:
            # The number is all that is read of it.
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
    """Sends pings of `size` bytes on a session and follows what becomes of them: a base class.

    Subclasses override the methods under "What happens". A ping is answered in time
    within `timeout_ns`, and late within `horizon_ns` after that.
    """

    clock: Callable[[], int] = staticmethod(time.monotonic_ns)
    """Nanoseconds; the clock of answers' arrivals."""

    def __init__(self, size: int, timeout_ns: int, horizon_ns: int = HORIZON_NS) -> None:
        super().__init__()
        self.is_v1 = False
        self.statistics: Statistics
        """There once the session is established."""
        self._size = size
        self._times_ns = (timeout_ns, horizon_ns)
        self._session: Session
        self._duplicates = 0
        self._stream: Stream | None = None
        self._tokens: deque[int] = deque()
        """In plain on one stream, answers have no number: they come in order."""

    @property
    def max_answer(self) -> int:
        """Bytes of the largest answer that is one: as many as its ping has."""
        return max(self._size, HEADER_SIZE)

    # What happens.

    def flush(self) -> int:
        """Have what waits leave, now. Returns when it left, in nanoseconds; 0: it is not known."""
        return 0

    def answered(self, answer: Answer, size: int, arrival: int) -> None:
        """An answer of `size` bytes arrived."""

    def malformed(self, mode: Mode) -> None:
        """Something came that is the answer to no ping."""

    def duplicated(self, count: int) -> None:
        """The network delivered this number of packets again."""

    def drain_received(self) -> None:
        """The server wants the session to be left."""

    def over(self, closed: SessionClosed) -> None:
        """The session is over, once it was established."""

    # Sending.

    def count_duplicates(self) -> None:
        """Count what the network has delivered twice since the last call."""
        copies = self._session.duplicate_packets
        if copies != self._duplicates:
            count, self._duplicates = copies - self._duplicates, copies
            self.statistics.duplicated(count)
            self.duplicated(count)

    def ping(self, seq: int, mode: Mode) -> None:
        """Send a ping, now. Raises `SendError` where that cannot be."""
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
            raise SendError("too many datagrams wait to be sent")

    def _send_stream(self, message: bytes, seq: int) -> None:
        if self._stream is None or not self._stream.send_open:
            self._tokens.clear()
            self._stream = self._session.open_stream(PingStream(self, "stream"))
        elif self._stream.buffered > _MAX_UNREAD:
            raise SendError("the server does not read")
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
        """A `pingpong.v1` message."""
        pong = decode_pong(message)
        if pong is None:
            self.malformed(mode)
            return
        self.count_duplicates()
        answer = self.statistics.answered(pong.seq, arrival, pong.t3 - pong.t2, pong.received)
        self._report(answer, len(message), mode, arrival)

    def take_plain(self, message: bytes, mode: Mode, size: int, arrival: int) -> None:
        """A plain message of `size` bytes, or its beginning, with the number in its payload."""
        if len(message) < _PLAIN.size or message[:4] != b"pong":
            self.malformed(mode)
            return
        answer = self.statistics.answered(_PLAIN.unpack_from(message)[1], arrival)
        self._report(answer, size, mode, arrival)

    def take_token(self, token: bytes, mode: Mode, seq: int | None, arrival: int) -> None:
        """A plain `pong` on a bidirectional stream, that of ping `seq` or in order."""
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
        """Pings can be sent, in what both sides speak."""
        self._session = session
        self.is_v1 = session.protocol == PROTOCOL
        timeout_ns, horizon_ns = self._times_ns
        self.statistics = Statistics(timeout_ns, directions=self.is_v1, horizon_ns=horizon_ns)
        self._duplicates = session.duplicate_packets
        super().session_established(session)

    def session_draining(self, session: Session) -> None:
        """The server wants the session to be left."""
        self.drain_received()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """Note the end of the session."""
        established = self._established.done() and self._established.exception() is None
        super().session_closed(session, closed)
        if established:
            self.over(closed)

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        """An answer to a datagram."""
        if self.is_v1:
            self.take(data, "datagram", arrival)
        else:
            self.take_plain(data, "datagram", len(data), arrival)

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """An answer to a unidirectional stream; others are refused."""
        if stream.is_unidirectional:
            return PingStream(self, "uni")
        return super().stream_opened(stream)
