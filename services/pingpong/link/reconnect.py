"""Decides when to open another session, and why. Pure: times are passed in.

The new session is opened before the old one is closed, if possible. If the server drains the
session, or no packets arrive for a while, or the host reports a closed port, probes continue on the
old session until the new one is open. If the old session answers again, and is not draining, the
attempts stop.
"""

from __future__ import annotations

import random as randomness
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .failures import Failure

_STABLE = 1.0
"""Seconds without a request after which a session is replaced without delay."""
_RESET_BACKOFF_AFTER = 2.0
"""Seconds without a request after which the backoff is reset. A server that closes each new
session at once is asked less and less often."""
_REFUSED_PAUSE = 0.15
_LONGEST_REFUSED_PAUSE = 1.0
"""Seconds between attempts if the host reports a closed port: the server may start at any moment,
and an attempt costs the host one packet. The pause is a hundredth of the time since the first
refusal, within these bounds.
"""
_REFUSED_RETRY = 0.5
"""Seconds without an answer after which such a host is tried again: ICMP errors are rate-limited.

Linux sends about one a second after the first few.
"""
_SILENT_PAUSE = 0.2
_SILENT_TIME = 1.0
"""The longest pause after an attempt without an answer, in seconds: the first value, or until the
second has passed since it began. The attempt itself sends about a packet a second, so a longer
pause would save little.
"""


class ReconnectReason(Enum):
    """Why another session is needed."""

    START = "start"
    DRAIN = "drain"
    """The server drains the session."""
    ADDRESS_CHANGED = "elsewhere"
    """The name no longer has the session's address."""
    UNRESPONSIVE = "unresponsive"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    ENDED = "ended"

    @property
    def is_suspicion(self) -> bool:
        """Whether an answer on the old session refutes it."""
        return self in (
            ReconnectReason.UNRESPONSIVE,
            ReconnectReason.REFUSED,
            ReconnectReason.UNANSWERED,
        )

    @property
    def is_immediate(self) -> bool:
        """Whether there is no delay if the session was stable: it is not a failure."""
        return self in (ReconnectReason.DRAIN, ReconnectReason.ADDRESS_CHANGED)

    @property
    def close_reason(self) -> str:
        """The close reason of the replaced session: one of `session.CLOSE_REASONS`."""
        return {
            ReconnectReason.UNRESPONSIVE: "idle",
            ReconnectReason.ADDRESS_CHANGED: "closed",
            ReconnectReason.DRAIN: "drain",
        }.get(self, "error")

    def replaces(self, other: ReconnectReason) -> bool:
        """Whether it replaces another reason: a certain one does, a suspicion does not."""
        return self in (ReconnectReason.DRAIN, ReconnectReason.ENDED) or (
            self is ReconnectReason.ADDRESS_CHANGED and other.is_suspicion
        )


@dataclass(frozen=True, slots=True)
class ReconnectRequest:
    """A request for another session; `cause` is a text for display."""

    reason: ReconnectReason
    cause: str


class Backoff:
    """Exponential backoff with full jitter, in seconds.

    The bound begins at `shortest` and doubles with each attempt up to `longest`. Full jitter,
    because many clients fail at the same time when a server stops. `random` returns numbers from 0
    to 1.
    """

    __slots__ = ("_bound", "longest", "random", "shortest")

    def __init__(
        self,
        shortest: float,
        longest: float,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.shortest = shortest
        self.longest = longest
        self.random = random
        self._bound = shortest

    def next(self) -> float:
        """The next pause; doubles the bound."""
        bound = self._bound
        self._bound = min(2 * bound, self.longest)
        return bound * self.random()

    def first(self) -> float:
        """A pause without a failure; leaves the bound as it is."""
        return self.shortest * self.random()

    def reset(self) -> None:
        """Reset the bound to `shortest`."""
        self._bound = self.shortest


class ReconnectPolicy:
    """Decides when to open a session. Times are in seconds of one clock."""

    __slots__ = ("_attempt_at", "_backoff", "_refused_since", "_stable_since", "pending")

    def __init__(self, backoff: Backoff, now: float) -> None:
        self.pending: ReconnectRequest | None = ReconnectRequest(ReconnectReason.START, "")
        """The current request; None if the session is good."""
        self._backoff = backoff
        self._attempt_at = now
        self._stable_since = now
        """Since when no session was needed."""
        self._refused_since: float | None = None
        """Time of the first of consecutive refused attempts."""

    def pause(self, now: float) -> float | None:
        """Seconds until the next attempt; None if no session is needed."""
        return None if self.pending is None else max(self._attempt_at - now, 0.0)

    def request(self, reason: ReconnectReason, cause: str, now: float) -> None:
        """Request a session, unless the current request has a stronger reason."""
        before = self.pending
        if before is None:
            calm = now - self._stable_since
            if calm >= _RESET_BACKOFF_AFTER:
                self._backoff.reset()
            if reason.is_immediate and calm >= _STABLE:
                self._attempt_at = now
            elif reason in (ReconnectReason.UNRESPONSIVE, ReconnectReason.UNANSWERED):
                # These come after a second without packets, which spaces the attempts.
                self._attempt_at = now + self._backoff.first()
            else:
                self._attempt_at = now + self._backoff.next()
        elif not reason.replaces(before.reason):
            return
        elif reason is ReconnectReason.ENDED and before.reason is ReconnectReason.DRAIN:
            # The failed attempts went to the server that stopped. Its successor may be ready.
            self._backoff.reset()
            self._attempt_at = now
        self.pending = ReconnectRequest(reason, cause)

    @property
    def retry_delay(self) -> float | None:
        """Seconds without an answer before an attempt retries an address; None: the default."""
        return None if self._refused_since is None else _REFUSED_RETRY

    def failed(self, failure: Failure, now: float, took: float) -> None:
        """An attempt failed; `took` is its duration in seconds."""
        backoff = self._backoff
        if failure is Failure.REFUSED:
            if self._refused_since is None:
                self._refused_since = now
            part = (now - self._refused_since) / 100
            bound = max(_REFUSED_PAUSE, min(part, _LONGEST_REFUSED_PAUSE), backoff.shortest)
            # Not full jitter: each attempt costs a handshake here.
            pause = min(bound, backoff.longest) * (1 + backoff.random()) / 2
        else:
            self._refused_since = None
            pause = backoff.next()
            if failure is Failure.NO_ANSWER:
                pause = min(pause, max(_SILENT_PAUSE, _SILENT_TIME - took, backoff.shortest))
        self._attempt_at = now + pause

    def retry_now(self, now: float) -> None:
        """Make the next attempt now: something has changed."""
        self._attempt_at = min(self._attempt_at, now)

    def satisfied(self, now: float) -> None:
        """No session is needed: another one was opened, or the old one is good."""
        self.pending = None
        self._refused_since = None
        self._stable_since = now
