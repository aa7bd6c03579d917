"""When a session is to be made, and why; whether a target answers, and how long it did not.

Pure: times are passed in. A session is replaced before it is left wherever that is possible. Where
the server drains it, or nothing was heard of it for a while, or it is said that nothing listens
there any more, another one is made beside it, and probes go on over the old one until then. An old
one that answers after all, unless it drains, ends the attempts.
"""

from __future__ import annotations

import random as randomness
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .failures import Failure

_STABLE = 1.0
"""Seconds without such a wish after which a session is replaced without waiting."""
_RESET_BACKOFF_AFTER = 2.0
"""Seconds without such a wish after which the next failure is a first one. A server that ends each
session as soon as it is made is asked less and less often."""
_REFUSED_PAUSE = 0.15
_LONGEST_REFUSED_PAUSE = 1.0
"""Seconds between attempts where the host says that nothing listens: it is there, and what is to
listen there may be any moment. A packet each, which no server has to do with. More than the first
once a hundredth of the time that it was so is more: what is down for an hour is not back in a moment.
"""
_REFUSED_RETRY = 0.5
"""Seconds of silence after which such a host is asked again: it need not say so each time.

Hosts send a limited number of such messages, as Linux does: one a second, after a few.
"""
_SILENT_PAUSE = 0.2
_SILENT_TIME = 1.0
"""Seconds to wait after an attempt that was not answered: the first figure, or until the second has
passed since it began, at most. It was itself a packet a second: a longer pause would send hardly
less, and find out later.
"""


class ReconnectReason(Enum):
    """Why a session is pending."""

    START = "start"
    DRAIN = "drain"
    """The server asks to leave the one that is there."""
    ADDRESS_CHANGED = "elsewhere"
    """The name does not lead to the address any more."""
    UNRESPONSIVE = "unresponsive"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    ENDED = "ended"

    @property
    def is_suspicion(self) -> bool:
        """Whether an answer on the old session settles it."""
        return self in (
            ReconnectReason.UNRESPONSIVE,
            ReconnectReason.REFUSED,
            ReconnectReason.UNANSWERED,
        )

    @property
    def is_immediate(self) -> bool:
        """Whether it is not waited for where the session has lasted: no failure is behind it."""
        return self in (ReconnectReason.DRAIN, ReconnectReason.ADDRESS_CHANGED)

    @property
    def close_reason(self) -> str:
        """Why the session is closed that was replaced: one of `session.CLOSE_REASONS`."""
        return {
            ReconnectReason.UNRESPONSIVE: "idle",
            ReconnectReason.ADDRESS_CHANGED: "closed",
            ReconnectReason.DRAIN: "drain",
        }.get(self, "error")

    def replaces(self, other: ReconnectReason) -> bool:
        """Whether it takes the place of another reason: what is certain does, not a doubt."""
        return self in (ReconnectReason.DRAIN, ReconnectReason.ENDED) or (
            self is ReconnectReason.ADDRESS_CHANGED and other.is_suspicion
        )


@dataclass(frozen=True, slots=True)
class ReconnectRequest:
    """A session is pending, and why; `cause` is for people."""

    reason: ReconnectReason
    cause: str


class Backoff:
    """Times to wait between attempts, in seconds, drawn evenly from nothing to a bound.

    The bound begins at `shortest` and doubles with each attempt up to `longest`. Drawn from
    nothing on, because many clients fail at one moment, when a server goes: what spreads their
    attempts most does it best. `random` returns numbers from 0 to 1.
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
        """How long to wait now."""
        bound = self._bound
        self._bound = min(2 * bound, self.longest)
        return bound * self.random()

    def first(self) -> float:
        """How long to wait where nothing has failed yet; the next failure is what it was."""
        return self.shortest * self.random()

    def reset(self) -> None:
        """All is well: the next failure is a first one."""
        self._bound = self.shortest


class ReconnectPolicy:
    """Decides when a session is to be made. Times are in seconds of one clock."""

    __slots__ = ("_attempt_at", "_backoff", "_refused_since", "_stable_since", "pending")

    def __init__(self, backoff: Backoff, now: float) -> None:
        self.pending: ReconnectRequest | None = ReconnectRequest(ReconnectReason.START, "")
        """None while the one that stands is kept."""
        self._backoff = backoff
        self._attempt_at = now
        self._stable_since = now
        """When a session was pending last."""
        self._refused_since: float | None = None
        """Of the attempts that were refused, one after the other, the first."""

    def pause(self, now: float) -> float | None:
        """Seconds until another attempt is to be made; None: none is pending."""
        return None if self.pending is None else max(self._attempt_at - now, 0.0)

    def request(self, reason: ReconnectReason, cause: str, now: float) -> None:
        """Have a session made, unless one is for a reason as good."""
        before = self.pending
        if before is None:
            calm = now - self._stable_since
            if calm >= _RESET_BACKOFF_AFTER:
                self._backoff.reset()
            if reason.is_immediate and calm >= _STABLE:
                self._attempt_at = now
            elif reason in (ReconnectReason.UNRESPONSIVE, ReconnectReason.UNANSWERED):
                # They come after a second of silence: that keeps such attempts apart.
                self._attempt_at = now + self._backoff.first()
            else:
                self._attempt_at = now + self._backoff.next()
        elif not reason.replaces(before.reason):
            return
        elif reason is ReconnectReason.ENDED and before.reason is ReconnectReason.DRAIN:
            # Those that refused were the server that left: its successor may stand already.
            self._backoff.reset()
            self._attempt_at = now
        self.pending = ReconnectRequest(reason, cause)

    @property
    def retry_delay(self) -> float | None:
        """Seconds of silence after which an attempt tries an address anew; None: as usual."""
        return None if self._refused_since is None else _REFUSED_RETRY

    def failed(self, failure: Failure, now: float, took: float) -> None:
        """An attempt has failed; `took` is how many seconds it took."""
        backoff = self._backoff
        if failure is Failure.REFUSED:
            if self._refused_since is None:
                self._refused_since = now
            part = (now - self._refused_since) / 100
            bound = max(_REFUSED_PAUSE, min(part, _LONGEST_REFUSED_PAUSE), backoff.shortest)
            # Not from nothing on: each takes a handshake's work here.
            pause = min(bound, backoff.longest) * (1 + backoff.random()) / 2
        else:
            self._refused_since = None
            pause = backoff.next()
            if failure is Failure.NO_ANSWER:
                pause = min(pause, max(_SILENT_PAUSE, _SILENT_TIME - took, backoff.shortest))
        self._attempt_at = now + pause

    def retry_now(self, now: float) -> None:
        """Do not wait before the next attempt: something has changed."""
        self._attempt_at = min(self._attempt_at, now)

    def satisfied(self, now: float) -> None:
        """No session is pending any more: another one was made, or the old one is kept."""
        self.pending = None
        self._refused_since = None
        self._stable_since = now
