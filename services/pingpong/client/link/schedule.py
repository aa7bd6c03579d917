"""When pings are sent: at absolute times, whatever becomes of the answers, and never in a burst."""

from __future__ import annotations

import zlib

TOLERANCE = 0.01
"""Seconds that a ping may be late for its slot, where slots are closer together than that."""

_SHORTEST = 1e-6


class Schedule:
    """Slots at `start`, `start + interval`, `start + 2 * interval` and so on, in seconds.

    A slot that could not be kept (the event loop was blocked, the process stopped) is skipped and
    counted: to send those pings later, together, would measure the burst and not the network, and
    to leave them out unseen would hide that nothing was measured meanwhile.
    """

    __slots__ = ("_interval", "_slot", "_start", "skipped")

    def __init__(self, start: float, interval: float) -> None:
        self.skipped = 0
        """Slots that passed without a ping."""
        self._start = start
        self._interval = max(interval, _SHORTEST)
        self._slot = 0

    @property
    def next(self) -> float:
        """When the next ping is to be sent."""
        return self._start + self._slot * self._interval

    def take(self, now: float) -> None:
        """A ping is sent at `now`: in the latest slot whose time has come."""
        late = now - self.next
        if late >= max(self._interval, TOLERANCE):
            missed = int(late / self._interval)
            self.skipped += missed
            self._slot += missed
        self._slot += 1


def spread(key: str, index: int = 0, count: int = 1) -> float:
    """Where in an interval the slots of a target lie, from 0 up to 1: so that not all fire at once.

    The same for a name at any time; `count` modes of one target lie evenly apart.
    """
    return (zlib.crc32(key.encode()) / 2**32 + index / count) % 1.0


def first_slot(now: float, interval: float, place: float) -> float:
    """When the first slot after `now` is, of those that lie at `place` of every interval."""
    return now + (place * interval - now) % interval
