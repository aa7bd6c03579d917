"""The pings of one session: sends them in any mode, or several, and matches the answers to them.

The server counts the pings of a session in all modes together, so all of them are followed by one
`Statistics`, where each mode is a kind of its own. It all happens in the turn in which a packet
arrived, by its arrival time: what the event loop had to do meanwhile is not the network's.
"""

from __future__ import annotations

import struct
import time
from collections import Counter, deque
from collections.abc import Callable

from ...ping import (
    HEADER_SIZE,
    PROTOCOL,
    Deframer,
    MessageTooLarge,
    decode_pong,
    encode_ping,
    frame,
)
from ...webtransport import (
    DatagramTooLargeError,
    Session,
    SessionClosed,
    StateError,
    Stream,
    StreamHandler,
)
from ...webtransport.asyncio import SessionWaiter
from ..statistics.statistics import Outcome, Statistics, Verdict

_PLAIN = struct.Struct(">4sI")
_U32 = 0xFFFF_FFFF
_TOKEN = 4
"""Bytes of a plain `pong` on a bidirectional stream."""
_MAX_UNREAD = 1 << 20
"""Bytes of pings on one stream that the server has not acknowledged: then it does not read."""


class SendError(Exception):
    """A ping could not be sent; the text says why. Never the network's loss."""


class PingStream:
    """A stream that answers come on: framed in `pingpong.v1`, tokens or a whole in plain."""

    __slots__ = ("_data", "_messages", "_mode", "_pinger", "_seq", "_size")

    def __init__(self, pinger: Pinger, mode: str, seq: int | None = None) -> None:
        self._pinger = pinger
        self._mode = mode
        self._messages = Deframer(pinger.max_answer) if pinger.is_v1 else None
        self._seq = seq
        self._data = b""
        """Of a plain answer: what is not yet matched, or the beginning of a whole one."""
        self._size = 0

    def stream_data_received(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Match what is complete now."""
        if self._messages is not None:
            try:
                for message in self._messages.feed(data):
                    self._pinger.answered(message, self._mode)
            except MessageTooLarge:
                self._pinger.malformed_by_mode[self._mode] += 1
                stream.stop()
        elif stream.is_unidirectional:
            # The number is all that is read of it.
            self._data += data[: _PLAIN.size - len(self._data)]
            self._size += len(data)
            if end_stream:
                self._pinger.answered_plain(self._data, self._mode, self._size)
        else:
            data = self._data + data
            whole = len(data) - len(data) % _TOKEN
            for at in range(0, whole, _TOKEN):
                self._pinger.answered_token(data[at : at + _TOKEN], self._mode, self._seq)
            self._data = data[whole:]

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        """No answer will come; the ping's timeout says so."""

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        """The server reads no more; sending says so."""

    def stream_writable(self, stream: Stream) -> None:
        """Not asked for."""


class Pinger(SessionWaiter):
    """Sends pings on a session and counts what becomes of them.

    `mode` is how, where `send` isn't told otherwise. `answer` is told of each answer, with its
    size in bytes; `closed` of the session's end, once it was established; `draining` that the
    server wants the session to be left.
    """

    def __init__(
        self,
        mode: str,
        size: int,
        statistics: Callable[[bool], Statistics],
        *,
        flush: Callable[[], int],
        answer: Callable[[Outcome, int], None],
        closed: Callable[[SessionClosed], None],
        draining: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.is_v1 = False
        self.malformed_by_mode: Counter[str] = Counter()
        """Answers to no ping that is known: by the way that they came."""
        self.statistics: Statistics
        self._make_statistics = statistics
        self._mode = mode
        self._size = size
        self._flush = flush
        self._answer = answer
        self._closed = closed
        self._draining = draining
        self._session: Session
        self._copies = 0
        self._stream: Stream | None = None
        self._tokens: deque[int] = deque()
        """In plain on one stream, answers have no number: they come in order."""

    @property
    def max_answer(self) -> int:
        """Bytes of the largest answer that is one: as many as its ping has."""
        return max(self._size, HEADER_SIZE)

    @property
    def malformed(self) -> int:
        """How many answers there were to no ping that is known."""
        return self.malformed_by_mode.total()

    # Sending.

    def note_copies(self) -> None:
        """Count what the network has delivered twice since the last call."""
        copies = self._session.duplicate_packets
        self.statistics.copied(copies - self._copies)
        self._copies = copies

    def send(self, seq: int, mode: str | None = None) -> None:
        """Send a ping, now. Raises `SendError` where that cannot be."""
        mode = mode or self._mode
        now = time.monotonic_ns()
        message = (
            encode_ping(seq & _U32, now, self._size)
            if self.is_v1
            else _PLAIN.pack(b"ping", seq & _U32).ljust(self._size, b"\0")
        )
        self.statistics.sent(seq, now, mode)
        try:
            getattr(self, f"_send_{mode}")(message, seq)
        except (SendError, StateError, DatagramTooLargeError) as error:
            self.statistics.send_failed(seq)
            raise SendError(str(error)) from None
        sent_at = self._flush()
        if sent_at:
            self.statistics.departed(seq, sent_at)

    def _send_datagram(self, message: bytes, seq: int) -> None:
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

    def _send_uni(self, message: bytes, seq: int) -> None:
        stream = self._session.open_stream(PingStream(self, "uni"), unidirectional=True)
        stream.send(frame(message) if self.is_v1 else message, True)

    # Answers.

    def answered(self, message: bytes, mode: str) -> None:
        """A `pingpong.v1` message."""
        pong = decode_pong(message)
        if pong is None:
            self.malformed_by_mode[mode] += 1
            return
        self.note_copies()
        outcome = self.statistics.answered(
            pong.seq, self._session.arrival, pong.t3 - pong.t2, pong.received
        )
        self._report(outcome, len(message), mode)

    def answered_plain(self, message: bytes, mode: str, size: int) -> None:
        """A plain message of `size` bytes, or its beginning, with the number in its payload."""
        if len(message) < _PLAIN.size or message[:4] != b"pong":
            self.malformed_by_mode[mode] += 1
            return
        outcome = self.statistics.answered(_PLAIN.unpack_from(message)[1], self._session.arrival)
        self._report(outcome, size, mode)

    def answered_token(self, token: bytes, mode: str, seq: int | None) -> None:
        """A plain `pong` on a bidirectional stream, that of ping `seq` or in order."""
        if seq is None and self._tokens:
            seq = self._tokens.popleft()
        if token != b"pong" or seq is None:
            self.malformed_by_mode[mode] += 1
            return
        outcome = self.statistics.answered(seq & _U32, self._session.arrival)
        self._report(outcome, len(token), mode)

    def _report(self, outcome: Outcome, size: int, mode: str) -> None:
        if outcome.verdict is Verdict.UNKNOWN:
            self.malformed_by_mode[mode] += 1
        else:
            self._answer(outcome, size)

    # `SessionHandler`.

    def session_established(self, session: Session) -> None:
        """Pings can be sent, in what both sides speak."""
        self._session = session
        self.is_v1 = session.protocol == PROTOCOL
        self.statistics = self._make_statistics(self.is_v1)
        self._copies = session.duplicate_packets
        super().session_established(session)

    def session_draining(self, session: Session) -> None:
        """The server wants the session to be left."""
        if self._draining is not None:
            self._draining()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """The end."""
        established = self._established.done() and self._established.exception() is None
        super().session_closed(session, closed)
        notify = self._closed
        # The last call: without this it and its user would keep one another alive.
        self._answer = self._closed = self._draining = _do_nothing
        if established:
            notify(closed)

    def datagram_received(self, session: Session, data: bytes) -> None:
        """An answer to a datagram."""
        if self.is_v1:
            self.answered(data, "datagram")
        else:
            self.answered_plain(data, "datagram", len(data))

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """An answer to a unidirectional stream; others are refused."""
        if stream.is_unidirectional:
            return PingStream(self, "uni")
        return super().stream_opened(stream)


def _do_nothing(*arguments: object) -> None:
    pass
