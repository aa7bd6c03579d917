from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.udp.arrival import ArrivalClock


class Clocks:
    """A machine's two clocks: 1 µs passes at every reading."""

    def __init__(self) -> None:
        self.time = 10**12
        self.wall = 17 * 10**17

    def monotonic(self) -> int:
        self.time += 1_000
        return self.time

    def realtime(self) -> int:
        return self.monotonic() + self.wall

    def stamp(self) -> tuple[int, int]:
        """A packet arrives: the kernel's stamp and the truth."""
        self.time += 1_000
        return self.time + self.wall, self.time


STEPS = st.sampled_from([-(10**18), -(10**10), -(10**8), 0, 10**8, 10**10, 10**17])


def test_an_arrival_is_exact_to_the_reading_of_the_clocks() -> None:
    clocks = Clocks()
    clock = ArrivalClock(clocks.monotonic, clocks.realtime)
    stamp, arrived = clocks.stamp()
    clocks.time += 50_000_000
    now = clock.read(drained=True)
    assert now > arrived + 50_000_000
    assert abs(clock.to_monotonic(stamp) - arrived) <= clock.TOLERANCE


@given(st.lists(st.tuples(STEPS, st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=20))
def test_steps_of_the_wall_clock_leave_arrivals_right(
    turns: list[tuple[int, int, int, bool]],
) -> None:
    clocks = Clocks()
    clock = ArrivalClock(clocks.monotonic, clocks.realtime)
    for step, before, after, idle in turns:
        clocks.time += 3_600 * 10**9 if idle else 0
        packets = [clocks.stamp() for _ in range(before)]
        clocks.wall += step
        packets += [clocks.stamp() for _ in range(after)]
        now = clock.read(drained=True)
        for stamp, arrived in packets:
            assert abs(clock.to_monotonic(stamp) - arrived) <= clock.TOLERANCE
            assert clock.to_monotonic(stamp) <= now


def test_packets_from_before_a_step_that_are_read_in_a_later_batch() -> None:
    clocks = Clocks()
    clock = ArrivalClock(clocks.monotonic, clocks.realtime)
    stamp, arrived = clocks.stamp()
    clocks.wall += 3_600 * 10**9
    clock.read(drained=False)
    clocks.time += 5_000_000
    clock.read(drained=True)
    assert abs(clock.to_monotonic(stamp) - arrived) <= clock.TOLERANCE


def test_an_interruption_between_the_two_readings_is_no_step() -> None:
    clocks = Clocks()
    interrupted = False

    def realtime() -> int:
        nonlocal interrupted
        if interrupted:
            clocks.time += 80_000_000
            interrupted = False
        return clocks.realtime()

    clock = ArrivalClock(clocks.monotonic, realtime)
    for _ in range(3):
        stamp, arrived = clocks.stamp()
        interrupted = True
        clock.read(drained=True)
        assert abs(clock.to_monotonic(stamp) - arrived) <= clock.TOLERANCE


@pytest.mark.parametrize("stamp", [0, 1, 4 * 10**18])
def test_an_absurd_stamp_becomes_the_time_of_reading(stamp: int) -> None:
    clocks = Clocks()
    clock = ArrivalClock(clocks.monotonic, clocks.realtime)
    now = clock.read(drained=True)
    assert clock.to_monotonic(stamp) == now
