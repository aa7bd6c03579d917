"""Session flow control (draft-16, section 5).

Limits are cumulative over a session's life and only grow, for data and for streams. So one class
serves both: `SendCredit` for the limits of the peer, `ReceiveCredit` for ours. `FlowControl` has
those of a session, and sends the capsules.
"""

from __future__ import annotations

from collections.abc import Callable

from .capsules import CapsuleType, decode_limit, encode_limit
from .drafts import Credit
from .errors import ErrorCode, SessionProtocolError
from .limits import Limits

MAX_STREAMS = 1 << 60
"""The highest limit on streams (section 5.6.2)."""

_MAX_STREAMS = (CapsuleType.WT_MAX_STREAMS_BIDI, CapsuleType.WT_MAX_STREAMS_UNI)
_STREAMS_BLOCKED = (CapsuleType.WT_STREAMS_BLOCKED_BIDI, CapsuleType.WT_STREAMS_BLOCKED_UNI)


class SendCredit:
    """A limit of the peer: `used` never exceeds `limit`."""

    __slots__ = ("blocked_at", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.blocked_at = -1

    @property
    def available(self) -> int:
        """Bytes that may still be sent, or streams that may still be opened."""
        return self.limit - self.used

    def take(self, wanted: int) -> int:
        """Use up to `wanted` of the credit; returns how much."""
        granted = self.limit - self.used
        if granted > wanted:
            granted = wanted
        self.used += granted
        return granted

    def give_back(self, amount: int) -> None:
        """Return unused credit, after the reset of a stream that had unsent bytes."""
        self.used -= amount

    def raise_limit(self, limit: int) -> None:
        """The peer raises its limit.

        Raises `SessionProtocolError` with WT_FLOW_CONTROL_ERROR if the limit does not grow
        (sections 5.6.2 and 5.6.4): capsules arrive in order.
        """
        if limit <= self.limit:
            raise SessionProtocolError(
                ErrorCode.WT_FLOW_CONTROL_ERROR, f"limit {limit} after {self.limit}"
            )
        self.limit = limit

    def newly_blocked(self) -> bool:
        """Whether to report to the peer that its limit blocks us: once per limit."""
        if self.blocked_at == self.limit:
            return False
        self.blocked_at = self.limit
        return True


class ReceiveCredit:
    """A limit that we grant the peer: `window` above what was consumed."""

    __slots__ = ("consumed", "limit", "received", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.limit = window
        self.received = 0
        self.consumed = 0

    def receive(self, amount: int) -> None:
        """Count received bytes or streams.

        Raises `SessionProtocolError` with WT_FLOW_CONTROL_ERROR above the limit.
        """
        received = self.received + amount
        if received > self.limit:
            raise SessionProtocolError(
                ErrorCode.WT_FLOW_CONTROL_ERROR, f"{received} received, {self.limit} allowed"
            )
        self.received = received

    def consume(self, amount: int) -> int | None:
        """Count consumed bytes or streams. Returns the new limit if it should be sent.

        A limit is sent when half the window is used: rarely, but before the peer stalls for a
        round trip.
        """
        self.consumed += amount
        limit = self.consumed + self.window
        # Without a window the limit never changes, and it must not be sent twice.
        if limit == self.limit or 2 * (limit - self.limit) < self.window:
            return None
        self.limit = limit
        return limit


class FlowControl:
    """The flow control limits of a session: data and streams, sent and received.

    Exists only if both sides enabled flow control. `send` sends a capsule to the peer. Pairs are
    for bidirectional and unidirectional streams, in this order.
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
        """The application read stream data. Sends WT_MAX_DATA when it is due."""
        limit = self.data_in.consume(size)
        if limit is not None:
            self._send(encode_limit(CapsuleType.WT_MAX_DATA, limit))

    def data_blocked(self, send_more: Callable[[], None]) -> None:
        """The peer's data limit blocks a stream. `send_more` is called when there is credit."""
        self._blocked[send_more] = None
        if self.data_out.newly_blocked():
            self._send(encode_limit(CapsuleType.WT_DATA_BLOCKED, self.data_out.limit))

    def data_unsent(self, size: int) -> None:
        """A stream was reset with `size` unsent bytes: their credit goes to other streams."""
        self.data_out.give_back(size)
        self._send_more()

    def stop_waiting(self, send_more: Callable[[], None]) -> None:
        """A blocked stream has nothing more to send."""
        self._blocked.pop(send_more, None)

    def session_closed(self) -> None:
        """The session closed: streams send nothing more."""
        self._blocked.clear()

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's limit allows one more stream; sends WT_STREAMS_BLOCKED if not."""
        credit = self.streams_out[unidirectional]
        if credit.available > 0:
            return True
        if credit.newly_blocked():
            self._send(encode_limit(_STREAMS_BLOCKED[unidirectional], credit.limit))
        return False

    def peer_stream_closed(self, unidirectional: bool) -> None:
        """A stream of the peer closed. Sends WT_MAX_STREAMS when it is due."""
        limit = self.streams_in[unidirectional].consume(1)
        if limit is not None:
            self._send(encode_limit(_MAX_STREAMS[unidirectional], limit))

    def receive(self, kind: CapsuleType, value: bytes) -> bool:
        """Process a flow control capsule. Returns whether it raised a stream limit.

        Raises `SessionProtocolError` if it is malformed, or does not raise its limit (sections
        5.6.2 and 5.6.4).
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
