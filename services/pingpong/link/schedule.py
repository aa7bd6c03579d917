"""When probes are sent: at absolute times, or as fast as answers come. Pure: times are passed in."""

from __future__ import annotations

import zlib
from typing import TypeAlias

TOLERANCE = 0.01
"""Seconds that a probe may be late for its slot, where slots are closer together than that."""
FLOOD_WAIT = 0.01
"""Seconds after which a flood goes on without an answer, as ping(8) has it."""
FLOOD_RATE = 1000
"""Probes a second that a flood has at most: what a server takes by default."""

_SHORTEST = 1e-6
_FLOOD_BURST = 0.02
"""Seconds that a flood may catch up on: the loop's timers are no finer than a millisecond."""


class Schedule:
    """Slots at `start`, `start + interval`, `start + 2 * interval` and so on, in seconds.

    A slot that could not be kept (the event loop was blocked, the process stopped) is skipped and
    counted: to send those probes later, together, would measure the burst and not the network, and
    to leave them out unseen would hide that nothing was measured meanwhile.
    """

    __slots__ = ("_interval", "_slot", "_start", "skipped")

    def __init__(self, start: float, interval: float) -> None:
        self.skipped = 0
        """Slots that passed without a probe."""
        self._start = start
        self._interval = max(interval, _SHORTEST)
        self._slot = 0

    @property
    def next(self) -> float:
        """When the next probe is to be sent."""
        return self._start + self._slot * self._interval

    def take(self, now: float) -> None:
        """A probe is sent at `now`: in the latest slot whose time has come."""
        late = now - self.next
        if late >= max(self._interval, TOLERANCE):
            missed = int(late / self._interval)
            self.skipped += missed
            self._slot += missed
        self._slot += 1

    def answered(self, now: float) -> bool:
        """Returns False: slots do not move."""
        return False


class Flood:
    """A probe as soon as the one before is answered, or after 10 ms; 1000 a second at most."""

    skipped = 0
    """There are no slots to skip."""

    def __init__(self, start: float) -> None:
        self.next = start
        """When the next probe is to be sent."""
        self._allowed = start
        """Before which nothing is sent, or the rate would be too high."""

    def take(self, now: float) -> None:
        """A probe is sent at `now`."""
        self._allowed = max(self._allowed, now - _FLOOD_BURST) + 1 / FLOOD_RATE
        self.next = max(self._allowed, now + FLOOD_WAIT)

    def answered(self, now: float) -> bool:
        """Move the next probe to now, as far as the rate allows. Returns whether it moved."""
        sooner = max(self._allowed, now)
        if sooner >= self.next:
            return False
        self.next = sooner
        return True


Pace: TypeAlias = Schedule | Flood
"""When to send. Times are in seconds of one clock."""


def spread(key: str, index: int = 0, count: int = 1) -> float:
    """Where in an interval the slots of a target lie, from 0 up to 1: so that not all fire at once.

    The same for a name at any time; `count` modes of one target lie evenly apart.
    """
    return (zlib.crc32(key.encode()) / 2**32 + index / count) % 1.0


def first_slot(now: float, interval: float, place: float) -> float:
    """When the first slot after `now` is, of those that lie at `place` of every interval."""
    return now + (place * interval - now) % interval
