from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pingpong.client.ping.live.history import BARS, Cell, History, Mark, levels
from pingpong.statistics import Answer, AnswerStatus

MS = 1_000_000


def answer(seq: int, status: AnswerStatus = AnswerStatus.OK, rtt: int = MS) -> Answer:
    return Answer(seq, status, False, rtt, None)


def marks(history: History, count: int = 100) -> list[Mark]:
    return [cell.mark for cell in history.last(count)]


def test_the_status_of_pings() -> None:
    history = History()
    for seq in (1, 2, 3):
        history.sent(seq, "datagram")
    history.not_sent(4, "datagram", "too large")
    history.unconnected(5, "datagram")
    assert marks(history) == [Mark.WAITING] * 3 + [Mark.NOT_SENT] * 2
    history.answered(answer(1), 64, False)
    history.unanswered(2, final=False)
    history.unanswered(3, final=False)
    history.answered(answer(3, AnswerStatus.LATE, 5 * MS), 64, False)
    assert history.last(4) == [
        Cell(Mark.LOST),
        Cell(Mark.LATE, 5 * MS),
        Cell(Mark.NOT_SENT),
        Cell(Mark.NOT_SENT),
    ]
    history.answered(answer(1, AnswerStatus.DUPLICATE, 9 * MS), 64, False)
    assert history.last_rtt_ns == 5 * MS
    assert history.last(5)[0] == Cell(Mark.ANSWERED, MS)


def test_only_the_last_are_remembered() -> None:
    history = History(4)
    for seq in range(1, 8):
        history.sent(seq, "datagram")
    history.answered(answer(2), 64, False)  # long forgotten
    history.answered(answer(4), 64, False)
    assert marks(history) == [Mark.ANSWERED, Mark.WAITING, Mark.WAITING, Mark.WAITING]
    assert marks(history, 2) == [Mark.WAITING] * 2


def test_forgetting() -> None:
    history = History()
    history.sent(1, "datagram")
    history.answered(answer(1), 64, False)
    history.forget()
    assert history.last(9) == []
    assert history.last_rtt_ns is None
    history.unconnected(2, "datagram")
    assert marks(history) == [Mark.NOT_SENT]


def heights(*times: float) -> list[int]:
    return levels([Cell(Mark.ANSWERED, int(time * MS)) for time in times], len(BARS))


def test_jitter_is_low_and_a_peak_is_high() -> None:
    steady = heights(1.0, 1.1, 1.2, 1.05, 1.3)
    assert max(steady) <= 2
    assert heights(1, 1, 1, 1, 100)[-1] == len(BARS) - 1
    assert heights(1, 1, 1, 1, 10, 100)[4] == 4  # halfway, by the logarithm
    # One ping that was luckier than all others does not raise those.
    assert heights(0.2, 1, 1, 1, 1, 1) == [0] * 6


@given(
    st.lists(
        st.one_of(
            st.builds(Cell, st.sampled_from([Mark.LOST, Mark.WAITING, Mark.NOT_SENT])),
            st.builds(Cell, st.sampled_from([Mark.ANSWERED, Mark.LATE]), st.integers(0, 10**12)),
        )
    ),
    st.integers(2, 9),
)
def test_every_bar_is_one_of_the_steps(cells: list[Cell], steps: int) -> None:
    found = levels(cells, steps)
    assert len(found) == len(cells)
    assert all(0 <= level < steps for level in found)
    by_time = sorted((cell.rtt_ns, level) for cell, level in zip(cells, found, strict=True))
    assert [level for _, level in by_time] == sorted(level for _, level in by_time)
