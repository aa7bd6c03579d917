"""Where probes got lost, of several kinds on one session, and what is known for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pingpong.statistics import Answer, AnswerStatus, Losses, Statistics
from tests.statistics.bursts import HORIZON, TIMEOUT, burst, losses

# Probes of several kinds, on one session


def test_only_one_of_the_same_kind_is_overtaken() -> None:
    statistics = Statistics(TIMEOUT)
    for seq, kind in ((1, "stream"), (2, "datagram"), (3, "stream"), (4, "datagram")):
        statistics.sent(seq, seq, kind)
    assert statistics.answered(4, 10) == Answer(4, AnswerStatus.OK, False, 6, None, "datagram")
    assert statistics.answered(3, 11).reordered is False
    assert statistics.answered(2, 12).reordered is True
    assert statistics.answered(1, 13) == Answer(1, AnswerStatus.OK, True, 12, None, "stream")
    assert statistics.answered(1, 14).kind == "stream"
    assert statistics.answered(9, 15).kind == ""
    assert statistics.summary(20).reordered == 2


def test_the_server_counts_all_kinds_together() -> None:
    statistics = Statistics(TIMEOUT)
    for seq in range(1, 9):
        statistics.sent(seq, seq, "even" if seq % 2 == 0 else "odd")
    # 2 and 3 never arrived, and the answer to 5 got lost.
    for seq, received in ((1, 1), (4, 2), (6, 4), (7, 5), (8, 6)):
        statistics.answered(seq, 20, 0, received)
    assert losses(statistics, 200) == (2, 1, 0)
    statistics.give_up()
    assert statistics.losses() == (2, 1, 0)
    assert statistics.report_losses() == ({"even": 1, "odd": 2}, 2, 1, 0)
    assert statistics.report_losses(is_final=True) is None


def test_a_failed_one_leaves_no_gap_in_the_order_of_any_kind() -> None:
    statistics = Statistics(TIMEOUT)
    for seq, kind in ((1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "a")):
        statistics.sent(seq, seq, kind)
    statistics.answered(3, 6, 0, 1)
    statistics.send_failed(2)
    assert statistics.answered(1, 7).reordered is True
    statistics.answered(5, 8, 0, 3)
    assert statistics.answered(4, 9).reordered is False
    assert losses(statistics, 200) == (0, 0, 0)


# The end of a session, and what is known for good


def test_with_the_session_ends_the_hope() -> None:
    statistics = burst(4)
    statistics.answered(2, 10, 0, 2)
    statistics.send_failed(4)
    assert statistics.expire(101) == [1]
    assert statistics.open == 2
    statistics.give_up()
    assert (statistics.open, sum(statistics.losses()), statistics.deadline) == (0, 2, None)
    assert statistics.losses() == Losses(0, 1, 1)  # the answer to 1, and 3, of which nobody knows
    assert statistics.answered(3, 20).status is AnswerStatus.UNKNOWN
    assert statistics.expire(10_000) == []
    statistics.give_up()
    assert sum(statistics.losses()) == 2
    statistics.sent(5, 200)
    assert statistics.open == 1


def test_without_a_count_no_direction_is_known() -> None:
    statistics = Statistics(TIMEOUT, directions=False)
    statistics.sent(1, 1)
    statistics.sent(2, 2)
    statistics.answered(2, 5)
    statistics.give_up()
    assert statistics.losses() == (0, 0, 1)


def test_what_is_known_for_good_is_reported_once() -> None:
    statistics = Statistics(TIMEOUT, horizon_ns=HORIZON)
    for seq in range(1, 5):
        statistics.sent(seq, seq, "a")
    statistics.answered(2, 10, 0, 2)
    assert statistics.report_losses() is None
    statistics.expire(TIMEOUT + HORIZON + 3)
    # The answer to 1 got lost; of 3 nothing is known yet, and 4 may still be answered.
    assert statistics.report_losses() == ({"a": 2}, 0, 1, 0)
    assert statistics.report_losses() is None
    statistics.answered(4, TIMEOUT + HORIZON + 3, 0, 3)
    assert statistics.report_losses() == ({}, 1, 0, 0)
    statistics.sent(5, 1000, "b")
    statistics.give_up()
    assert statistics.report_losses(is_final=True) == ({"b": 1}, 0, 0, 1)


# Loss by direction


def test_lost_on_the_way_out_and_back() -> None:
    statistics = burst(6)
    statistics.answered(1, 10, 0, 1)
    statistics.answered(5, 10, 0, 3)  # of 2, 3 and 4 the server had one
    assert losses(statistics, 10) == (0, 0, 0)
    assert losses(statistics, 105) == (2, 1, 0)
    assert losses(statistics, 106) == (2, 1, 1)  # 6: nothing is known of it


def test_only_what_is_proven_has_a_direction() -> None:
    statistics = burst(4)
    statistics.answered(4, 10, 0, 3)
    # One of 1, 2, 3 did not arrive; 1 is overdue, but it may be one of the others.
    assert losses(statistics, 101) == (0, 0, 1)
    assert losses(statistics, 102) == (0, 1, 1)
    assert losses(statistics, 103) == (1, 2, 0)


def test_reordering_on_the_way_out_is_no_loss() -> None:
    statistics = burst(3)
    statistics.answered(3, 10, 0, 2)  # 2 was overtaken, and its answer is lost
    statistics.answered(1, 10, 0, 1)
    assert losses(statistics, 200) == (1, 0, 0)
    statistics.sent(4, 201)
    statistics.answered(4, 202, 0, 4)
    assert losses(statistics, 203) == (0, 1, 0)


def test_copies_of_a_ping_are_not_lost_answers() -> None:
    statistics = burst(3)
    statistics.answered(1, 10, 0, 1)
    statistics.answered(1, 10, 0, 2)  # the ping was copied
    statistics.answered(3, 10, 0, 3)
    statistics.answered(3, 10, 0, 3)  # the pong was copied
    assert losses(statistics, 200) == (1, 0, 0)


Fate = tuple[str, int, int]


def network(fates: list[Fate]) -> tuple[int, int, list[tuple[int, int, int]]]:
    """One ping every 10 ns, each with its fate and its delays there and back.

    Returns how many were lost out and back, and the answers: arrival, ping, the server's count.
    """
    reached = sorted((10 * n + out, n) for n, (fate, out, _) in enumerate(fates) if fate != "out")
    answers = sorted(
        (when + fates[n][2], n, count)
        for count, (when, n) in enumerate(reached, 1)
        if fates[n][0] == "ok"
    )
    return len(fates) - len(reached), len(reached) - len(answers), answers


@given(
    st.lists(
        st.tuples(st.sampled_from(["ok", "out", "back"]), st.integers(0, 90), st.integers(0, 90)),
        max_size=30,
    ),
    st.sampled_from([1, 2**32 - 5]),
)
def test_directions_are_the_network_s(fates: list[Fate], first: int) -> None:
    """Whatever is lost, late or overtaken: an undisturbed ping at the end settles it."""
    fates = [*fates, *[("ok", 0, 0)] * 20]
    lost_out, lost_back, answers = network(fates)
    statistics = Statistics(TIMEOUT)
    for n in range(len(fates)):
        while answers and answers[0][0] < 10 * n:
            when, answered, count = answers.pop(0)
            statistics.answered(first + answered, when, 0, count)
        statistics.sent(first + n, 10 * n)
        statistics.expire(10 * n)
    for when, answered, count in answers:
        statistics.answered(first + answered, when, 0, count)
    assert losses(statistics, 10_000) == (lost_out, lost_back, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["ok", "out", "back"]), st.integers(0, 90), st.integers(0, 90)),
        max_size=40,
    ),
)
def test_what_is_said_of_losses_is_never_taken_back(fates: list[Fate]) -> None:
    """Each direction's is a lower bound of the truth at any time; with the end it is the truth.

    Of those behind the last answer nothing is known. Without overtaking, since pings that
    overtake each other on their way out may be counted in any order.
    """
    fates = [(fate, 5, 5) for fate, _, _ in fates]
    lost_out, lost_back, answers = network(fates)
    statistics = Statistics(TIMEOUT, horizon_ns=HORIZON)
    most = Losses(0, 0, 0)
    for n in range(len(fates) + 60):
        while answers and answers[0][0] < 10 * n:
            when, answered, count = answers.pop(0)
            statistics.answered(answered, when, 0, count)
        if n < len(fates):
            statistics.sent(n, 10 * n)
        statistics.expire(10 * n)
        said = statistics.losses()
        assert said.out <= lost_out
        assert said.back <= lost_back
        assert sum(said) == sum(statistics.losses())
        most = Losses(max(most.out, said.out), max(most.back, said.back), 0)
    statistics.give_up()
    said = statistics.losses()
    assert said.out >= most.out
    assert said.back >= most.back
    assert sum(said) == sum(statistics.losses()) == lost_out + lost_back
    behind = next((n for n, fate in enumerate(reversed(fates)) if fate[0] == "ok"), len(fates))
    assert said.unknown == behind


def test_the_server_s_count_wraps() -> None:
    statistics = Statistics(TIMEOUT)
    statistics._received = statistics._answered = statistics._sent = statistics._highest = 2**32 - 2
    for n in range(6):
        statistics.sent(2**32 - 1 + n, n)
    for seq, received in ((2**32 - 1, 2**32 - 1), (0, 0), (1, 1), (4, 3)):
        assert statistics.answered(seq, 10, 0, received).reordered is False
    assert statistics.answered(1, 11, 0, 1).seq == 2**32 + 1
    assert losses(statistics, 200) == (1, 1, 0)
