from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pingpong.link import Backoff


def drawn(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next() for _ in range(count)]


def test_bounds_double_up_to_the_longest() -> None:
    assert drawn(Backoff(0.1, 1.0, lambda: 1.0), 6) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_times_are_drawn_from_nothing_on() -> None:
    assert drawn(Backoff(0.1, 1.0, lambda: 0.0), 3) == [0, 0, 0]
    assert drawn(Backoff(0.1, 1.0, lambda: 0.5), 3) == [0.05, 0.1, 0.2]


def test_all_is_well_again() -> None:
    backoff = Backoff(0.1, 1.0, lambda: 1.0)
    drawn(backoff, 5)
    backoff.reset()
    assert drawn(backoff, 2) == [0.1, 0.2]


@given(st.floats(1e-3, 10), st.floats(1, 100), st.lists(st.floats(0, 1), max_size=2000))
def test_never_above_the_longest(shortest: float, factor: float, numbers: list[float]) -> None:
    left = iter(numbers)
    backoff = Backoff(shortest, shortest * factor, lambda: next(left))
    assert all(0 <= wait <= shortest * factor for wait in drawn(backoff, len(numbers)))


def test_the_default_jitter_is_random() -> None:
    assert len(set(drawn(Backoff(1, 1), 20))) > 1
