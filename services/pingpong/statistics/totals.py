"""Adds up the statistics of consecutive sessions."""

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
    """The sum of ended and open sessions.

    Each session has its own `Statistics`, since the server counts per session. Directions of
    losses are known only if the server counted in all sessions. Times are in nanoseconds of one
    clock.
    """

    def __init__(self) -> None:
        self.unconnected = 0
        """Pings that were due while there was no session; included in the send errors."""
        self._over = Summary()
        self._open: list[Statistics] = []

    @property
    def deadline(self) -> int | None:
        """When the next ping times out; None if none is waiting."""
        deadlines = [statistics.deadline for statistics in self._open]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def begin(self, statistics: Statistics) -> None:
        """Add an open session."""
        self._open.append(statistics)

    def end(self, statistics: Statistics, now: int) -> None:
        """A session ended, and its losses are final."""
        self._open.remove(statistics)
        self._over = _add(self._over, statistics.summary(now))

    def summary(self, now: int) -> Summary:
        """The summed counts, without times."""
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
    """The counts since `before`, at least zero: a late answer decreases `lost`."""
    names = [name for name in _COUNTS if name != "waiting"]
    rest: dict[str, int | None] = {}
    for name in names:
        now, then = getattr(counts, name), getattr(before, name)
        rest[name] = None if now is None else max(now - (then or 0), 0)
    rest["waiting"] = min(counts.waiting, rest["sent"] or 0)
    return dataclasses.replace(counts, **rest)  # type: ignore[arg-type]
