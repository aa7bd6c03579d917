from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pingpong.link.schedule import FLOOD_RATE, FLOOD_WAIT, Flood


def test_it_goes_on_with_the_answer() -> None:
    flood = Flood(10.0)
    assert flood.next == 10.0
    flood.take(10.0)
    assert flood.next == 10.0 + FLOOD_WAIT
    assert flood.answered(10.004)
    assert flood.next == 10.004
    # One more answer, to an earlier probe, changes nothing.
    assert not flood.answered(10.004)


def test_it_goes_on_without_an_answer() -> None:
    flood = Flood(0.0)
    times = []
    for _ in range(4):
        times.append(flood.next)
        flood.take(flood.next)
    assert times == [0.0, FLOOD_WAIT, 2 * FLOOD_WAIT, 3 * FLOOD_WAIT]
    assert flood.skipped == 0


@given(st.lists(st.floats(0, 0.1), min_size=100, max_size=300))
def test_it_has_a_bound(answers: list[float]) -> None:
    """However soon answers come: some may be caught up on, no more."""
    flood = Flood(0.0)
    now, times = 0.0, []
    for seconds in answers:
        now = max(now, flood.next)
        times.append(now)
        flood.take(now)
        now += seconds
        flood.answered(now)
    for first, sent in enumerate(times):
        for last in range(first, len(times), 50):
            assert last - first <= (times[last] - sent) * FLOOD_RATE + 21
