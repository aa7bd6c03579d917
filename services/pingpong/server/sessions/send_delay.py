"""Estimates the delay between making and sending an answer, for t3 of a pong."""

from __future__ import annotations

_DOWN, _UP = 2, 6
"""Weights of the moving average: 1/2^2 for a delay below the estimate, 1/2^6 for one above.

So the estimate follows the shorter delays. If it were too long, the client's round-trip time would
be too short.
"""


class SendDelay:
    """Estimates the delay between making and sending an answer, from previous delays.

    Encryption takes longer than the round trip of many networks. t3 should be as close to the wire
    as possible (RFC 8762, section 4.3.1), because the client counts the delay as network time.
    """

    __slots__ = ("_delay", "_made_at")

    def __init__(self) -> None:
        self._delay = 0
        self._made_at: int | None = None

    @property
    def delay(self) -> int:
        """The estimate, in nanoseconds."""
        return self._delay

    def expect(self, now: int) -> int:
        """The estimated send time of an answer that is made now, in nanoseconds of one clock."""
        self._made_at = now
        return now + self._delay

    def record_sent(self, sent_at: int) -> None:
        """Record that the answers since the last call were sent at `sent_at`, in nanoseconds."""
        made_at, self._made_at = self._made_at, None
        if made_at is None:
            return
        delay = max(sent_at - made_at, 0)
        if self._delay:
            excess = delay - self._delay
            self._delay += min(excess >> _UP, self._delay) if excess > 0 else excess >> _DOWN
        else:
            self._delay = delay
