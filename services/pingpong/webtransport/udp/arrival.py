"""Arrival times of packets: converts the kernel's wall clock to the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable


class ArrivalClock:
    """Converts the kernel's receive timestamps (CLOCK_REALTIME) to the monotonic clock.

    The two clocks are slewed together, so their difference changes only when the wall clock is
    stepped. After a step between two batches, the old or the new difference may apply to a packet;
    the later of the two resulting times that is not in the future is correct. An impossible time
    is replaced by the time of reading. All times are in nanoseconds.
    """

    TOLERANCE = 10_000  # between two measurements of the same difference
    MAX_WAIT = 60_000_000_000  # in the socket's queue

    def __init__(
        self,
        monotonic: Callable[[], int] = time.monotonic_ns,
        realtime: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic = monotonic
        self._realtime = realtime
        self._now = monotonic()
        self._offset = self._old_offset = self._measure()
        self._drained = False

    def read(self, drained: bool) -> int:
        """Read the clock after the last packet of a batch, and return the time.

        `drained` says whether the socket's queue was empty: then the next batch has no packets
        from before a step.
        """
        if self._drained:
            self._old_offset = self._offset
        self._drained = drained
        self._now = now = self._monotonic()
        # The wall clock is read second, so the measured difference is never too small.
        if not 0 <= self._realtime() - now - self._offset <= self.TOLERANCE:
            self._adjust()
        return now

    @property
    def is_settled(self) -> bool:
        """Whether no packet can be from before a step of the wall clock."""
        return self._old_offset == self._offset

    def to_monotonic(self, stamp: int) -> int:
        """When a packet of this batch arrived, from the kernel's `stamp`."""
        now = self._now
        arrival = stamp - self._offset
        if self._old_offset != self._offset:
            other = stamp - self._old_offset
            if arrival > now or arrival < other <= now:
                arrival = other
        return arrival if now - self.MAX_WAIT <= arrival <= now else now

    def _adjust(self) -> None:
        offset = self._measure()
        if abs(offset - self._offset) <= self.TOLERANCE:
            # Not a step: this process was interrupted between the two readings of a measurement.
            offset = min(offset, self._offset)
            if self._old_offset == self._offset:
                self._old_offset = offset
        self._offset = offset

    def _measure(self) -> int:
        return min(-self._monotonic() + self._realtime() for _ in range(8))
