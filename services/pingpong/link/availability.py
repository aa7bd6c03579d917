"""Whether a target answers, and how long it did not. Pure: times are passed in."""

from __future__ import annotations

from dataclasses import dataclass


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
