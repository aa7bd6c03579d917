"""Whether a target answers, and how long it did not. Pure: times are passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without an answer.

    From the arrival of the last answer before it to the arrival of the first one after it. It
    excludes the time in which this process was stopped or stalled, and the last pause before an
    attempt to connect.
    """

    duration_ns: int
    cause: str
    """Why the target was down, for display."""


class Availability:
    """Tracks whether one target is up: from an answer until `lost` is called.

    A target is lost when its session ends and there is no other one, or when no answer arrives for
    too long. A late answer ends an outage too. Times are arrival times, in nanoseconds of one
    clock, so that a pause of this process is no outage.
    """

    __slots__ = ("_answered_at", "cause", "changed_at", "is_up")

    def __init__(self, now_ns: int) -> None:
        self.is_up = False
        self.cause = "not connected yet"
        """Why it is down, or was down last."""
        self.changed_at = now_ns
        """When it last went up or down."""
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
        """An answer arrived on a replaced session: the outage begins here."""
        if self._answered_at is not None:
            self._answered_at = max(self._answered_at, at_ns)

    def outage(self, now_ns: int) -> Outage | None:
        """The current outage; None if the target is up, or never was."""
        if self.is_up or self._answered_at is None:
            return None
        return Outage(max(now_ns - self._answered_at, 0), self.cause)

    def exclude(self, duration_ns: int, now_ns: int) -> None:
        """Exclude the last `duration_ns` from an outage: this process was stopped, or paused."""
        if self._answered_at is not None:
            self._answered_at = min(self._answered_at + duration_ns, now_ns)

    def lost(self, cause: str, now_ns: int) -> bool:
        """The target stopped answering. Returns whether it was up."""
        was_up = self.is_up
        self.is_up = False
        if was_up:
            self.changed_at = now_ns
        self.cause = cause
        return was_up
