"""Session flow control: how much may be sent, and how much was allowed to come.

Draft-16, section 5. Limits are cumulative over a session's life and only grow, for
data as for streams, so that one kind of account serves all: `SendCredit` for what the
peer grants, `ReceiveCredit` for what we grant. Neither does I/O; `session.Session`
turns what they say into capsules.
"""

from __future__ import annotations

from .errors import ErrorCode, SessionProtocolError

MAX_STREAMS = 1 << 60
"""No limit on streams can be higher (section 5.6.2)."""


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
        """Whether to tell the peer that its limit stops us: once for each limit."""
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


def check_stream_limit(limit: int) -> None:
    """Raises `SessionProtocolError` where a capsule's Maximum Streams is above 2^60."""
    if limit > MAX_STREAMS:
        raise SessionProtocolError(ErrorCode.WT_FLOW_CONTROL_ERROR, "Maximum Streams above 2^60")
