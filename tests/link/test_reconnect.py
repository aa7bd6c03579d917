"""When a session is pending, and when the next attempt to make one is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.link import Backoff
from pingpong.link.failures import Failure
from pingpong.link.reconnect import ReconnectPolicy, ReconnectReason, ReconnectRequest

SUSPICIONS = [reason for reason in ReconnectReason if reason.is_suspicion]


def keeper(*, shortest: float = 0.1, longest: float = 10.0, random: float = 1.0) -> ReconnectPolicy:
    """One with a session, which was made at 0."""
    made = ReconnectPolicy(Backoff(shortest, longest, lambda: random), 0.0)
    made.satisfied(0.0)
    return made


def test_the_first_session_is_wanted_at_once() -> None:
    made = ReconnectPolicy(Backoff(0.1, 10.0), 5.0)
    assert made.pending == ReconnectRequest(ReconnectReason.START, "")
    assert made.pause(5.0) == 0
    made.satisfied(6.0)
    assert made.pending is None
    assert made.pause(7.0) is None


@pytest.mark.parametrize("reason", [ReconnectReason.DRAIN, ReconnectReason.ADDRESS_CHANGED])
def test_one_that_lasted_is_replaced_at_once_and_one_that_did_not_after_a_while(
    reason: ReconnectReason,
) -> None:
    """A server that drains every session is not run over."""
    made = keeper()
    made.request(reason, "", 0.9)
    assert made.pause(0.9) == pytest.approx(0.1)
    made.satisfied(1.0)
    made.request(reason, "", 2.0)
    assert made.pause(2.0) == 0


@pytest.mark.parametrize("reason", [*SUSPICIONS, ReconnectReason.ENDED])
def test_another_one_after_a_moment(reason: ReconnectReason) -> None:
    """Of many clients that lose their sessions at one moment."""
    made = keeper()
    made.request(reason, "why", 3.0)
    assert made.pending == ReconnectRequest(reason, "why")
    assert made.pause(3.0) == pytest.approx(0.1)
    assert made.pause(3.05) == pytest.approx(0.05)
    assert made.pause(9.0) == 0


@pytest.mark.parametrize("doubt", SUSPICIONS)
def test_only_what_is_certain_takes_the_place_of_a_reason(doubt: ReconnectReason) -> None:
    made = keeper()
    made.request(doubt, "first", 3.0)
    for other in SUSPICIONS:
        made.request(other, "later", 3.0)
        assert made.pending == ReconnectRequest(doubt, "first")
    made.request(ReconnectReason.ADDRESS_CHANGED, "it moved", 3.0)
    for other in SUSPICIONS:
        made.request(other, "later", 3.0)
        # An answer on the old session would report_losses a doubt, but not this.
        assert made.pending == ReconnectRequest(ReconnectReason.ADDRESS_CHANGED, "it moved")
    assert made.pause(3.0) == pytest.approx(0.1)
    made.request(ReconnectReason.DRAIN, "it drains", 3.1)
    assert made.pending == ReconnectRequest(ReconnectReason.DRAIN, "it drains")
    made.request(ReconnectReason.ENDED, "it is over", 3.2)
    assert made.pending == ReconnectRequest(ReconnectReason.ENDED, "it is over")


def test_where_a_draining_server_is_gone_its_successor_may_stand_already() -> None:
    made = keeper()
    made.request(ReconnectReason.DRAIN, "", 3.0)
    for _ in range(7):
        made.failed(Failure.OTHER, 3.0, 0.0)
    assert made.pause(3.0) == pytest.approx(6.4)
    made.request(ReconnectReason.ENDED, "", 3.5)
    assert made.pause(3.5) == 0
    made.failed(Failure.OTHER, 3.5, 0.0)
    assert made.pause(3.5) == pytest.approx(0.1)


def test_failures_by_policy_are_followed_by_ever_longer_pauses() -> None:
    made = keeper()
    made.request(ReconnectReason.ENDED, "", 1.0)
    pauses = []
    for _ in range(8):
        made.failed(Failure.OTHER, 1.0, 0.0)
        pauses.append(made.pause(1.0))
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
    # A session that did not last leaves it at that; one that did begins anew.
    made.satisfied(2.0)
    made.request(ReconnectReason.ENDED, "", 3.0)
    assert made.pause(3.0) == pytest.approx(10.0)
    made.satisfied(4.0)
    made.request(ReconnectReason.ENDED, "", 14.0)
    assert made.pause(14.0) == pytest.approx(0.1)


def test_a_host_that_refuses_is_asked_again_soon() -> None:
    """It is there, and the server may be any moment."""
    made = keeper()
    made.request(ReconnectReason.ENDED, "", 1.0)
    assert made.retry_delay is None
    for now in (1.0, 2.0, 5.0, 15.0):
        made.failed(Failure.REFUSED, now, 0.001)
        assert made.pause(now) == pytest.approx(0.15)
        # Where it is silent now, it may only have said so often enough.
        assert made.retry_delay == 0.5
    made.failed(Failure.REFUSED, 61.0, 0.001)
    assert made.pause(61.0) == pytest.approx(0.6)
    made.failed(Failure.REFUSED, 3601.0, 0.001)
    assert made.pause(3601.0) == pytest.approx(1.0)
    # It does not count as a failure by policy.
    made.failed(Failure.OTHER, 3602.0, 0.0)
    assert made.pause(3602.0) == pytest.approx(0.2)
    assert made.retry_delay is None


def test_a_refused_attempt_is_not_repeated_without_any_pause() -> None:
    """Each takes a handshake's work here."""
    made = keeper(random=0.0)
    made.request(ReconnectReason.ENDED, "", 1.0)
    made.failed(Failure.REFUSED, 1.0, 0.001)
    assert made.pause(1.0) == pytest.approx(0.075)


def test_silences_that_pass_make_the_next_pause_no_longer() -> None:
    """Of a path that is dead for a moment again and again; each comes after a second."""
    made = keeper()
    for at in range(0, 40, 4):
        made.request(ReconnectReason.UNRESPONSIVE, "", at + 1.3)
        assert made.pause(at + 1.3) == pytest.approx(0.1)
        made.satisfied(at + 1.5)


def test_a_session_that_lasted_makes_the_next_end_a_first_one() -> None:
    made = keeper()
    pauses = []
    for at in (0.5, 1.0, 1.5, 4.0):
        made.request(ReconnectReason.ENDED, "", at)
        pause = made.pause(at)
        assert pause is not None
        pauses.append(pause)
        made.satisfied(at)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.1])


@pytest.mark.parametrize(("took", "pause"), [(5.0, 0.2), (0.3, 0.7)])
def test_after_an_attempt_that_was_not_answered_another_one_begins_soon(
    took: float, pause: float
) -> None:
    made = keeper()
    made.request(ReconnectReason.UNRESPONSIVE, "", 1.0)
    for _ in range(10):
        made.failed(Failure.NO_ANSWER, 1.0, took)
    assert made.pause(1.0) == pytest.approx(pause)


@pytest.mark.parametrize("failure", Failure)
def test_what_the_operator_sets_is_a_bound(failure: Failure) -> None:
    made = keeper(shortest=600.0, longest=600.0)
    made.request(ReconnectReason.ENDED, "", 1.0)
    made.failed(failure, 1.0, 0.1)
    assert made.pause(1.0) == pytest.approx(600.0)
    made = keeper(shortest=0.01, longest=0.01)
    made.request(ReconnectReason.ENDED, "", 1.0)
    made.failed(failure, 1.0, 0.1)
    assert made.pause(1.0) == pytest.approx(0.01)


def test_news_end_a_pause() -> None:
    made = keeper(shortest=600.0, longest=600.0)
    made.request(ReconnectReason.ENDED, "", 1.0)
    made.retry_now(2.0)
    assert made.pause(2.0) == 0
    made.satisfied(2.0)
    made.retry_now(3.0)
    assert made.pause(3.0) is None


STEPS = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.sampled_from([*ReconnectReason, *Failure, "satisfied", "retry_now"]),
        st.floats(0, 10),
    ),
    max_size=60,
)


@given(STEPS, st.floats(0, 1))
def test_however_it_goes(
    steps: list[tuple[float, ReconnectReason | Failure | str, float]], draw: float
) -> None:
    """A session is pending until it was made, and no pause is longer than was set."""
    made = keeper(random=draw)
    now = 0.0
    pending = False
    for passed, step, took in steps:
        now += passed
        if isinstance(step, ReconnectReason):
            made.request(step, step.value, now)
            pending = True
            # What is certain is never forgotten over a doubt.
            if step in (ReconnectReason.DRAIN, ReconnectReason.ENDED):
                assert made.pending == ReconnectRequest(step, step.value)
            elif step is ReconnectReason.ADDRESS_CHANGED:
                assert made.pending is not None
                assert not made.pending.reason.is_suspicion
        elif isinstance(step, Failure):
            made.failed(step, now, took)
        elif step == "satisfied":
            made.satisfied(now)
            pending = False
        else:
            made.retry_now(now)
        pause = made.pause(now)
        assert (pause is not None) == (made.pending is not None) == pending
        assert pause is None or 0 <= pause <= 10.0
