from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pingpong.client.link.availability import Availability, Recovered


def test_up_at_the_first_answer_without_an_outage() -> None:
    availability = Availability(0)
    assert not availability.is_up
    assert availability.answered(5) == Recovered(None, "not connected yet")
    assert availability.is_up
    assert availability.changed_at == 5
    assert availability.answered(6) is None


def test_an_outage_is_from_the_last_answer_to_the_first() -> None:
    availability = Availability(0)
    availability.answered(10)
    availability.answered(20)
    assert availability.lost("gone", 95)
    assert availability.changed_at == 95
    assert availability.answered(120) == Recovered(100, "gone")


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
    assert availability.answered(9) == Recovered(None, "refused")


def test_answers_out_of_order_make_no_outage_longer() -> None:
    availability = Availability(0)
    availability.answered(50)
    availability.answered(40)  # Another session's, looked at later.
    availability.lost("gone", 60)
    assert availability.answered(55) == Recovered(5, "gone")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=50))
def test_outages_never_overlap(steps: list[tuple[bool, int]]) -> None:
    availability = Availability(0)
    now = total = 0
    for is_answer, passed in steps:
        now += passed
        if not is_answer:
            availability.lost("", now)
        elif (recovered := availability.answered(now)) is not None:
            total += recovered.outage_ns or 0
        assert availability.is_up == is_answer
        assert total <= now
