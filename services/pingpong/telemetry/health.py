"""Health checks, and the lag of the event loop.

Liveness: the event loop and the workers make progress, so a restart would not help. Readiness: the
service can do its work now.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .failure_log import FailureLogThrottle
from .logs import get_logger
from .metrics import BucketCounts

LAG_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.5)
"""Seconds; for a histogram of the event loop's lag."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a check; `reason` is one line, also for success."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A named check. It must not block; an exception counts as a failure."""

    name: str
    run: Callable[[], Result]


class Checks:
    """A set of checks."""

    def __init__(
        self, checks: Sequence[Check], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._checks = tuple(checks)
        self._clock = clock
        self._throttle = FailureLogThrottle()
        self._log = get_logger("pingpong.health")

    def run(self) -> dict[str, Result]:
        """Run all checks. Returns their results by name; exceptions are logged as failures."""
        return {check.name: self._run(check) for check in self._checks}

    def _run(self, check: Check) -> Result:
        now = self._clock()
        try:
            result = check.run()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if failed := self._throttle.failed(check.name, text, now):
                self._log.exception("check_raised", check=check.name, count=failed.count)
            return Result(False, f"the check itself failed: {text}")
        if recovered := self._throttle.succeeded(check.name, now):
            self._log.info(
                "check_recovered",
                check=check.name,
                count=recovered.count,
                seconds=round(recovered.seconds, 1),
            )
        return result


class LoopLag:
    """Measures the lag of the event loop, in seconds.

    A timer is due every `interval`; the lag is how late it fires. Timers that a blocked loop
    missed are skipped.
    """

    def __init__(
        self,
        interval: float = 0.25,
        *,
        late: float = 1.0,
        fail_after: float = 30.0,
        window: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Times in seconds: `result` fails if all timers were `late` for `fail_after`.

        `window` is the time window of `max`.
        """
        self.counts = BucketCounts(LAG_BUCKETS)
        self._interval = interval
        self._late = late
        self._fail_after = fail_after
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late_since: float | None = None
        self._late_beats = 0
        # The maximum of each part of the window, by the number of the part.
        self._part = window / 12
        self._largest: dict[int, float] = {}

    def start(self) -> None:
        """Start to measure the running loop."""
        self._loop = asyncio.get_running_loop()
        self._due = self._clock() + self._interval
        self._schedule()

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def max(self) -> float:
        """The maximum lag in the window."""
        oldest = math.floor(self._clock() / self._part) - 12
        return max((lag for part, lag in self._largest.items() if part > oldest), default=0.0)

    def result(self) -> Result:
        """The liveness of the event loop.

        A single late timer is no failure: the process may have been stopped and continued, or the
        machine suspended. It is a failure if every timer was late for `fail_after` seconds.
        """
        now = self._clock()
        if self._late_since is not None and self._late_beats > 2:
            seconds = now - self._late_since
            if seconds >= self._fail_after:
                return Result(
                    False,
                    f"for {seconds:.0f} s the event loop has been more than"
                    f" {self._late:g} s late each time",
                )
        return Result(True, f"at most {self.max() * 1000:.0f} ms late")

    def check(self) -> Check:
        """The check `event_loop`."""
        return Check("event_loop", self.result)

    def _schedule(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(max(0.0, self._due - self._clock()), self._beat)

    def _beat(self) -> None:
        now = self._clock()
        lag = max(0.0, now - self._due)
        self.counts.observe(lag)
        part = math.floor(now / self._part)
        if lag > self._largest.get(part, -1.0):
            self._largest[part] = lag
            self._largest = {p: m for p, m in self._largest.items() if p > part - 12}
        if lag < self._late:
            self._late_since = None
            self._late_beats = 0
        else:
            if self._late_since is None:
                self._late_since = self._due
            self._late_beats += 1
        self._due += (math.floor(lag / self._interval) + 1) * self._interval
        self._schedule()
