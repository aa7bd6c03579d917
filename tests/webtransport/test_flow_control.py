"""Session flow control (draft-16, section 5): obeyed, enforced, or ignored where it is off."""

from __future__ import annotations

import pytest

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleType
from pingpong.webtransport.drafts import Setting
from pingpong.webtransport.errors import ErrorCode, StateError
from pingpong.webtransport.http3.frames import FrameType, encode_frame, encode_headers
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.config import Windows
from tests.webtransport.raw import CONNECT, NO_FLOW_CONTROL, capsule
from tests.webtransport.wire import Recorder, Wire, assert_session_failed

FEW = Limits(initial_max_data=100, initial_max_streams_bidi=2, initial_max_streams_uni=3)
FEW_OF_THE_PEER: dict[int, int] = {
    Setting.WT_INITIAL_MAX_DATA: 100,
    Setting.WT_INITIAL_MAX_STREAMS_BIDI: 2,
    Setting.WT_INITIAL_MAX_STREAMS_UNI: 3,
}
MAX_STREAMS = {
    False: CapsuleType.WT_MAX_STREAMS_BIDI,
    True: CapsuleType.WT_MAX_STREAMS_UNI,
}
BLOCKED = {
    False: CapsuleType.WT_STREAMS_BLOCKED_BIDI,
    True: CapsuleType.WT_STREAMS_BLOCKED_UNI,
}


def limit(wire: Wire, kind: CapsuleType, value: int) -> None:
    wire.raw.capsule(0, kind, varint.encode(value))
    wire.run()


# What the peer grants is obeyed.


@pytest.mark.parametrize("uni", [False, True])
def test_streams_beyond_the_sessions_limit_wait_for_max_streams(uni: bool) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session(FEW_OF_THE_PEER)
    session = wire.server.sessions[0]
    allowed = 3 if uni else 2
    streams = [session.open_stream(recorder, unidirectional=uni) for _ in range(allowed)]
    for _ in range(3):
        assert not session.can_open_stream(uni)
    with pytest.raises(StateError):
        session.open_stream(recorder, unidirectional=uni)
    assert session.can_open_stream(not uni)
    # Closed ones count as well.
    streams[0].reset()
    assert not session.can_open_stream(uni)
    wire.run()
    # The peer is told once for each limit.
    assert wire.raw.capsules(0) == [(BLOCKED[uni], bytes([allowed]))]
    limit(wire, MAX_STREAMS[uni], allowed + 1)
    assert recorder.calls == [("credit",)]
    session.open_stream(recorder, unidirectional=uni)
    assert not session.can_open_stream(uni)
    wire.run()
    assert wire.raw.capsules(0)[1:] == [(BLOCKED[uni], bytes([allowed + 1]))]


def test_data_beyond_the_sessions_limit_waits_for_max_data() -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session(FEW_OF_THE_PEER)
    session = wire.server.sessions[0]
    first = session.open_stream(recorder, unidirectional=True)
    second = session.open_stream(recorder, unidirectional=True)
    first.send(b"a" * 80)
    first.send(b"b" * 30)
    second.send(b"c" * 10, True)
    first.send(b"d" * 10, True)
    # Headers do not count; what waits is buffered.
    assert first.buffered == 3 + 120
    assert not second.send_open
    wire.run()
    assert wire.raw.data[first.id][3:] == b"a" * 80 + b"b" * 20
    assert wire.raw.data[second.id][3:] == b""
    assert wire.raw.ended == set()
    assert wire.raw.capsules(0) == [(CapsuleType.WT_DATA_BLOCKED, varint.encode(100))]
    assert session.streams == {first, second}
    limit(wire, CapsuleType.WT_MAX_DATA, 125)
    assert wire.raw.data[first.id][3:] == b"a" * 80 + b"b" * 30 + b"d" * 10
    assert wire.raw.data[second.id][3:] == b"c" * 5
    assert wire.raw.ended == {first.id}
    assert session.streams == {second}
    limit(wire, CapsuleType.WT_MAX_DATA, 1000)
    assert wire.raw.data[second.id][3:] == b"c" * 10
    assert wire.raw.ended == {first.id, second.id}
    assert session.streams == set()
    wire.server.assert_nothing_left(0)


def test_fin_needs_no_credit() -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session(FEW_OF_THE_PEER)
    session = wire.server.sessions[0]
    session.open_stream(recorder, unidirectional=True).send(bytes(100))
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(b"", True)
    wire.run()
    assert wire.raw.ended == {stream.id}


def test_data_that_waits_can_be_reset_stopped_and_abandoned() -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session(FEW_OF_THE_PEER)
    session = wire.server.sessions[0]
    streams = [session.open_stream(recorder, unidirectional=True) for _ in range(3)]
    for stream in streams:
        stream.send(bytes(200), True)
    wire.run()
    streams[0].reset(1)
    wire.raw.stop(streams[1].id)
    wire.run()
    assert session.streams == {streams[2]}
    assert recorder.stops == {streams[1].id: None}
    session.close()
    wire.run()
    assert wire.raw.resets.keys() == {stream.id for stream in streams}
    # What was never sent was not counted as sent either.
    assert wire.raw.final_sizes[streams[0].id] == 100 + 3
    assert wire.raw.final_sizes[streams[1].id] == 3


@pytest.mark.parametrize("end", ["reset", "stop"])
def test_credit_for_what_a_reset_keeps_from_being_sent_is_used_again(end: str) -> None:
    wire = Wire(raw_client=True, client_windows=Windows(stream=23))
    wire.raw.quic._quic.windows = Windows(stream=0)
    _, recorder = wire.raw_session(FEW_OF_THE_PEER)
    session = wire.server.sessions[0]
    assert session.flow is not None
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(bytes(60))
    wire.run()
    # QUIC let 20 of them go, which the final size says.
    assert session.flow.data_out.available == 40
    if end == "reset":
        stream.reset()
    else:
        wire.raw.stop(stream.id)
    wire.run()
    assert wire.raw.final_sizes == {stream.id: 23}
    assert session.flow.data_out.available == 80


# What we grant is enforced, and granted again as it is used.


@pytest.mark.parametrize("uni", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_stream_over_the_limit_closes_the_session(uni: bool, split: bool) -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    _, recorder = wire.raw_session()
    other_id, other = wire.raw_session()
    allowed = [wire.raw.open_in(0, b"x", uni=uni) for _ in range(3 if uni else 2)]
    wire.run()
    assert wire.server.errors == []
    if split:
        extra = wire.raw.open(b"\x40", uni=uni)
        wire.run()
        wire.raw.send(extra, (b"\x54" if uni else b"\x41") + b"\0data")
    else:
        extra = wire.raw.open_in(0, b"data", uni=uni)
    wire.run()
    assert_session_failed(wire, recorder, ErrorCode.WT_FLOW_CONTROL_ERROR)
    assert {s.id for s in recorder.opened} == set(allowed)
    assert wire.raw.stops.keys() == {0, extra, *allowed}
    assert wire.raw.stops[extra] == ErrorCode.WT_SESSION_GONE
    assert other.closed is None
    for stream_id in (extra, *allowed):
        wire.raw.reset(stream_id)
    wire.raw.reset(0)
    wire.run()
    wire.server.assert_nothing_left(other_id)


@pytest.mark.parametrize("uni", [False, True])
def test_streams_that_end_are_granted_again(uni: bool) -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    _, recorder = wire.raw_session()
    for number in range(10):
        stream_id = wire.raw.open_in(0, b"x", uni=uni, end=True)
        wire.run()
        if not uni:
            recorder.opened[number].send(b"", True)
            wire.run()
        assert wire.raw.data[stream_id] == b"" if not uni else True
    grants = [value for kind, value in wire.raw.capsules(0) if kind is MAX_STREAMS[uni]]
    assert grants
    assert varint.decode(grants[-1]) in ((12, 1), (13, 1))
    assert wire.server.errors == []


@pytest.mark.parametrize("reset", [False, True])
def test_data_over_the_limit_closes_the_session(reset: bool) -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    _, recorder = wire.raw_session()
    _, other = wire.raw_session()
    recorder.holding = True
    stream_id = wire.raw.open_in(0, bytes(60), uni=True)
    more = wire.raw.open_in(0, bytes(40), uni=True)
    wire.run()
    assert wire.server.errors == []
    if reset:
        # A reset counts by its final size: here a byte is lost that was counted as sent.
        wire.lose = lambda packet, to_server: to_server
        wire.raw.send(more, b"y")
        wire.step()
        wire.lose = lambda packet, to_server: False
        wire.raw.reset(more, 0x100)
    else:
        wire.raw.send(more, b"y")
    wire.run()
    assert_session_failed(wire, recorder, ErrorCode.WT_FLOW_CONTROL_ERROR)
    assert recorder.data == {stream_id: bytes(60), more: bytes(40)}
    assert recorder.resets == {}
    assert other.closed is None
    for one in (stream_id, 0):
        wire.raw.reset(one)
    if not reset:
        wire.raw.reset(more)
    wire.run()
    wire.server.assert_nothing_left(4)


def test_data_is_granted_again_as_it_is_read() -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    _, recorder = wire.raw_session()
    recorder.holding = True
    stream_id = wire.raw.open_in(0, bytes(100), uni=True)
    wire.run()
    assert wire.raw.capsules(0) == []
    recorder.opened[0].release(49)
    wire.run()
    assert wire.raw.capsules(0) == []
    recorder.opened[0].release(1)
    wire.run()
    assert wire.raw.capsules(0) == [(CapsuleType.WT_MAX_DATA, varint.encode(150))]
    recorder.holding = False
    wire.raw.send(stream_id, bytes(50))
    wire.run()
    assert wire.raw.capsules(0)[1:] == [(CapsuleType.WT_MAX_DATA, varint.encode(200))]
    assert wire.server.errors == []


def test_resets_are_counted_by_final_size_and_granted_again() -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    _, recorder = wire.raw_session()
    recorder.holding = True
    stream_id = wire.raw.open_in(0, bytes(10), uni=True)
    wire.run()
    wire.lose = lambda packet, to_server: to_server
    wire.raw.send(stream_id, bytes(60))
    wire.step()
    wire.lose = lambda packet, to_server: False
    wire.raw.reset(stream_id)
    wire.run()
    assert len(recorder.data[stream_id]) == 10
    session = wire.server.sessions[0]
    assert session.flow is not None
    assert session.flow.data_in.received == 70
    # 60 that nobody will read; 10 are held still.
    assert session.flow.data_in.consumed == 60
    assert session.streams == {recorder.opened[0]}
    recorder.opened[0].release(10)
    assert session.flow.data_in.consumed == 70
    assert session.streams == set()


def test_stopped_stream_uses_no_credit_up() -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    _, recorder = wire.raw_session()
    recorder.holding = True
    stream_id = wire.raw.open_in(0, bytes(90), uni=True)
    wire.run()
    recorder.opened[0].stop()
    wire.run()
    wire.raw.send(stream_id, bytes(60))
    wire.run()
    assert wire.server.errors == []
    session = wire.server.sessions[0]
    assert session.flow is not None
    assert session.flow.data_in.consumed == session.flow.data_in.received == 150


def test_too_much_in_early_streams_closes_the_session_when_it_is_accepted() -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    recorder, after = Recorder(), []
    recorder.holding = True

    def decide(session: object) -> None:
        wire.server.sessions[0].accept(recorder)
        after.append(wire.server.sessions[0].state.value)

    wire.server.decide = decide
    wire.raw.send_settings()
    wire.raw.open()
    early = [wire.raw.open_in(0, bytes(40), uni=True) for _ in range(3)]
    wire.run()
    wire.raw.send(0, encode_headers(CONNECT))
    wire.run()
    # `accept` returns, whatever the peer did.
    assert after == ["closed"]
    assert recorder.established == 1
    assert_session_failed(wire, recorder, ErrorCode.WT_FLOW_CONTROL_ERROR)
    assert wire.raw.stops.keys() == {0, *early}
    for stream_id in (0, *early):
        wire.raw.reset(stream_id)
    wire.run()
    wire.server.assert_nothing_left()


def test_too_many_early_streams_close_the_session_when_it_is_accepted() -> None:
    wire = Wire(raw_client=True, server_limits=FEW)
    wire.raw.send_settings()
    wire.raw.open()
    early = [wire.raw.open_in(0, b"x", uni=True) for _ in range(5)]
    wire.run()
    wire.raw.send(0, encode_headers(CONNECT))
    wire.run()
    recorder = Recorder()
    assert wire.server.sessions[0].state.value == "closed"
    assert wire.raw.resets == {0: ErrorCode.WT_FLOW_CONTROL_ERROR}
    assert wire.raw.stops.keys() == {0, *early}
    assert recorder.closed is None
    for stream_id in (0, *early):
        wire.raw.reset(stream_id)
    wire.run()
    wire.server.assert_nothing_left()


# Both sides ours.


def test_all_of_it_together_moves_more_than_any_window() -> None:
    wire = Wire(client_limits=FEW, server_limits=FEW)
    session, recorder, peer, peer_recorder = wire.pair()
    opened = 0
    for _ in range(200):
        while session.can_open_stream(True) and opened < 30:
            session.open_stream(recorder, unidirectional=True).send(bytes([opened]) * 50, True)
            opened += 1
        wire.run(0.01)
    assert opened == 30
    assert sorted(peer_recorder.data.values()) == [bytes([number]) * 50 for number in range(30)]
    assert (wire.client.errors, wire.server.errors) == ([], [])
    assert (session.streams, peer.streams) == (set(), set())


def test_capsules_sent_before_the_response_count_once_it_is_there() -> None:
    wire = Wire(raw_client=True)
    wire.server.decide = lambda session: None
    wire.raw.send_settings(FEW_OF_THE_PEER)
    wire.raw.request()
    wire.raw.send(
        0,
        encode_frame(
            FrameType.DATA, capsule(CapsuleType.WT_MAX_STREAMS_BIDI, varint.encode(7))[:3]
        ),
    )
    wire.raw.send(
        0,
        encode_frame(
            FrameType.DATA, capsule(CapsuleType.WT_MAX_STREAMS_BIDI, varint.encode(7))[3:]
        ),
    )
    wire.run()
    session = wire.server.sessions[0]
    recorder = Recorder()
    session.accept(recorder)
    assert session.flow is not None
    assert session.flow.streams_out[False].limit == 7
    assert recorder.calls == [("credit",)]


def test_malformed_capsule_before_the_response_fails_the_session_once_accepted() -> None:
    wire = Wire(raw_client=True)
    wire.server.decide = lambda session: None
    wire.raw.send_settings()
    wire.raw.request()
    wire.raw.capsule(0, CapsuleType.WT_MAX_DATA, b"")
    wire.run()
    assert wire.server.errors == []
    recorder = Recorder()
    wire.server.sessions[0].accept(recorder)
    wire.run()
    assert_session_failed(wire, recorder, ErrorCode.H3_MESSAGE_ERROR)


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
