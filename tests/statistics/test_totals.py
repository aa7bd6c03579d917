from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from pingpong.statistics import Statistics, Summary, Totals, minus

TIMEOUT = 100


def session(directions: bool = True) -> Statistics:
    return Statistics(TIMEOUT, directions=directions)


def counts(summary: Summary) -> dict[str, object]:
    return dataclasses.asdict(dataclasses.replace(summary, elapsed_ns=0, rtt=None, server=None))


def answered(statistics: Statistics, seq: int, at: int, received: int) -> None:
    statistics.answered(seq, at, 0, received)


def end(totals: Totals, statistics: Statistics, at: int) -> list[int]:
    """The numbers of those that it was waiting for."""
    waiting = statistics.expire(at + TIMEOUT)
    statistics.give_up()
    totals.end(statistics, at)
    return waiting


def test_two_sessions_are_summed_up() -> None:
    totals = Totals()
    first, second = session(), session()
    totals.begin(first)
    first.sent(1, 0)
    answered(first, 1, 10, 1)
    first.sent(2, 20)
    assert totals.deadline == 20 + TIMEOUT
    # The second begins before the first is over, as in a drain.
    totals.begin(second)
    second.sent(3, 30)
    answered(second, 3, 70, 1)
    summary = totals.summary(80)
    assert (summary.sent, summary.received, summary.waiting, summary.lost) == (3, 2, 1, 0)
    assert end(totals, first, 90) == [2]
    summary = totals.summary(90)
    assert (summary.sent, summary.received, summary.waiting, summary.lost) == (3, 2, 0, 1)
    # Of what the session took with it nothing is known.
    assert (summary.lost_out, summary.lost_back, summary.lost_unknown) == (0, 0, 1)


def test_losses_have_a_direction_only_where_all_servers_count() -> None:
    totals = Totals()
    first, second = session(), session(directions=False)
    totals.begin(first)
    first.sent(1, 0)
    first.sent(2, 1)
    answered(first, 2, 10, 2)
    assert first.expire(TIMEOUT) == [1]
    summary = totals.summary(TIMEOUT)
    assert (summary.lost_out, summary.lost_back, summary.lost_unknown) == (0, 1, 0)
    end(totals, first, TIMEOUT)
    totals.begin(second)
    summary = totals.summary(TIMEOUT)
    assert (summary.lost_out, summary.lost_back, summary.lost_unknown) == (None, None, 1)


def test_what_had_no_session_was_not_sent() -> None:
    totals = Totals()
    totals.unconnected += 2
    summary = totals.summary(0)
    assert (summary.sent, summary.send_errors, summary.loss) == (0, 2, 0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "answer", "lose", "renew"]), st.integers(0, 60)),
        max_size=60,
    )
)
def test_nothing_is_counted_twice_or_forgotten(steps: list[tuple[str, int]]) -> None:
    totals = Totals()
    current = session()
    totals.begin(current)
    now = seq = received = done = 0
    waiting: list[int] = []
    told: list[int] = []
    for what, pause in steps:
        now += pause
        told += current.expire(now)
        if what == "send":
            seq += 1
            current.sent(seq, now)
            waiting.append(seq)
        elif waiting and what == "answer":
            received += 1
            done += 1
            answered(current, waiting.pop(0), now, received)
        elif waiting and what == "lose":
            received += 1
            waiting.pop(0)
        elif what == "renew":
            told += end(totals, current, now)
            current, waiting, received = session(), [], 0
            totals.begin(current)
    summary = totals.summary(now)
    assert summary.sent == seq
    assert summary.received == done
    assert summary.sent == summary.received + summary.lost + summary.waiting
    assert summary.lost_out is not None
    assert summary.lost_back is not None
    assert summary.lost == summary.lost_out + summary.lost_back + summary.lost_unknown
    assert len(told) == len(set(told))


def test_what_was_counted_since() -> None:
    totals = Totals()
    only = session()
    totals.begin(only)
    only.sent(1, 0)
    only.sent(2, 10)
    before = totals.summary(200)
    assert before.lost == 2
    answered(only, 1, 210, 1)
    only.sent(3, 220)
    since = minus(totals.summary(230), before)
    # That one came late which was lost before takes nothing from what is lost since.
    assert (since.sent, since.received, since.late, since.lost, since.waiting) == (1, 1, 1, 0, 1)
    assert since.loss == 0.0
