from __future__ import annotations

import weakref

from hypothesis import given
from hypothesis import strategies as st

from pingpong.telemetry.failure_log import Failed, FailureLogThrottle, Recovered


def test_the_first_failure_is_reported() -> None:
    assert FailureLogThrottle().failed("a", "timeout", 100.0) == Failed(1, 0.0)


def test_the_same_again_is_reported_a_minute_later_with_a_count() -> None:
    repeats = FailureLogThrottle()
    repeats.failed("a", "timeout", 0)
    told = [(now, repeats.failed("a", "timeout", now)) for now in range(1, 125)]
    assert [(now, failed) for now, failed in told if failed] == [
        (60, Failed(60, 60)),
        (120, Failed(60, 120)),
    ]


def test_another_cause_is_reported_at_once() -> None:
    repeats = FailureLogThrottle()
    repeats.failed("a", "timeout", 0)
    repeats.failed("a", "timeout", 1)
    assert repeats.failed("a", "refused", 2) == Failed(1, 2)


def test_causes_that_take_turns_are_each_reported_once_a_minute() -> None:
    repeats = FailureLogThrottle()
    told = [
        (now, cause)
        for now in range(61)
        if repeats.failed("a", cause := ("timeout", "refused")[now % 2], now)
    ]
    assert told == [(0, "timeout"), (1, "refused"), (60, "timeout")]


def test_keys_know_nothing_of_each_other() -> None:
    repeats = FailureLogThrottle()
    repeats.failed("a", "timeout", 0)
    assert repeats.failed("b", "timeout", 1) == Failed(1, 0)
    assert repeats.succeeded("b", 2) == Recovered(1, 1)
    assert repeats.failed("a", "timeout", 3) is None


def test_its_end_is_reported_once_with_how_many_and_how_long() -> None:
    repeats = FailureLogThrottle()
    for now in range(5):
        repeats.failed("a", "timeout", now)
    assert repeats.succeeded("a", 7) == Recovered(5, 7)
    assert repeats.succeeded("a", 8) is None


def test_a_success_without_a_failure_is_nothing() -> None:
    assert FailureLogThrottle().succeeded("a", 0) is None


def test_what_fails_and_succeeds_in_turns_does_not_fill_the_log() -> None:
    repeats = FailureLogThrottle()
    lines: list[Failed | Recovered] = []
    for now in range(0, 120, 2):
        lines += filter(None, [repeats.failed("a", "timeout", now)])
        lines += filter(None, [repeats.succeeded("a", now + 1)])
    assert lines == [
        *(Failed(1, 0), Recovered(1, 1)),
        *(Failed(30, 0), Recovered(1, 1)),
    ]


def test_a_failure_long_after_is_reported_again() -> None:
    repeats = FailureLogThrottle()
    repeats.failed("a", "timeout", 0)
    repeats.succeeded("a", 1)
    assert repeats.failed("a", "timeout", 60) == Failed(1, 0)


def test_forgotten_it_is_new() -> None:
    repeats = FailureLogThrottle()
    repeats.failed("a", "timeout", 0)
    repeats.forget("a")
    repeats.forget("b")
    assert repeats.succeeded("a", 1) is None
    assert repeats.failed("a", "timeout", 2) == Failed(1, 0)


def test_causes_without_number_take_no_memory_without_bound() -> None:
    repeats = FailureLogThrottle()
    for now in range(1000):
        repeats.failed("a", f"cause {now}", now)
    # Of those of the last minute the oldest are forgotten.
    assert repeats.failed("a", "cause 984", 1000) is None
    assert repeats.failed("a", "cause 983", 1000) is not None


def test_a_key_that_is_well_takes_no_memory() -> None:
    class Key:
        pass

    repeats = FailureLogThrottle()
    key = Key()
    known = weakref.ref(key)
    repeats.failed(key, "timeout", 0)
    repeats.succeeded(key, 1)
    repeats.succeeded(key, 61)
    del key
    assert known() is None


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(["timeout", "refused", None])), max_size=100
    )
)
def test_no_cause_is_reported_twice_in_a_minute_and_none_is_left_out(
    steps: list[tuple[int, str | None]],
) -> None:
    repeats = FailureLogThrottle()
    now = 0
    last: dict[str, int] = {}
    for gap, cause in steps:
        now += gap
        if cause is None:
            repeats.succeeded("a", now)
            continue
        due = cause not in last or now - last[cause] >= 60
        assert (repeats.failed("a", cause, now) is not None) == due
        if due:
            last[cause] = now
