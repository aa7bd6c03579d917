"""The last pings of a target, for a graph with one character each."""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

from ....ping import Mode
from ....statistics import Answer, AnswerStatus
from ..observer import Display

CAPACITY = 512
"""Pings that are remembered: wider than any terminal."""

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-:=+*#"
_SPAN = 4.0
"""The minimum ratio of the highest to the lowest bar, so that small jitter looks small."""


class Mark(Enum):
    """The status of a ping."""

    WAITING = "waiting"
    ANSWERED = "answered"
    LATE = "late"
    LOST = "lost"
    NOT_SENT = "not sent"


class Cell(NamedTuple):
    """A ping."""

    mark: Mark
    rtt_ns: int = 0
    """Round-trip time, if it was answered."""


_WAITING = Cell(Mark.WAITING)
_LOST = Cell(Mark.LOST)
_NOT_SENT = Cell(Mark.NOT_SENT)


class History(Display):
    """The results of the last pings, which are numbered without gaps."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.last_rtt_ns: int | None = None
        """Round-trip time of the last answer."""
        self._cells = [_NOT_SENT] * capacity
        self._last = 0
        """The highest ping number so far."""
        self._before = 0
        """Pings up to this number are forgotten."""

    def last(self, count: int) -> list[Cell]:
        """The last pings, at most `count`, the oldest first."""
        size = len(self._cells)
        first = max(self._last - min(count, size), self._before) + 1
        return [self._cells[seq % size] for seq in range(first, self._last + 1)]

    def forget(self) -> None:
        """Clear the history."""
        self._before = self._last
        self.last_rtt_ns = None

    def sent(self, seq: int, mode: Mode) -> None:
        """Mark it as waiting."""
        self._put(seq, _WAITING)

    def not_sent(self, seq: int, mode: Mode, reason: str) -> None:
        """Mark it as not sent."""
        self._put(seq, _NOT_SENT)

    def unconnected(self, seq: int, mode: Mode) -> None:
        """Mark it as not sent."""
        self._put(seq, _NOT_SENT)

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """Mark it as answered. Duplicates are ignored."""
        if answer.rtt_ns is None or answer.status is AnswerStatus.DUPLICATE:
            return
        self.last_rtt_ns = answer.rtt_ns
        is_late = answer.status is AnswerStatus.LATE
        self._put(answer.seq, Cell(Mark.LATE if is_late else Mark.ANSWERED, answer.rtt_ns))

    def unanswered(self, seq: int, *, final: bool) -> None:
        """Mark it as lost. It may still be answered late."""
        self._put(seq, _LOST)

    def _put(self, seq: int, cell: Cell) -> None:
        self._last = max(self._last, seq)
        if seq > self._last - len(self._cells):
            self._cells[seq % len(self._cells)] = cell


def levels(cells: list[Cell], steps: int) -> list[int]:
    """The height of each answered cell's bar, from 0 to `steps` - 1; 0 for the others.

    The scale is logarithmic, from the first quartile to the maximum, or to four times the
    quartile: it shows both jitter and outliers.
    """
    times = sorted(cell.rtt_ns for cell in cells if cell.rtt_ns > 0)
    if not times:
        return [0] * len(cells)
    low = times[len(times) // 4]
    span = math.log(max(times[-1] / low, _SPAN))
    top = steps - 1
    return [
        round(math.log(cell.rtt_ns / low) / span * top) if cell.rtt_ns > low else 0
        for cell in cells
    ]
