from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.link.schedule import TOLERANCE, Schedule, first_slot, spread


def test_slots_are_absolute() -> None:
    schedule = Schedule(100.0, 2.0)
    assert schedule.next == 100.0
    schedule.take(100.0)
    assert schedule.next == 102.0
    schedule.take(103.9)  # late, and the next one is not
    assert schedule.next == 104.0
    assert schedule.skipped == 0


def test_missed_slots_are_skipped_and_counted() -> None:
    schedule = Schedule(0.0, 1.0)
    schedule.take(0.0)
    schedule.take(7.5)  # slots 1 to 6 are gone, this is slot 7's
    assert schedule.skipped == 6
    assert schedule.next == 8.0
    schedule.take(8.0)
    assert schedule.skipped == 6


def test_a_slot_that_is_one_interval_late_is_gone() -> None:
    schedule = Schedule(0.0, 1.0)
    schedule.take(0.999)
    assert schedule.skipped == 0
    schedule.take(2.0)
    assert schedule.skipped == 1
    assert schedule.next == 3.0


def test_close_slots_may_be_caught_up_on() -> None:
    """An event loop counts in milliseconds: not to send a thousand a second would be its fault."""
    schedule = Schedule(0.0, 0.001)
    now = TOLERANCE * 0.9
    sent = 0
    while schedule.next <= now:
        schedule.take(now)
        sent += 1
    assert (sent, schedule.skipped) == (10, 0)
    schedule.take(1.0)
    assert schedule.skipped == pytest.approx(990, abs=1)


def test_an_interval_next_to_nothing() -> None:
    schedule = Schedule(0.0, 1e-300)
    schedule.take(1.0)
    assert schedule.next > 0.99


@given(
    st.floats(0.001, 100),
    st.lists(st.floats(0, 1000), min_size=1, max_size=30),
)
def test_never_a_burst_and_every_slot_accounted_for(interval: float, delays: list[float]) -> None:
    """Whenever pings come to be sent, none has a slot that was due by more than it may be late."""
    schedule = Schedule(5.0, interval)
    now = 5.0
    allowed = max(interval, TOLERANCE)
    for taken, delay in enumerate(delays, start=1):
        now = max(now, schedule.next) + delay
        schedule.take(now)
        assert schedule.next > now - allowed - 1e-6
        assert schedule.next == pytest.approx(5.0 + (taken + schedule.skipped) * interval)


@given(st.floats(0, 1e7), st.floats(0.001, 1000), st.floats(0, 1, exclude_max=True))
def test_the_first_slot_is_the_next_at_its_place(now: float, interval: float, place: float) -> None:
    slot = first_slot(now, interval, place)
    assert now <= slot <= now + interval
    distance = (slot - place * interval) / interval
    assert distance == pytest.approx(round(distance), abs=1e-4)


def test_targets_are_spread_over_the_interval() -> None:
    """Of a hundred, no tenth of the interval has more than a fifth."""
    places = [spread(f"pod-{number}") for number in range(100)]
    tenths = [int(place * 10) for place in places]
    assert set(tenths) == set(range(10))
    assert max(tenths.count(tenth) for tenth in range(10)) <= 20
    # The same after a restart: it is no matter of this process's hash seed.
    assert spread("pod-1") == pytest.approx(0.3853, abs=0.0001)


def test_modes_of_a_target_lie_evenly_apart() -> None:
    first, *others = (spread("target", index, 4) for index in range(4))
    assert [(place - first) % 1.0 for place in others] == pytest.approx([0.25, 0.5, 0.75])
