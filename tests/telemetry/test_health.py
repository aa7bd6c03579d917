from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from pingpong.telemetry.health import Check, Checks, LoopLag, Result


class Clock:
    """Stands still until it is moved; timers of an event loop are called by moving it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = (self.now + delay, callback)
        self.due.append(timer)
        return Timer(self, timer)

    def advance(self, seconds: float) -> None:
        """Let time pass, the loop being idle."""
        end = self.now + seconds
        while self.due and self.due[0][0] <= end:
            when, callback = self.due.pop(0)
            self.now = max(self.now, when)
            callback()
        self.now = end

    def block(self, seconds: float) -> None:
        """Let time pass, the loop being busy; what is due then is called after it."""
        self.now += seconds
        self.advance(0)


class Timer:
    def __init__(self, clock: Clock, timer: tuple[float, Callable[[], None]]) -> None:
        self.clock = clock
        self.timer = timer

    def cancel(self) -> None:
        if self.timer in self.clock.due:
            self.clock.due.remove(self.timer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


@pytest.fixture
def lag(clock: Clock) -> LoopLag:
    lag = LoopLag(0.25, late=1.0, fail_after=30.0, window=60.0, clock=clock)
    lag.start()
    return lag


def test_an_idle_loop_has_no_lag(clock: Clock, lag: LoopLag) -> None:
    clock.advance(10)
    assert lag.counts.count == 40
    assert lag.max() == 0
    assert lag.result() == Result(True, "at most 0 ms late")


def test_a_blocked_loop_is_late_by_what_is_left_of_the_block(clock: Clock, lag: LoopLag) -> None:
    clock.advance(1.0)
    clock.block(0.55)
    assert lag.max() == pytest.approx(0.3)
    assert lag.counts.sum == pytest.approx(0.3)
    assert lag.result() == Result(True, "at most 300 ms late")


def test_beats_that_were_missed_are_not_made_up_for_and_the_raster_stays(
    clock: Clock, lag: LoopLag
) -> None:
    clock.block(10.1)
    assert lag.counts.count == 1
    clock.advance(0.149)
    assert lag.counts.count == 1
    clock.advance(0.002)
    assert lag.counts.count == 2
    assert lag.counts.sum == pytest.approx(9.85)


def test_the_largest_lag_is_forgotten_after_the_window(clock: Clock, lag: LoopLag) -> None:
    clock.block(0.5)
    clock.advance(54)
    assert lag.max() == pytest.approx(0.25)
    clock.advance(7)
    assert lag.max() == 0


def test_a_smaller_lag_does_not_hide_a_larger_one(clock: Clock, lag: LoopLag) -> None:
    for block in (0.5, 0.75, 0.5):
        clock.block(block)
        clock.advance(0.25)
    assert lag.max() == pytest.approx(0.5)


def test_a_process_that_was_stopped_for_long_is_well_when_it_goes_on(
    clock: Clock, lag: LoopLag
) -> None:
    clock.advance(1)
    clock.block(3600)
    assert lag.result().ok
    clock.advance(1)
    assert lag.result().ok


def test_a_loop_that_is_late_each_time_is_ill_after_a_while(clock: Clock, lag: LoopLag) -> None:
    for _ in range(10):
        clock.block(2.5)
    assert lag.result().ok
    for _ in range(3):
        clock.block(2.5)
    assert lag.check().name == "event_loop"
    result = lag.check().run()
    assert not result.ok
    assert result.reason == ("for 32 s the event loop has been more than 1 s late each time")
    clock.advance(0.25)
    assert lag.result().ok, "one beat in time, and it is well"


def test_closed_it_measures_nothing(clock: Clock, lag: LoopLag) -> None:
    lag.close()
    clock.advance(10)
    assert lag.counts.count == 0
    lag.close()


async def test_on_a_real_loop_it_beats() -> None:
    lag = LoopLag(0.001)
    lag.start()
    while lag.counts.count < 3:
        await asyncio.sleep(0)
    lag.close()
    assert 0 <= lag.max() < 60


def broken() -> Result:
    raise LookupError("password=hunter22")


def test_checks_are_run_each_time() -> None:
    results = iter([Result(True, "fine"), Result(False, "not fine")])
    checks = Checks([Check("one", lambda: next(results)), Check("two", lambda: Result(True))])
    assert checks.run() == {"one": Result(True, "fine"), "two": Result(True)}
    assert checks.run() == {"one": Result(False, "not fine"), "two": Result(True)}


def test_a_check_that_raises_has_failed() -> None:
    checks = Checks([Check("one", broken), Check("two", lambda: Result(True))])
    results = checks.run()
    assert results["two"].ok
    assert results["one"] == Result(
        False, "the check itself failed: LookupError: password=hunter22"
    )


def test_a_check_that_raises_is_logged_once_a_minute_and_when_it_works_again(
    capsys: pytest.CaptureFixture[str], logs: Callable[[], list[dict[str, Any]]]
) -> None:
    clock = Clock()
    answers: list[Callable[[], Result]] = [broken] * 61 + [lambda: Result(True)] * 2
    checks = Checks([Check("one", lambda: answers.pop(0)())], clock)
    while answers:
        checks.run()
        clock.now += 1
    first, again, recovered = logs()
    assert (first["event"], first["check"], first["count"]) == ("check_raised", "one", 1)
    assert "LookupError" in first["exception"]
    assert (again["event"], again["count"]) == ("check_raised", 60)
    assert (recovered["event"], recovered["count"]) == ("check_recovered", 61)
    assert recovered["seconds"] == 61
    assert "hunter22" not in json.dumps([first, again, recovered])
