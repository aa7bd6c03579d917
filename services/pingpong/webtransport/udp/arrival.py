"""When a packet arrived: the kernel's wall clock turned into the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable


class ArrivalClock:
    """Turns the kernel's arrival times, CLOCK_REALTIME, into times of the monotonic clock.

    The two clocks are slewed together, so their difference changes only when the wall clock is
    stepped. A step that is seen between two batches leaves two differences that may apply; of the
    two resulting times the later one that isn't in the future is right, whichever way the step
    went. A time that can't be is replaced by the time of reading. All times are nanoseconds.
    """

    TOLERANCE = 10_000  # between two readings of one difference
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
        """Note and return the time of a batch, after its last packet has been read.

        `drained` says whether the socket's queue was found empty: then nothing from before a step
        can be in the next batch.
        """
        if self._drained:
            self._old_offset = self._offset
        self._drained = drained
        self._now = now = self._monotonic()
        # The second reading is the later, so an offset is never measured too small.
        if not 0 <= self._realtime() - now - self._offset <= self.TOLERANCE:
            self._adjust()
        return now

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
            # Not a step: either this reading or the one kept was interrupted between its halves.
            offset = min(offset, self._offset)
            if self._old_offset == self._offset:
                self._old_offset = offset
        self._offset = offset

    def _measure(self) -> int:
        return min(-self._monotonic() + self._realtime() for _ in range(8))
