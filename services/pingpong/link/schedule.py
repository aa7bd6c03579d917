"""When to send probes: at absolute times, or as answers arrive. Pure: times are passed in."""

from __future__ import annotations

import zlib
from typing import TypeAlias

TOLERANCE = 0.01
"""Seconds that a probe may be late for its slot, if the interval is shorter than that."""
FLOOD_WAIT = 0.01
"""Seconds after which a flood sends the next probe without an answer, as in ping(8)."""
FLOOD_RATE = 1000
"""Maximum probes a second of a flood: the server's default rate limit."""

_SHORTEST = 1e-6
_FLOOD_BURST = 0.02
"""Seconds that a flood may catch up: timers have a resolution of a millisecond."""


class Schedule:
    """Slots at `start`, `start + interval`, `start + 2 * interval` and so on, in seconds.

    A slot that is missed (the event loop was blocked, the process stopped) is skipped and counted.
    Sending the missed probes later in a burst would measure the burst, not the network; not
    counting them would hide that nothing was measured.
    """

    __slots__ = ("_interval", "_slot", "_start", "skipped")

    def __init__(self, start: float, interval: float) -> None:
        self.skipped = 0
        """Missed slots."""
        self._start = start
        self._interval = max(interval, _SHORTEST)
        self._slot = 0

    @property
    def next(self) -> float:
        """When to send the next probe."""
        return self._start + self._slot * self._interval

    def take(self, now: float) -> None:
        """A probe is sent at `now`, in the latest slot that is due."""
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
    """Sends a probe when the last one is answered, or after 10 ms; at most 1000 a second."""

    skipped = 0
    """There are no slots to skip."""

    def __init__(self, start: float) -> None:
        self.next = start
        """When to send the next probe."""
        self._allowed = start
        """The earliest time that the rate limit allows."""

    def take(self, now: float) -> None:
        """A probe is sent at `now`."""
        self._allowed = max(self._allowed, now - _FLOOD_BURST) + 1 / FLOOD_RATE
        self.next = max(self._allowed, now + FLOOD_WAIT)

    def answered(self, now: float) -> bool:
        """Send the next probe now, if the rate limit allows. Returns whether its time changed."""
        sooner = max(self._allowed, now)
        if sooner >= self.next:
            return False
        self.next = sooner
        return True


Pace: TypeAlias = Schedule | Flood
"""When to send. Times are in seconds of one clock."""


def spread(key: str, index: int = 0, count: int = 1) -> float:
    """The phase of a target's slots in the interval, from 0 to 1, so that targets do not coincide.

    It is a hash of `key`. The phases of `count` modes are evenly spaced.
    """
    return (zlib.crc32(key.encode()) / 2**32 + index / count) % 1.0


def first_slot(now: float, interval: float, place: float) -> float:
    """The first slot after `now` with the phase `place` in the interval."""
    return now + (place * interval - now) % interval
