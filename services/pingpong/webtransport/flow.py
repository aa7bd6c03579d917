"""Session flow control: how much may be sent, and how much was allowed to come.

Draft-16, section 5. Limits are cumulative over a session's life and only grow, for
data as for streams, so that one kind of account serves all: `SendCredit` for what the
peer grants, `ReceiveCredit` for what we grant. `FlowControl` has a session's accounts,
and turns what they say into capsules.
"""

from __future__ import annotations

from collections.abc import Callable

from .capsules import CapsuleType, decode_limit, encode_limit
from .drafts import Credit
from .errors import ErrorCode, SessionProtocolError
from .limits import Limits

MAX_STREAMS = 1 << 60
"""No limit on streams can be higher (section 5.6.2)."""

_MAX_STREAMS = (CapsuleType.WT_MAX_STREAMS_BIDI, CapsuleType.WT_MAX_STREAMS_UNI)
_STREAMS_BLOCKED = (CapsuleType.WT_STREAMS_BLOCKED_BIDI, CapsuleType.WT_STREAMS_BLOCKED_UNI)


class SendCredit:
    """What the peer allows us: `used` never exceeds `limit`."""

    __slots__ = ("blocked_at", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.blocked_at = -1

    @property
    def available(self) -> int:
        """How much more may be sent, or how many more streams opened."""
        return self.limit - self.used

    def take(self, wanted: int) -> int:
        """Use up to `wanted`; returns what was granted."""
        granted = min(wanted, self.limit - self.used)
        self.used += granted
        return granted

    def give_back(self, amount: int) -> None:
        """What was taken will not be used: a reset stream's final size is what was sent."""
        self.used -= amount

    def raise_limit(self, limit: int) -> None:
        """The peer grants more.

        Raises `SessionProtocolError` with WT_FLOW_CONTROL_ERROR where it is not more:
        capsules arrive in order, so that a limit that does not grow is a mistake
        (sections 5.6.2 and 5.6.4).
        """
        if limit <= self.limit:
            raise SessionProtocolError(
                ErrorCode.WT_FLOW_CONTROL_ERROR, f"limit {limit} after {self.limit}"
            )
        self.limit = limit

    def newly_blocked(self) -> bool:
        """Whether to report to the peer that its limit stops us: once for each limit."""
        if self.blocked_at == self.limit:
            return False
        self.blocked_at = self.limit
        return True


class ReceiveCredit:
    """What we allow the peer: a window of `window` beyond what has been consumed."""

    __slots__ = ("consumed", "limit", "received", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.limit = window
        self.received = 0
        self.consumed = 0

    def receive(self, amount: int) -> None:
        """Account for what came.

        Raises `SessionProtocolError` with WT_FLOW_CONTROL_ERROR above the limit.
        """
        received = self.received + amount
        if received > self.limit:
            raise SessionProtocolError(
                ErrorCode.WT_FLOW_CONTROL_ERROR, f"{received} received, {self.limit} allowed"
            )
        self.received = received

    def consume(self, amount: int) -> int | None:
        """Account for what was used up here; the new limit, if it is time to announce one.

        Announced when half the window is used: seldom enough to cost nothing, soon
        enough that a peer with the window full does not stall for a round trip.
        """
        self.consumed += amount
        limit = self.consumed + self.window
        # Without a window there is nothing to announce, and a limit must not come twice.
        if limit == self.limit or 2 * (limit - self.limit) < self.window:
            return None
        self.limit = limit
        return limit


class FlowControl:
    """What each side of a session may send: data, and streams of both kinds.

    Only where both sides have turned flow control on. `send` sends a capsule to the peer.
    Pairs are of bidirectional and unidirectional streams, in this order.
    """

    __slots__ = ("_blocked", "_send", "data_in", "data_out", "streams_in", "streams_out")

    def __init__(self, limits: Limits, granted: Credit, send: Callable[[bytes], None]) -> None:
        self.data_in = ReceiveCredit(limits.initial_max_data)
        self.data_out = SendCredit(granted.data)
        self.streams_in = (
            ReceiveCredit(limits.initial_max_streams_bidi),
            ReceiveCredit(limits.initial_max_streams_uni),
        )
        self.streams_out = (SendCredit(granted.streams_bidi), SendCredit(granted.streams_uni))
        self._send = send
        self._blocked: dict[Callable[[], None], None] = {}

    def data_consumed(self, size: int) -> None:
        """Stream data was used up here; the peer may be granted more."""
        limit = self.data_in.consume(size)
        if limit is not None:
            self._send(encode_limit(CapsuleType.WT_MAX_DATA, limit))

    def data_blocked(self, send_more: Callable[[], None]) -> None:
        """The peer's limit on data stops a stream, which is called when there is credit again."""
        self._blocked[send_more] = None
        if self.data_out.newly_blocked():
            self._send(encode_limit(CapsuleType.WT_DATA_BLOCKED, self.data_out.limit))

    def data_unsent(self, size: int) -> None:
        """A stream was reset before all was sent: others may use the credit that it leaves."""
        self.data_out.give_back(size)
        self._send_more()

    def stop_waiting(self, send_more: Callable[[], None]) -> None:
        """A stream has nothing more to send."""
        self._blocked.pop(send_more, None)

    def session_closed(self) -> None:
        """No stream is to send any more."""
        self._blocked.clear()

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's limit allows one more stream; the peer hears where it does not."""
        credit = self.streams_out[unidirectional]
        if credit.available > 0:
            return True
        if credit.newly_blocked():
            self._send(encode_limit(_STREAMS_BLOCKED[unidirectional], credit.limit))
        return False

    def peer_stream_closed(self, unidirectional: bool) -> None:
        """A stream that the peer opened has ended; it may be granted another."""
        limit = self.streams_in[unidirectional].consume(1)
        if limit is not None:
            self._send(encode_limit(_MAX_STREAMS[unidirectional], limit))

    def receive(self, kind: CapsuleType, value: bytes) -> bool:
        """Take one of the flow control capsules; whether more streams may be opened now.

        Raises `SessionProtocolError` where it is malformed, or does not raise its limit
        (sections 5.6.2 and 5.6.4).
        """
        limit = decode_limit(value)
        if kind is CapsuleType.WT_MAX_DATA:
            self.data_out.raise_limit(limit)
            self._send_more()
            return False
        if kind is CapsuleType.WT_DATA_BLOCKED:
            return False
        if limit > MAX_STREAMS:
            reason = "Maximum Streams above 2^60"
            raise SessionProtocolError(ErrorCode.WT_FLOW_CONTROL_ERROR, reason)
        if kind not in _MAX_STREAMS:
            return False
        self.streams_out[_MAX_STREAMS.index(kind)].raise_limit(limit)
        return True

    def _send_more(self) -> None:
        blocked, self._blocked = self._blocked, {}
        for send_more in blocked:
            send_more()
