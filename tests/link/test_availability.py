from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pingpong.link import Outage
from pingpong.link.availability import Availability


def test_up_at_the_first_answer_without_an_outage() -> None:
    availability = Availability(0)
    assert not availability.is_up
    assert availability.cause == "not connected yet"
    assert availability.outage(5) is None
    assert availability.answered(5) is None
    assert availability.is_up
    assert availability.changed_at == 5
    assert availability.answered(6) is None


def test_an_outage_is_from_the_last_answer_to_the_first() -> None:
    availability = Availability(0)
    availability.answered(10)
    availability.answered(20)
    assert availability.lost("gone", 95)
    assert availability.changed_at == 95
    assert availability.outage(120) == Outage(100, "gone")
    assert availability.answered(120) == Outage(100, "gone")
    assert availability.is_up
    assert availability.outage(130) is None


def test_lost_is_news_once_and_the_last_cause_counts() -> None:
    availability = Availability(0)
    availability.answered(10)
    assert availability.lost("silent", 20)
    assert not availability.lost("closed", 30)
    assert availability.changed_at == 20
    assert availability.cause == "closed"


def test_what_was_never_up_has_no_outage() -> None:
    availability = Availability(0)
    assert not availability.lost("refused", 5)
    assert availability.outage(9) is None
    assert availability.answered(9) is None


def test_answers_out_of_order_make_no_outage_longer() -> None:
    availability = Availability(0)
    availability.answered(50)
    availability.answered(40)  # Another session's, looked at later.
    availability.lost("gone", 60)
    assert availability.outage(55) == Outage(5, "gone")


def test_an_answer_that_does_not_end_an_outage_moves_its_beginning() -> None:
    availability = Availability(0)
    availability.noted(5)
    assert not availability.was_up
    availability.answered(10)
    availability.lost("gone", 20)
    availability.noted(50)
    availability.noted(40)
    assert not availability.is_up
    assert availability.outage(60) == Outage(10, "gone")


def test_what_was_no_time_of_the_network_s_is_no_outage() -> None:
    """This process was stopped, or waited before another attempt."""
    availability = Availability(0)
    availability.exclude(10, 20)
    availability.answered(50)
    availability.exclude(1000, 1060)  # stopped while it was up
    availability.lost("gone", 1070)
    availability.exclude(7, 1080)
    assert availability.outage(1100) == Outage(43, "gone")
    # An answer came meanwhile, which was looked at first: there is no time before it to exclude.
    availability.answered(1100)
    availability.exclude(500, 1110)
    availability.lost("gone", 1120)
    assert availability.outage(1120) == Outage(10, "gone")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=50))
def test_outages_never_overlap(steps: list[tuple[bool, int]]) -> None:
    availability = Availability(0)
    now = total = 0
    for is_answer, passed in steps:
        now += passed
        if not is_answer:
            availability.lost("", now)
        else:
            outage = availability.answered(now)
            total += 0 if outage is None else outage.duration_ns
        assert availability.is_up == is_answer
        assert total <= now
