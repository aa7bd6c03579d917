from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleDecoder, CapsuleType, decode_limit
from pingpong.webtransport.drafts import Credit
from pingpong.webtransport.errors import ErrorCode, SessionProtocolError
from pingpong.webtransport.flow import FlowControl, ReceiveCredit, SendCredit
from pingpong.webtransport.limits import Limits

BLOCKED = (
    CapsuleType.WT_DATA_BLOCKED,
    CapsuleType.WT_STREAMS_BLOCKED_BIDI,
    CapsuleType.WT_STREAMS_BLOCKED_UNI,
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


def session_flow(sent: list[bytes], limits: Limits | None = None) -> FlowControl:
    """A session's accounts, and what they send."""
    return FlowControl(limits or Limits(), Credit(data=50), sent.append)


@pytest.mark.parametrize("kind", [CapsuleType.WT_MAX_DATA, CapsuleType.WT_DATA_BLOCKED])
def test_data_may_have_any_limit(kind: CapsuleType) -> None:
    assert not session_flow([]).receive(kind, varint.encode(varint.MAX))


def test_without_a_window_for_data_no_limit_is_announced() -> None:
    sent: list[bytes] = []
    # A stream's end without a byte of data.
    session_flow(sent, Limits(initial_max_data=0)).data_consumed(0)
    assert sent == []


def test_a_stream_that_waits_is_called_once_there_is_credit() -> None:
    flow = session_flow([])
    called: list[str] = []
    first, second, third = (lambda name=name: called.append(name) for name in "123")
    for waiting in (first, second, third, first):
        flow.data_blocked(waiting)
    flow.stop_waiting(second)
    flow.receive(CapsuleType.WT_MAX_DATA, varint.encode(51))
    flow.receive(CapsuleType.WT_MAX_DATA, varint.encode(52))
    assert called == ["1", "3"]
    flow.data_blocked(first)
    flow.data_unsent(0)
    flow.data_blocked(second)
    flow.session_closed()
    flow.data_unsent(0)
    assert called == ["1", "3", "1"]


class TwoSides(RuleBasedStateMachine):
    """Two sides that tell each other by capsules only; model: what is open and unread."""

    @initialize(data=st.integers(1, 30), bidi=st.integers(1, 5), uni=st.integers(0, 5))
    def start(self, data: int, bidi: int, uni: int) -> None:
        limits = Limits(
            initial_max_data=data, initial_max_streams_bidi=bidi, initial_max_streams_uni=uni
        )
        self.windows = (data, bidi, uni)
        self.wire = b""
        granted = Credit(data, bidi, uni)
        self.sender = FlowControl(limits, granted, self.send_back)
        self.receiver = FlowControl(limits, granted, self.send_capsule)
        self.unread = 0
        self.open = [0, 0]
        self.decoder = CapsuleDecoder()
        self.said: list[tuple[CapsuleType, bytes]] = []

    def send_capsule(self, capsule: bytes) -> None:
        self.wire += capsule

    def send_back(self, capsule: bytes) -> None:
        flow = self.sender
        [(kind, payload)] = CapsuleDecoder().feed(capsule)
        limits = flow.data_out.limit, *(streams.limit for streams in flow.streams_out)
        assert decode_limit(payload) == limits[BLOCKED.index(kind)]
        assert (kind, payload) not in self.said
        self.said.append((kind, payload))
        assert not self.receiver.receive(kind, payload)

    @rule(size=st.integers(0, 40))
    def send(self, size: int) -> None:
        granted = self.sender.data_out.take(size)
        self.receiver.data_in.receive(granted)
        self.unread += granted
        assert self.unread <= self.windows[0]

    @rule(size=st.integers(0, 40))
    def read(self, size: int) -> None:
        size = min(size, self.unread)
        self.unread -= size
        self.receiver.data_consumed(size)

    @rule(unidirectional=st.booleans())
    def open_stream(self, unidirectional: bool) -> None:
        if self.sender.can_open_stream(unidirectional):
            assert self.sender.streams_out[unidirectional].take(1)
            self.receiver.streams_in[unidirectional].receive(1)
            self.open[unidirectional] += 1
        assert self.open[unidirectional] <= self.windows[1 + unidirectional]

    @rule(unidirectional=st.booleans())
    def end_stream(self, unidirectional: bool) -> None:
        if self.open[unidirectional]:
            self.open[unidirectional] -= 1
            self.receiver.peer_stream_closed(unidirectional)

    @rule(size=st.integers(1, 12))
    def deliver(self, size: int) -> None:
        arrived, self.wire = self.wire[:size], self.wire[size:]
        for kind, payload in self.decoder.feed(arrived):
            self.sender.receive(kind, payload)

    @rule()
    def be_blocked(self) -> None:
        self.sender.data_blocked(self.send_nothing)

    def send_nothing(self) -> None:
        pass

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        if not self.wire and not self.decoder.incomplete:
            if not self.unread:
                assert self.sender.data_out.available > 0
            for unidirectional in (False, True):
                if not self.open[unidirectional] and self.windows[1 + unidirectional]:
                    assert self.sender.streams_out[unidirectional].available > 0


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
