"""How long an answer takes from its making to its sending: what a pong's t3 adds to now."""

from __future__ import annotations

_DOWN, _UP = 2, 6
"""A delay below the estimate counts for 1/2^2 of the next one, a delay above for 1/2^6.

So the estimate stays among the shorter delays: an estimate that is too long would be missing from
the network's time.
"""


class SendDelay:
    """Estimates the delay from an answer's making to its sending, from the delays before.

    In between an answer is encrypted, which takes longer than many networks. t3 should be as near
    to the wire as possible (RFC 8762, section 4.3.1), or the client counts the delay as the
    network's.
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
        """When an answer that is made now will leave, both in nanoseconds of one clock."""
        self._made_at = now
        return now + self._delay

    def left(self, sent_at: int) -> None:
        """The answers that were made since the last call left at `sent_at`, in nanoseconds."""
        made_at, self._made_at = self._made_at, None
        if made_at is None:
            return
        delay = max(sent_at - made_at, 0)
        if self._delay:
            excess = delay - self._delay
            self._delay += min(excess >> _UP, self._delay) if excess > 0 else excess >> _DOWN
        else:
            self._delay = delay
