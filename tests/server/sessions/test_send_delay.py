from __future__ import annotations

import pytest

from pingpong.server.sessions.send_delay import SendDelay


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000

    def answer(self, one: SendDelay, delay: int) -> int:
        """Make an answer that leaves after so long; how far off the prediction was."""
        expected = one.expect(self.now)
        self.now += delay
        one.record_sent(self.now)
        return self.now - expected


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_says_what_is_expected_of_the_next(clock: Clock) -> None:
    one = SendDelay()
    assert clock.answer(one, 150_000) == 150_000
    assert clock.answer(one, 150_000) == 0


@pytest.mark.parametrize("delay", [20_000, 300_000])
def test_it_follows(clock: Clock, delay: int) -> None:
    one = SendDelay()
    for each in (100_000, delay):
        for _ in range(600):
            clock.answer(one, each)
    assert one.delay == pytest.approx(delay, rel=0.01)


def test_it_rather_says_too_little(clock: Clock) -> None:
    one = SendDelay()
    clock.answer(one, 100_000)
    errors = [clock.answer(one, delay) for delay in (80_000, 120_000) * 500]
    assert 80_000 <= one.delay < 90_000
    assert 10_000 < sum(errors) / len(errors) < 20_000


def test_one_hiccup_says_little(clock: Clock) -> None:
    one = SendDelay()
    clock.answer(one, 100_000)
    clock.answer(one, 50_000_000)
    assert one.delay == 200_000
    clock.answer(one, 100_000)
    assert one.delay == 175_000


def test_of_a_batch_the_last_counts(clock: Clock) -> None:
    one = SendDelay()
    one.expect(clock.now)
    clock.now += 400_000
    clock.answer(one, 100_000)
    assert one.delay == 100_000


def test_what_left_without_an_answer_says_nothing(clock: Clock) -> None:
    one = SendDelay()
    clock.answer(one, 100_000)
    clock.now += 10_000_000
    one.record_sent(clock.now)
    assert one.delay == 100_000
