from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.statistics import Answer, AnswerStatus, Statistics
from tests.statistics.bursts import HORIZON, TIMEOUT, burst, losses

# Probes, one by one


def test_answer_in_time() -> None:
    statistics = burst(1)
    answer = statistics.answered(1, 51, 20, 1)
    assert answer == Answer(1, AnswerStatus.OK, False, 30, 20)
    summary = statistics.summary(61)
    assert (summary.sent, summary.received, summary.lost, summary.elapsed_ns) == (1, 1, 0, 60)


@pytest.mark.parametrize(
    ("t4", "server", "rtt", "counted"),
    [
        (51, 60, 0, 50),  # the server claims more time than there was
        (51, -7, 50, 0),  # its clock was set back meanwhile
        (0, 5, 0, 0),  # ours was
    ],
)
def test_rtt_is_never_negative(t4: int, server: int, rtt: int, counted: int) -> None:
    answer = burst(1).answered(1, t4, server, 1)
    assert (answer.rtt_ns, answer.server_ns) == (rtt, counted)


def test_without_the_server_s_time() -> None:
    statistics = Statistics(TIMEOUT, directions=False)
    statistics.sent(1, 0)
    statistics.sent(2, 0)
    assert statistics.answered(2, 10) == Answer(2, AnswerStatus.OK, False, 10, None)
    summary = statistics.summary(TIMEOUT)
    assert (summary.lost, summary.lost_unknown) == (1, 1)
    assert summary.lost_out is summary.lost_back is None


def test_late_is_not_lost() -> None:
    statistics = burst(1)
    assert statistics.expire(100) == []
    assert statistics.expire(101) == [1]
    assert statistics.summary(101).lost == 1
    assert statistics.answered(1, 150).status is AnswerStatus.LATE
    summary = statistics.summary(150)
    assert (summary.received, summary.late, summary.lost, summary.loss) == (1, 1, 0, 0.0)


def test_the_packet_s_arrival_decides_what_is_late() -> None:
    statistics = burst(2)
    assert statistics.answered(1, 101).status is AnswerStatus.LATE  # `expire` was not called
    assert statistics.expire(500) == [2]
    assert statistics.answered(2, 101).status is AnswerStatus.OK  # looked at too late
    summary = statistics.summary(500)
    assert (summary.received, summary.late, summary.lost) == (2, 1, 0)


def test_forgotten_after_the_horizon() -> None:
    statistics = Statistics(TIMEOUT, horizon_ns=HORIZON)
    statistics.sent(1, 0)
    assert statistics.expire(399) == [1]
    assert sum(statistics.losses()) == 0
    assert statistics.expire(400) == []
    assert sum(statistics.losses()) == 1
    assert statistics.answered(1, 401) == Answer(1, AnswerStatus.UNKNOWN, False, None, None)
    summary = statistics.summary(401)
    assert (summary.lost, summary.late, summary.unknown) == (1, 0, 1)


def test_duplicates_and_reordering() -> None:
    statistics = burst(3)
    assert statistics.answered(3, 10).reordered is False
    assert statistics.answered(1, 11).reordered is True
    assert statistics.answered(1, 12) == Answer(1, AnswerStatus.DUPLICATE, False, 11, None)
    assert statistics.answered(2, 13).reordered is True
    assert statistics.answered(3, 14).status is AnswerStatus.DUPLICATE
    assert statistics.answered(4, 15).status is AnswerStatus.UNKNOWN
    summary = statistics.summary(20)
    assert (summary.received, summary.duplicates, summary.reordered) == (3, 2, 2)


def test_send_error_is_no_loss() -> None:
    statistics = burst(3)
    assert not statistics.send_failed(9)
    statistics.answered(1, 10, 0, 1)
    assert not statistics.send_failed(1)
    statistics.answered(3, 10, 0, 2)
    assert statistics.send_failed(2)
    assert not statistics.send_failed(2)
    assert statistics.answered(2, 11).status is AnswerStatus.UNKNOWN
    assert statistics.expire(1000) == []
    summary = statistics.summary(1000)
    assert (summary.sent, summary.received, summary.lost, summary.send_errors) == (2, 2, 0, 1)
    assert losses(statistics, 1000) == (0, 0, 0)


def test_number_can_be_used_again_only_after_an_error() -> None:
    statistics = burst(1)
    with pytest.raises(ValueError, match="number 1 is still remembered"):
        statistics.sent(1, 5)
    with pytest.raises(ValueError, match="number 4294967297 is still remembered"):
        statistics.sent(2**32 + 1, 5)
    statistics.send_failed(1)
    statistics.sent(1, 7)
    assert statistics.answered(1, 10).rtt_ns == 3


def test_departed_corrects_the_time() -> None:
    statistics = burst(1)
    statistics.departed(1, 21)
    statistics.departed(2, 21)
    assert statistics.deadline == 121
    assert statistics.expire(120) == []
    assert statistics.answered(1, 50).rtt_ns == 29


def test_deadline() -> None:
    statistics = Statistics(TIMEOUT)
    assert statistics.deadline is None
    for seq in (1, 2, 3):
        statistics.sent(seq, seq)
    statistics.send_failed(2)
    assert statistics.deadline == 101
    statistics.answered(1, 5)
    assert statistics.deadline == 103
    assert statistics.expire(102) == []
    assert statistics.expire(103) == [3]
    assert statistics.deadline is None


def test_summary_counts_what_is_overdue_but_not_what_is_waited_for() -> None:
    statistics = burst(4)
    statistics.answered(1, 5)
    summary = statistics.summary(102)
    assert (summary.sent, summary.received, summary.lost, summary.waiting) == (4, 1, 1, 2)
    assert summary.loss == 0.5
    assert statistics.expire(102) == [2]
    assert Statistics(1).summary(5).loss == 0.0


def test_capacity() -> None:
    statistics = Statistics(TIMEOUT, capacity=10)
    for seq in range(1, 14):
        statistics.sent(seq, seq)
    assert sum(statistics.losses()) == 3
    assert statistics.answered(3, 20).status is AnswerStatus.UNKNOWN
    assert statistics.answered(4, 20).status is AnswerStatus.OK
    assert statistics.expire(20) == [1, 2, 3]
    assert statistics.expire(20) == []
    summary = statistics.summary(20)
    assert (summary.sent, summary.received, summary.lost, summary.waiting) == (13, 1, 3, 9)


def test_send_errors_push_nothing_out() -> None:
    statistics = Statistics(TIMEOUT, capacity=2)
    statistics.sent(1, 1)
    for seq in range(2, 10):
        statistics.sent(seq, seq)
        statistics.send_failed(seq)
    assert statistics.answered(1, 20).status is AnswerStatus.OK


@pytest.mark.parametrize("fate", ["answered", "lost", "failed", "mixed"])
def test_memory_is_bounded(fate: str) -> None:
    statistics = Statistics(TIMEOUT, horizon_ns=HORIZON, capacity=1000)
    fates: list[Callable[[int], object]] = [
        lambda seq: statistics.answered(seq, seq + 5, 1, seq),
        lambda seq: None,
        lambda seq: statistics.send_failed(seq),
    ]
    for seq in range(5000):
        statistics.sent(seq, seq)
        kind = {"answered": 0, "lost": 1, "failed": 2, "mixed": seq % 3}[fate]
        fates[kind](seq)
        if seq > 3000:  # before, only the capacity is the bound
            statistics.expire(seq)
        held = len(statistics._waiting) + len(statistics._expired)
        assert len(statistics._probes) <= held <= (1000 if seq <= 3000 else TIMEOUT + HORIZON)
    statistics.expire(5000 + TIMEOUT + HORIZON)
    assert not statistics._probes
    assert not statistics._waiting
    assert not statistics._expired


# Against a slow, obvious model


@dataclass
class ModelProbe:
    seq: int
    t1: int
    kind: str
    place: int
    answers: list[int] = field(default_factory=list)
    reordered: bool = False
    failed: bool = False
    told: bool = False
    forgotten: bool = False


class Model:
    """Keeps everything for ever and counts anew each time."""

    def __init__(self) -> None:
        self.probes: list[ModelProbe] = []
        self.unknown = 0
        self.report: Counter[str] = Counter()
        """Those that were told to be lost for good, by kind."""
        self.placed = 0
        """Those of them whose direction was told."""

    def find(self, seq: int) -> ModelProbe | None:
        found = [p for p in self.probes if p.seq == seq and not p.failed and not p.forgotten]
        return found[0] if found else None

    def answered(self, seq: int, t4: int) -> AnswerStatus:
        probe = self.find(seq)
        if probe is None:
            self.unknown += 1
            return AnswerStatus.UNKNOWN
        probe.answers.append(t4)
        if len(probe.answers) > 1:
            return AnswerStatus.DUPLICATE
        probe.reordered = any(
            p.answers and p.place > probe.place and p.kind == probe.kind for p in self.probes
        )
        return AnswerStatus.OK if t4 - probe.t1 < TIMEOUT else AnswerStatus.LATE

    def expire(self, now: int) -> list[int]:
        told = [
            p
            for p in self.probes
            if not (p.failed or p.told or p.answers) and p.t1 + TIMEOUT <= now
        ]
        for probe in told:
            probe.told = True
        for probe in self.probes:
            probe.forgotten |= probe.t1 + TIMEOUT + HORIZON <= now
        return [p.seq for p in told]

    def give_up(self) -> None:
        for probe in self.probes:
            # Nobody waits for these any more: their timeouts are over, whenever they were.
            if not (probe.failed or probe.answers):
                probe.told = True
                probe.t1 -= TIMEOUT
            probe.forgotten = True

    def check(self, statistics: Statistics, now: int) -> None:
        summary = statistics.summary(now)
        sent = [p for p in self.probes if not p.failed]
        unanswered = [p for p in sent if not p.answers]
        answers = [p for p in sent if p.answers]
        assert summary.sent == len(sent)
        assert summary.received == len(answers)
        assert summary.late == sum(p.answers[0] - p.t1 >= TIMEOUT for p in answers)
        assert summary.lost == sum(p.t1 + TIMEOUT <= now for p in unanswered)
        assert summary.waiting == sum(p.t1 + TIMEOUT > now for p in unanswered)
        assert summary.duplicates == sum(len(p.answers) - 1 for p in answers)
        assert summary.reordered == sum(p.reordered for p in answers)
        assert summary.send_errors == sum(p.failed for p in self.probes)
        assert summary.unknown == self.unknown
        gone = [p.kind for p in unanswered if p.forgotten]
        assert sum(statistics.losses()) == len(gone)
        report = statistics.report_losses()
        if report is not None:
            self.report.update(report.by_kind)
            self.placed += report.out + report.back
            assert min(report.out, report.back) >= report.unknown == 0
        assert self.report == Counter(gone)
        assert self.placed <= len(gone)
        assert statistics.open == len(unanswered) - len(gone)
        said = statistics.losses()
        assert min(said) >= 0
        assert sum(said) >= len(gone)
        directions = [summary.lost_out, summary.lost_back, summary.lost_unknown]
        assert all(n is not None and n >= 0 for n in directions)
        assert sum(n or 0 for n in directions) == summary.lost


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 60)),
        st.tuples(st.just("answer"), st.integers(0, 12)),
        st.tuples(st.just("fail"), st.integers(0, 12)),
        st.tuples(st.just("expire"), st.integers(0, 200)),
        st.tuples(st.just("give up"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from([1, 2**32 - 3]), st.data())
def test_model(steps: list[tuple[str, int]], first: int, data: st.DataObject) -> None:
    statistics = Statistics(TIMEOUT, horizon_ns=HORIZON)
    model = Model()
    now, seq = 0, first
    for step, n in steps:
        # For `send` and `expire` the time that passes, otherwise which probe, from the last.
        if step == "send":
            now += n
            kind = "even" if n % 2 == 0 else "odd"
            statistics.sent(seq, now, kind)
            model.probes.append(ModelProbe(seq, now, kind, len(model.probes)))
            seq += 1
        elif step == "expire":
            now += n
            assert statistics.expire(now) == model.expire(now)
        elif step == "give up":
            statistics.give_up()
            model.give_up()
        elif step == "answer":
            found = model.find(seq - n)
            t4 = data.draw(st.integers(found.t1, max(now, found.t1))) if found else now
            received = data.draw(st.integers(0, 10) | st.integers(0, 2**32 - 1))
            wire = (seq - n) % 2**32
            answer = statistics.answered(wire, t4, 0, received)
            assert answer.status is model.answered(seq - n, t4)
            assert answer.seq == (seq - n if found else wire)
            assert answer.rtt_ns == (t4 - found.t1 if found else None)
        else:
            probe = model.find(seq - n)
            possible = probe is not None and not probe.answers
            assert statistics.send_failed(seq - n) == possible
            if probe is not None and possible:
                probe.failed = True
        model.check(statistics, now)
    statistics.give_up()
    model.give_up()
    report = statistics.report_losses(is_final=True)
    if report is not None:
        model.placed += report.out + report.back + report.unknown
    assert model.placed == sum(statistics.losses())
    assert statistics.report_losses(is_final=True) is None
