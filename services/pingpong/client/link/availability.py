"""Whether a target answers, and how long it did not. Pure: times are passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recovered:
    """A target answers that did not, or had not before."""

    outage_ns: int | None
    """From the last answer before to the first one after; None where there was none before."""
    cause: str
    """Why it was down."""


class Availability:
    """Follows one target: it is up from an answer on until somebody says that it was lost.

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

    def answered(self, at_ns: int) -> Recovered | None:
        """An answer arrived. Returns what to tell where it is news."""
        last = self._answered_at
        if last is None or at_ns > last:
            self._answered_at = at_ns
        if self.is_up:
            return None
        self.is_up = True
        self.changed_at = at_ns
        return Recovered(None if last is None else max(at_ns - last, 0), self.cause)

    def slept(self, duration_ns: int) -> None:
        """This process was stopped, or held up, for so long: that is nobody's outage."""
        if self._answered_at is not None:
            self._answered_at += duration_ns

    def lost(self, cause: str, now_ns: int) -> bool:
        """It does not answer any more. Returns whether that is news."""
        was_up = self.is_up
        self.is_up = False
        if was_up:
            self.changed_at = now_ns
        self.cause = cause
        return was_up
