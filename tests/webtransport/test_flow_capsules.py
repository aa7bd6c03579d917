"""The capsules of session flow control, and sessions without it (draft-16, section 5)."""

from __future__ import annotations

import pytest

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleType
from pingpong.webtransport.drafts import Setting
from pingpong.webtransport.errors import ErrorCode, StateError
from pingpong.webtransport.limits import Limits
from tests.webtransport.raw import NO_FLOW_CONTROL
from tests.webtransport.wire import Wire, assert_session_failed


def limit(wire: Wire, kind: CapsuleType, value: int) -> None:
    wire.raw.capsule(0, kind, varint.encode(value))
    wire.run()


# Capsules.

KINDS = [
    CapsuleType.WT_MAX_DATA,
    CapsuleType.WT_MAX_STREAMS_BIDI,
    CapsuleType.WT_MAX_STREAMS_UNI,
    CapsuleType.WT_DATA_BLOCKED,
    CapsuleType.WT_STREAMS_BLOCKED_BIDI,
    CapsuleType.WT_STREAMS_BLOCKED_UNI,
]


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("change", [0, -1])
def test_limit_that_does_not_grow_closes_the_session(kind: CapsuleType, change: int) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    initial = (1 << 20) if kind is CapsuleType.WT_MAX_DATA else 128
    limit(wire, kind, initial + 10)
    assert wire.server.errors == []
    limit(wire, kind, initial + 10 + change)
    assert_session_failed(wire, recorder, ErrorCode.WT_FLOW_CONTROL_ERROR)


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if "STREAMS" in k.name], ids=lambda kind: kind.name
)
def test_stream_limit_above_2_to_the_60_closes_the_session(kind: CapsuleType) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    limit(wire, kind, 1 << 60)
    assert wire.server.errors == []
    limit(wire, kind, (1 << 60) + 1)
    assert_session_failed(wire, recorder, ErrorCode.WT_FLOW_CONTROL_ERROR)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("value", [b"", b"\x01\x02", b"\x40"])
def test_malformed_capsule_closes_the_session(kind: CapsuleType, value: bytes) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    wire.raw.capsule(0, kind, value)
    wire.run()
    assert_session_failed(wire, recorder, ErrorCode.H3_MESSAGE_ERROR)


@pytest.mark.parametrize("flow_control", [True, False])
@pytest.mark.parametrize(
    "kind", [CapsuleType.WT_MAX_STREAM_DATA, CapsuleType.WT_STREAM_DATA_BLOCKED]
)
def test_capsule_that_http3_has_no_use_for_closes_the_session(
    kind: CapsuleType, flow_control: bool
) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session({} if flow_control else NO_FLOW_CONTROL)
    wire.raw.capsule(0, kind, b"\x04\x40\x50")
    wire.run()
    assert_session_failed(wire, recorder, ErrorCode.WT_FLOW_CONTROL_ERROR)


@pytest.mark.parametrize("kind", KINDS[3:], ids=lambda kind: kind.name)
def test_blocked_capsules_change_nothing(kind: CapsuleType) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    for _ in range(2):
        limit(wire, kind, 5)
    assert recorder.calls == []
    assert recorder.closed is None
    assert wire.raw.capsules(0) == []


# Off.


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_without_flow_control_its_capsules_are_ignored(kind: CapsuleType) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session(NO_FLOW_CONTROL)
    session = wire.server.sessions[0]
    assert session.flow is None
    for value in (0, 0, 1 << 61):
        limit(wire, kind, value)
    wire.raw.capsule(0, kind, b"")
    wire.run()
    assert wire.server.errors == []
    assert recorder.closed is None
    assert session.can_open_stream(False)
    assert session.can_open_stream(True)


def test_without_flow_control_only_quic_limits_what_is_sent() -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session(NO_FLOW_CONTROL)
    stream = wire.server.sessions[0].open_stream(recorder)
    stream.send(bytes(2 << 20), True)
    received = wire.raw.open_in(0, bytes(2 << 20), end=True)
    wire.run(3)
    assert len(wire.raw.data[stream.id]) == (2 << 20) + 3
    assert len(recorder.data[received]) == 2 << 20
    assert wire.raw.capsules(0) == []


@pytest.mark.parametrize(
    "setting",
    [
        Setting.WT_INITIAL_MAX_DATA,
        Setting.WT_INITIAL_MAX_STREAMS_BIDI,
        Setting.WT_INITIAL_MAX_STREAMS_UNI,
    ],
)
def test_any_of_the_three_settings_turns_it_on(setting: Setting) -> None:
    wire = Wire(raw_client=True)
    wire.raw_session({**NO_FLOW_CONTROL, setting: 1})
    session = wire.server.sessions[0]
    assert session.flow is not None
    # The default of the others is zero.
    assert session.can_open_stream(False) == (setting == Setting.WT_INITIAL_MAX_STREAMS_BIDI)
    assert session.can_open_stream(True) == (setting == Setting.WT_INITIAL_MAX_STREAMS_UNI)


def test_off_where_this_side_turns_it_off() -> None:
    off = Limits(initial_max_data=0, initial_max_streams_bidi=0, initial_max_streams_uni=0)
    wire = Wire(raw_client=True, server_limits=off)
    wire.raw_session()
    assert wire.server.sessions[0].flow is None


def test_second_session_without_flow_control_is_rejected() -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session(NO_FLOW_CONTROL)
    second = wire.raw.request()
    wire.run()
    assert wire.raw.resets == {second: ErrorCode.H3_REQUEST_REJECTED}
    assert wire.raw.stops == {second: ErrorCode.H3_REQUEST_REJECTED}
    assert [error.code for error in wire.server.errors] == [ErrorCode.H3_REQUEST_REJECTED]
    assert recorder.closed is None
    wire.raw.reset(second)
    # Once the first has gone, there is room again.
    wire.server.sessions[0].close()
    wire.raw.send(0, end=True)
    wire.run()
    third, recorder = wire.raw_session()
    assert wire.raw.status(third) == 200
    assert recorder.established


def test_second_session_of_our_own_without_flow_control_is_refused() -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings(NO_FLOW_CONTROL)
    wire.run()
    session, recorder = wire.session()
    with pytest.raises(StateError, match="one session at a time"):
        wire.session()
    session.close()
    wire.run()
    other, _ = wire.session()
    assert other.id == session.id + 4
    assert recorder.closed is not None
