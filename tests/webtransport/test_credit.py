from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import (
    CapsuleDecoder,
    CapsuleType,
    decode_limit,
    encode_limit,
)
from pingpong.webtransport.credit import SessionCredit
from pingpong.webtransport.drafts import Credit
from pingpong.webtransport.errors import ErrorCode, SessionProtocolError
from pingpong.webtransport.limits import Limits

LIMITS = Limits(initial_max_data=100, initial_max_streams_bidi=4, initial_max_streams_uni=6)
GRANTED = Credit(data=50, streams_bidi=2, streams_uni=3)
LOWEST = {
    CapsuleType.WT_MAX_DATA: 50,
    CapsuleType.WT_MAX_STREAMS_BIDI: 2,
    CapsuleType.WT_MAX_STREAMS_UNI: 3,
}
BLOCKED = (
    CapsuleType.WT_DATA_BLOCKED,
    CapsuleType.WT_STREAMS_BLOCKED_BIDI,
    CapsuleType.WT_STREAMS_BLOCKED_UNI,
)


def credit() -> SessionCredit:
    return SessionCredit(LIMITS, GRANTED)


def outgoing(account: SessionCredit) -> tuple[int, int, int]:
    bidi, uni = account.streams_out
    return account.data_out.limit, bidi.limit, uni.limit


def code_of(kind: CapsuleType, payload: bytes) -> ErrorCode:
    account = credit()
    with pytest.raises(SessionProtocolError) as raised:
        account.receive(kind, payload)
    assert outgoing(account) == (50, 2, 3)
    return raised.value.code


def test_the_start_is_what_each_side_announced() -> None:
    account = credit()
    assert outgoing(account) == (50, 2, 3)
    assert account.data_in.limit == 100
    assert [streams.limit for streams in account.streams_in] == [4, 6]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (CapsuleType.WT_MAX_DATA, (51, 2, 3)),
        (CapsuleType.WT_MAX_STREAMS_BIDI, (50, 3, 3)),
        (CapsuleType.WT_MAX_STREAMS_UNI, (50, 2, 4)),
    ],
)
def test_a_limit_rises(kind: CapsuleType, expected: tuple[int, int, int]) -> None:
    account = credit()
    account.receive(kind, varint.encode(LOWEST[kind] + 1))
    assert outgoing(account) == expected


@pytest.mark.parametrize("kind", LOWEST)
@pytest.mark.parametrize("less", [0, 1])
def test_a_limit_that_does_not_rise(kind: CapsuleType, less: int) -> None:
    assert code_of(kind, varint.encode(LOWEST[kind] - less)) == ErrorCode.WT_FLOW_CONTROL_ERROR


@pytest.mark.parametrize("kind", [*LOWEST, *BLOCKED])
@pytest.mark.parametrize("payload", [b"", b"\x40", b"\x3f\x3f", varint.encode(1 << 40)[:7]])
def test_a_malformed_capsule(kind: CapsuleType, payload: bytes) -> None:
    assert code_of(kind, payload) == ErrorCode.H3_MESSAGE_ERROR


@pytest.mark.parametrize("kind", [k for k in CapsuleType if "STREAMS" in k.name])
def test_no_more_streams_than_have_ids(kind: CapsuleType) -> None:
    credit().receive(kind, varint.encode(1 << 60))
    for limit in ((1 << 60) + 1, varint.MAX):
        assert code_of(kind, varint.encode(limit)) == ErrorCode.WT_FLOW_CONTROL_ERROR


@pytest.mark.parametrize("kind", [CapsuleType.WT_MAX_DATA, CapsuleType.WT_DATA_BLOCKED])
def test_data_may_have_any_limit(kind: CapsuleType) -> None:
    credit().receive(kind, varint.encode(varint.MAX))


@pytest.mark.parametrize("kind", BLOCKED)
def test_that_the_peer_is_blocked_changes_nothing(kind: CapsuleType) -> None:
    account = credit()
    for _ in range(3):
        account.receive(kind, varint.encode(0))
    assert outgoing(account) == (50, 2, 3)


@pytest.mark.parametrize(
    "kind", [CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED]
)
def test_capsules_that_http3_has_no_use_for(kind: CapsuleType) -> None:
    payload = varint.encode(0) + varint.encode(100)
    assert code_of(kind, payload) == ErrorCode.WT_FLOW_CONTROL_ERROR


def test_what_stops_us_is_said_once_for_each_limit() -> None:
    account = credit()
    assert account.data_blocked() == encode_limit(CapsuleType.WT_DATA_BLOCKED, 50)
    assert account.data_blocked() is None
    account.receive(CapsuleType.WT_MAX_DATA, varint.encode(60))
    assert account.data_blocked() == encode_limit(CapsuleType.WT_DATA_BLOCKED, 60)
    for unidirectional, kind in ((False, BLOCKED[1]), (True, BLOCKED[2])):
        limit = account.streams_out[unidirectional].limit
        assert account.streams_blocked(unidirectional) == encode_limit(kind, limit)
        assert account.streams_blocked(unidirectional) is None


def test_streams_that_ended_make_room() -> None:
    account = credit()
    assert account.stream_over(False) is None
    assert account.stream_over(False) == encode_limit(CapsuleType.WT_MAX_STREAMS_BIDI, 6)
    assert account.stream_over(True) is None
    assert account.stream_over(True) is None
    assert account.stream_over(True) == encode_limit(CapsuleType.WT_MAX_STREAMS_UNI, 9)


def test_without_a_window_for_data_no_limit_is_announced() -> None:
    account = SessionCredit(Limits(initial_max_data=0), GRANTED)
    # A stream's end without a byte of data.
    assert account.data_consumed(0) is None


class TwoSides(RuleBasedStateMachine):
    """Two sides that tell each other by capsules only; model: what is open and unread."""

    @initialize(data=st.integers(1, 30), bidi=st.integers(1, 5), uni=st.integers(0, 5))
    def start(self, data: int, bidi: int, uni: int) -> None:
        limits = Limits(
            initial_max_data=data, initial_max_streams_bidi=bidi, initial_max_streams_uni=uni
        )
        self.windows = (data, bidi, uni)
        self.sender = SessionCredit(limits, Credit(data, bidi, uni))
        self.receiver = SessionCredit(limits, Credit(data, bidi, uni))
        self.unread = 0
        self.open = [0, 0]
        self.wire = b""
        self.decoder = CapsuleDecoder()

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
        self.wire += self.receiver.data_consumed(size) or b""

    @rule(unidirectional=st.booleans())
    def open_stream(self, unidirectional: bool) -> None:
        if self.sender.streams_out[unidirectional].take(1):
            self.receiver.streams_in[unidirectional].receive(1)
            self.open[unidirectional] += 1
        assert self.open[unidirectional] <= self.windows[1 + unidirectional]

    @rule(unidirectional=st.booleans())
    def end_stream(self, unidirectional: bool) -> None:
        if self.open[unidirectional]:
            self.open[unidirectional] -= 1
            self.wire += self.receiver.stream_over(unidirectional) or b""

    @rule(size=st.integers(1, 12))
    def deliver(self, size: int) -> None:
        arrived, self.wire = self.wire[:size], self.wire[size:]
        for kind, payload in self.decoder.feed(arrived):
            self.sender.receive(kind, payload)

    @rule()
    def say_what_blocks(self) -> None:
        for capsule, limit in (
            (self.sender.data_blocked(), self.sender.data_out.limit),
            (self.sender.streams_blocked(True), self.sender.streams_out[True].limit),
        ):
            if capsule is not None:
                [(kind, payload)] = CapsuleDecoder().feed(capsule)
                assert decode_limit(payload) == limit
                self.receiver.receive(kind, payload)

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
