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

_CALM = 1.0
"""Seconds without such a wish after which a session is replaced without waiting."""
_LASTED = 2.0
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


class Need(Enum):
    """Why a session is wanted."""

    START = "start"
    DRAIN = "drain"
    """The server asks to leave the one that is there."""
    ELSEWHERE = "elsewhere"
    """The name does not lead to the address any more."""
    SILENT = "silent"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    ENDED = "ended"

    @property
    def is_a_doubt(self) -> bool:
        """Whether an answer on the old session settles it."""
        return self in (Need.SILENT, Need.REFUSED, Need.UNANSWERED)

    @property
    def is_at_once(self) -> bool:
        """Whether it is not waited for where the session has lasted: no failure is behind it."""
        return self in (Need.DRAIN, Need.ELSEWHERE)

    @property
    def close_reason(self) -> str:
        """Why the session is closed that was replaced: one of `session.CLOSE_REASONS`."""
        return {Need.SILENT: "idle", Need.ELSEWHERE: "closed", Need.DRAIN: "drain"}.get(
            self, "error"
        )

    def replaces(self, other: Need) -> bool:
        """Whether it takes the place of another reason: what is certain does, not a doubt."""
        return self in (Need.DRAIN, Need.ENDED) or (self is Need.ELSEWHERE and other.is_a_doubt)


@dataclass(frozen=True, slots=True)
class Want:
    """A session is wanted, and why; `cause` is for people."""

    need: Need
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


class Keeper:
    """Decides when a session is to be made. Times are in seconds of one clock."""

    __slots__ = ("_attempt_at", "_backoff", "_calm_since", "_refused_since", "wanted")

    def __init__(self, backoff: Backoff, now: float) -> None:
        self.wanted: Want | None = Want(Need.START, "")
        """None while the one that stands is kept."""
        self._backoff = backoff
        self._attempt_at = now
        self._calm_since = now
        """When a session was wanted last."""
        self._refused_since: float | None = None
        """Of the attempts that were refused, one after the other, the first."""

    def pause(self, now: float) -> float | None:
        """Seconds until another attempt is to be made; None: none is wanted."""
        return None if self.wanted is None else max(self._attempt_at - now, 0.0)

    def want(self, need: Need, cause: str, now: float) -> None:
        """Have a session made, unless one is for a reason as good."""
        before = self.wanted
        if before is None:
            calm = now - self._calm_since
            if calm >= _LASTED:
                self._backoff.reset()
            if need.is_at_once and calm >= _CALM:
                self._attempt_at = now
            elif need in (Need.SILENT, Need.UNANSWERED):
                # They come after a second of silence: that keeps such attempts apart.
                self._attempt_at = now + self._backoff.first()
            else:
                self._attempt_at = now + self._backoff.next()
        elif not need.replaces(before.need):
            return
        elif need is Need.ENDED and before.need is Need.DRAIN:
            # Those that refused were the server that left: its successor may stand already.
            self._backoff.reset()
            self._attempt_at = now
        self.wanted = Want(need, cause)

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
            if failure is Failure.SILENT:
                pause = min(pause, max(_SILENT_PAUSE, _SILENT_TIME - took, backoff.shortest))
        self._attempt_at = now + pause

    def hurry(self, now: float) -> None:
        """Do not wait before the next attempt: something has changed."""
        self._attempt_at = min(self._attempt_at, now)

    def settled(self, now: float) -> None:
        """No session is wanted any more: another one was made, or the old one is kept."""
        self.wanted = None
        self._refused_since = None
        self._calm_since = now


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without an answer.

    From the arrival of the last answer before it to that of the first one after, without the time
    in which this process was stopped or held up, and without the last pause of its own in which it
    did not try to connect, where that was longer than it takes to find out.
    """

    duration_ns: int
    cause: str
    """Why the target was down, for people."""


class Availability:
    """Follows one target: it is up from an answer on until `lost` is called.

    Lost are: its session, where no other one stands; or its answers, once none came for longer
    than chance explains. An answer that came late ends an outage like any other: the path was
    dead for that long. Times are those of arrival, in nanoseconds of one clock, so that a pause
    of this process makes no outage.
    """

    __slots__ = ("_answered_at", "cause", "changed_at", "is_up")

    def __init__(self, now_ns: int) -> None:
        self.is_up = False
        self.cause = "not connected yet"
        """Why it is down; of the last time, where it is up."""
        self.changed_at = now_ns
        """When it went up or down."""
        self._answered_at: int | None = None

    @property
    def was_up(self) -> bool:
        """Whether it ever answered."""
        return self._answered_at is not None

    def answered(self, at_ns: int) -> Outage | None:
        """An answer arrived: the target is up. Returns the outage that it ends."""
        outage = self.outage(at_ns)
        self._answered_at = at_ns if self._answered_at is None else max(self._answered_at, at_ns)
        if not self.is_up:
            self.is_up = True
            self.changed_at = at_ns
        return outage

    def noted(self, at_ns: int) -> None:
        """An answer arrived, but the target is not up for that: an outage begins after it."""
        if self._answered_at is not None:
            self._answered_at = max(self._answered_at, at_ns)

    def outage(self, now_ns: int) -> Outage | None:
        """The outage until now; None where it is up, or never was."""
        if self.is_up or self._answered_at is None:
            return None
        return Outage(max(now_ns - self._answered_at, 0), self.cause)

    def exclude(self, duration_ns: int, now_ns: int) -> None:
        """For so long until now this process was stopped, or only waited: that is no outage."""
        if self._answered_at is not None:
            self._answered_at = min(self._answered_at + duration_ns, now_ns)

    def lost(self, cause: str, now_ns: int) -> bool:
        """It does not answer any more. Returns whether that is news."""
        was_up = self.is_up
        self.is_up = False
        if was_up:
            self.changed_at = now_ns
        self.cause = cause
        return was_up
