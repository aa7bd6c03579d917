from __future__ import annotations

from pingpong.link.session import Refusals


def test_the_first_is_not_believed() -> None:
    refusals = Refusals()
    assert not refusals.doubtful
    assert not refusals.refused(10.0)
    assert refusals.doubtful


def test_those_that_go_on_are() -> None:
    refusals = Refusals()
    assert [refusals.refused(now) for now in (10.0, 10.25, 10.5, 11.0)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_an_answer_in_between_takes_them_back() -> None:
    refusals = Refusals()
    refusals.refused(10.0)
    refusals.answered()
    assert not refusals.doubtful
    assert not refusals.refused(11.0)
