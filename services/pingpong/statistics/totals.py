"""What became of the pings of several sessions, one after the other, as if they were one."""

from __future__ import annotations

import dataclasses

from .records import Summary
from .statistics import Statistics

_COUNTS = [
    field.name
    for field in dataclasses.fields(Summary)
    if field.name not in ("elapsed_ns", "rtt", "server")
]


class Totals:
    """Sums up sessions: those that are over, and those that are open.

    Each session has `Statistics` of its own, since the server counts anew in each; a direction of
    loss is known only where every session's server counted. Times are nanoseconds of one clock.
    """

    def __init__(self) -> None:
        self.unconnected = 0
        """Pings whose time came while there was no session; among the send errors."""
        self._over = Summary()
        self._open: list[Statistics] = []

    @property
    def deadline(self) -> int | None:
        """When a ping's timeout passes next; None while no answer is waited for."""
        deadlines = [statistics.deadline for statistics in self._open]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def begin(self, statistics: Statistics) -> None:
        """A session begins."""
        self._open.append(statistics)

    def end(self, statistics: Statistics, now: int) -> None:
        """A session is over: its probes are given up by now."""
        self._open.remove(statistics)
        self._over = _add(self._over, statistics.summary(now))

    def summary(self, now: int) -> Summary:
        """Sum up, without times; how long it all took, the caller knows."""
        counts = self._over
        for statistics in self._open:
            counts = _add(counts, statistics.summary(now))
        return dataclasses.replace(counts, send_errors=counts.send_errors + self.unconnected)


def _add(first: Summary, second: Summary) -> Summary:
    sums: dict[str, int | None] = {}
    for name in _COUNTS:
        one, other = getattr(first, name), getattr(second, name)
        sums[name] = None if one is None or other is None else one + other
    if sums["lost_out"] is None:
        sums["lost_unknown"] = sums["lost"]
    return dataclasses.replace(first, **sums)  # type: ignore[arg-type]


def minus(counts: Summary, before: Summary) -> Summary:
    """What was counted since then; nothing goes below zero, as a late answer may take back."""
    names = [name for name in _COUNTS if name != "waiting"]
    rest: dict[str, int | None] = {}
    for name in names:
        now, then = getattr(counts, name), getattr(before, name)
        rest[name] = None if now is None else max(now - (then or 0), 0)
    rest["waiting"] = min(counts.waiting, rest["sent"] or 0)
    return dataclasses.replace(counts, **rest)  # type: ignore[arg-type]
