from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pingpong.webtransport.errors import ErrorCode, SessionProtocolError
from pingpong.webtransport.flow import (
    MAX_STREAMS,
    ReceiveCredit,
    SendCredit,
    check_stream_limit,
)


class Flow(RuleBasedStateMachine):
    """Both ends of one account, against three numbers: sent, consumed, and the window."""

    @initialize(window=st.integers(0, 40))
    def start(self, window: int) -> None:
        self.window = window
        self.sender = SendCredit(window)
        self.receiver = ReceiveCredit(window)
        self.sent = 0
        self.consumed = 0
        self.announced = [window]
        self.said_blocked: list[int] = []

    @rule(wanted=st.integers(0, 50))
    def send(self, wanted: int) -> None:
        granted = self.sender.take(wanted)
        assert granted == min(wanted, self.announced[-1] - self.sent)
        self.sent += granted
        self.receiver.receive(granted)
        if granted < wanted and self.sender.newly_blocked():
            self.said_blocked.append(self.sender.limit)

    @rule(share=st.floats(0, 1))
    def consume(self, share: float) -> None:
        amount = round((self.sent - self.consumed) * share)
        limit = self.receiver.consume(amount)
        self.consumed += amount
        if limit is not None:
            assert limit == self.consumed + self.window
            self.announced.append(limit)
            # The peer would close the session if this were no more than before.
            self.sender.raise_limit(limit)

    @rule(excess=st.integers(1, 50))
    def send_too_much(self, excess: int) -> None:
        with pytest.raises(SessionProtocolError) as raised:
            self.receiver.receive(self.announced[-1] - self.sent + excess)
        assert raised.value.code == ErrorCode.WT_FLOW_CONTROL_ERROR

    @rule(less=st.integers(0, 50))
    def announce_no_more(self, less: int) -> None:
        with pytest.raises(SessionProtocolError) as raised:
            self.sender.raise_limit(max(0, self.announced[-1] - less))
        assert raised.value.code == ErrorCode.WT_FLOW_CONTROL_ERROR

    @invariant()
    def both_ends_agree(self) -> None:
        assert self.sender.limit == self.receiver.limit == self.announced[-1]
        assert self.sender.used == self.receiver.received == self.sent <= self.sender.limit
        assert self.sender.available == self.sender.limit - self.sent
        assert self.receiver.consumed == self.consumed

    @invariant()
    def the_window_stays_at_least_half_open(self) -> None:
        unconsumed_allowed = self.receiver.limit - self.consumed
        assert 2 * unconsumed_allowed > self.window or self.window == 0
        assert unconsumed_allowed <= self.window

    @invariant()
    def limits_grow_and_a_block_is_said_once_for_each(self) -> None:
        assert self.announced == sorted(set(self.announced))
        assert self.said_blocked == sorted(set(self.said_blocked))
        assert set(self.said_blocked) <= set(self.announced)


TestFlow = Flow.TestCase
TestFlow.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.integers(1, 1 << 20), st.integers(1, 100))
def test_limits_are_announced_seldom(window: int, times: int) -> None:
    credit = ReceiveCredit(window)
    amount = max(1, window // 10)
    announced = 0
    for _ in range(times):
        credit.receive(amount)
        announced += credit.consume(amount) is not None
    assert announced <= 2 * times * amount / window


def test_no_limit_is_announced_twice() -> None:
    # A window of nothing is closed for good: to announce it again would be an error.
    closed = ReceiveCredit(0)
    assert closed.consume(0) is None
    smallest = ReceiveCredit(1)
    assert smallest.consume(0) is None
    smallest.receive(1)
    assert smallest.consume(1) == 2


def test_a_block_is_said_again_at_the_next_limit() -> None:
    credit = SendCredit(0)
    assert [credit.newly_blocked(), credit.newly_blocked()] == [True, False]
    credit.raise_limit(1)
    assert [credit.newly_blocked(), credit.newly_blocked()] == [True, False]


def test_what_is_refused_is_not_accounted_for() -> None:
    credit = ReceiveCredit(10)
    with pytest.raises(SessionProtocolError):
        credit.receive(11)
    credit.receive(10)
    assert credit.received == 10


def test_the_highest_limit_on_streams() -> None:
    check_stream_limit(MAX_STREAMS)
    assert MAX_STREAMS == 2**60
    with pytest.raises(SessionProtocolError) as raised:
        check_stream_limit(MAX_STREAMS + 1)
    assert raised.value.code == ErrorCode.WT_FLOW_CONTROL_ERROR
