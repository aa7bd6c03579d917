"""Deadlines for silence, to the tenth of a second, for both roles."""

from __future__ import annotations

import pytest

from pingpong.webtransport.connection import Connection
from pingpong.webtransport.errors import ErrorCode, ProtocolError
from pingpong.webtransport.http3.frames import encode_headers
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.session import Session
from pingpong.webtransport.states import State
from tests.webtransport.raw import CONNECT, control, parse_control, stream_header
from tests.webtransport.wire import (
    LIMITS,
    Recorder,
    Side,
    Wire,
    assert_connection_failed,
    raw_wire,
)

SILENCE = LIMITS.header_timeout
SOON = 0.1
"""Seconds before a deadline, and after it, at which a test looks."""
ROLES = ("client", "server")


def dribble(wire: Wire, stream_id: int, data: bytes, every: float) -> None:
    """A byte, and again one after so many seconds."""
    for position in range(len(data)):
        wire.raw.send(stream_id, data[position : position + 1])
        wire.run(every)


def patient_wire(role: str = "client") -> tuple[Wire, Side]:
    """A raw peer in a role, whose connection no idle timeout ends; its settings are sent."""
    wire = Wire(raw_client=role == "client", raw_server=role == "server", idle_timeout=600)
    wire.raw.send_settings()
    wire.run()
    return wire, wire.server if role == "client" else wire.client


def assert_others_go_on(wire: Wire, session_id: int, recorder: Recorder, side: Side) -> None:
    """The connection lives, and so does its session."""
    assert side.closed is None
    assert recorder.closed is None
    wire.raw.datagram(b"still here", session_id)
    wire.run()
    assert recorder.datagrams[-1] == b"still here"


# SETTINGS.


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "sent", [b"", control(), control(b"\x04"), control(b"\x04\x03\x33"), b"\x40"]
)
def test_settings_that_never_come(role: str, sent: bytes) -> None:
    wire, side = raw_wire(role)
    begun = wire.now
    if sent:
        wire.raw.open(sent, uni=True)
    wire.run(SILENCE - 3 * SOON)
    assert side.closed is None
    wire.run(3 * SOON)
    assert wire.now - begun == pytest.approx(SILENCE)
    assert_connection_failed(wire, side, ErrorCode.H3_MISSING_SETTINGS)


@pytest.mark.parametrize("role", ROLES)
def test_settings_byte_by_byte_do_not_extend_the_deadline(role: str) -> None:
    wire, side = raw_wire(role)
    dribble(wire, wire.raw.open(uni=True), control(b"\x04\x20" + bytes(32)), every=0.5)
    assert_connection_failed(wire, side, ErrorCode.H3_MISSING_SETTINGS)


@pytest.mark.parametrize("role", ROLES)
def test_settings_at_the_last_moment(role: str) -> None:
    wire, side = raw_wire(role)
    wire.run(SILENCE - 3 * SOON)
    wire.raw.send_settings()
    wire.run(2)
    assert side.ready
    assert side.closed is None


def test_request_without_settings_is_never_decided_on() -> None:
    wire, side = raw_wire("client")
    wire.raw.request()
    wire.run(SILENCE - 3 * SOON)
    assert side.closed is None
    wire.run(3 * SOON)
    assert_connection_failed(wire, side, ErrorCode.H3_MISSING_SETTINGS)
    assert side.sessions == []


# Requests.


@pytest.mark.parametrize("size", [1, 2, 10, len(encode_headers(CONNECT)) - 1])
def test_request_that_is_begun_and_not_finished(size: int) -> None:
    wire, side = patient_wire()
    session_id, recorder = wire.raw_session()
    request = wire.raw.open(encode_headers(CONNECT)[:size])
    wire.run(SILENCE - SOON)
    assert request not in wire.raw.resets
    wire.run(2 * SOON)
    assert wire.raw.resets[request] == ErrorCode.H3_REQUEST_INCOMPLETE
    assert wire.raw.stops[request] == ErrorCode.H3_REQUEST_INCOMPLETE
    assert [error.code for error in side.errors] == [ErrorCode.H3_REQUEST_INCOMPLETE]
    assert [closed.wire_code for closed in side.refused] == [ErrorCode.H3_REQUEST_INCOMPLETE]
    assert_others_go_on(wire, session_id, recorder, side)
    wire.raw.reset(request)
    wire.run()
    side.assert_nothing_left(session_id)


def test_request_by_the_byte_is_not_waited_for_any_longer() -> None:
    wire, side = patient_wire()
    session_id, recorder = wire.raw_session()
    request = wire.raw.open(b"")
    dribble(wire, request, encode_headers(CONNECT)[: int(SILENCE)], every=1 + SOON / 2)
    assert wire.raw.resets[request] == ErrorCode.H3_REQUEST_INCOMPLETE
    assert_others_go_on(wire, session_id, recorder, side)


def test_frames_that_mean_nothing_are_no_request() -> None:
    wire, _ = patient_wire()
    request = wire.raw.open(b"\x21\x00")
    for _ in range(int(SILENCE)):
        wire.run(1)
        wire.raw.send(request, b"\x21\x00")
    wire.run()
    assert wire.raw.resets[request] == ErrorCode.H3_REQUEST_INCOMPLETE


def test_request_that_is_slow_and_comes_in_time() -> None:
    wire, side = patient_wire()
    data = encode_headers(CONNECT)
    request = wire.raw.open(data[:1])
    wire.run(SILENCE / 2)
    wire.raw.send(request, data[1:-1])
    wire.run(SILENCE / 2 - SOON)
    wire.raw.send(request, data[-1:])
    wire.run(10 * SILENCE)
    assert wire.raw.status(request) == 200
    assert side.errors == []
    assert side.connection.sessions == tuple(side.sessions)


def test_request_that_the_client_gives_up_itself_is_not_ended_again() -> None:
    wire, side = patient_wire()
    session_id, recorder = wire.raw_session()
    request = wire.raw.open(encode_headers(CONNECT)[:5])
    wire.run(1)
    wire.raw.reset(request)
    wire.run(2 * SILENCE)
    assert side.errors == []
    assert_others_go_on(wire, session_id, recorder, side)


# Headers of streams.


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("uni", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_stream_header_that_is_begun_and_not_finished(role: str, uni: bool, size: int) -> None:
    wire, side = patient_wire(role)
    session_id, recorder = wire.raw_session() if role == "client" else wire.raw_accepted()
    stream = wire.raw.open(stream_header(0, uni=uni)[:size], uni=uni)
    wire.run(SILENCE - SOON)
    assert stream not in wire.raw.stops
    wire.run(2 * SOON)
    is_request = role == "client" and not uni
    expected = (
        ErrorCode.H3_REQUEST_INCOMPLETE if is_request else ErrorCode.WT_BUFFERED_STREAM_REJECTED
    )
    assert wire.raw.stops[stream] == expected
    assert wire.raw.resets == ({} if uni else {stream: expected})
    assert [error.code for error in side.errors] == [expected]
    assert_others_go_on(wire, session_id, recorder, side)
    # What comes of it all the same means nothing.
    wire.raw.send(stream, bytes(10), end=True)
    wire.run()
    side.assert_nothing_left(session_id)


@pytest.mark.parametrize("role", ROLES)
def test_stream_header_by_the_byte_is_not_waited_for_any_longer(role: str) -> None:
    wire, side = patient_wire(role)
    session_id, recorder = wire.raw_session() if role == "client" else wire.raw_accepted()
    # Both numbers as long as they may be written.
    header = (3 << 62 | 0x54).to_bytes(8, "big") + (3 << 62 | session_id).to_bytes(8, "big")
    stream = wire.raw.open(uni=True)
    dribble(wire, stream, header, every=1)
    assert wire.raw.stops[stream] == ErrorCode.WT_BUFFERED_STREAM_REJECTED
    assert_others_go_on(wire, session_id, recorder, side)
    assert recorder.opened == []


@pytest.mark.parametrize("role", ROLES)
def test_stream_header_that_is_slow_and_comes_in_time(role: str) -> None:
    wire, side = patient_wire(role)
    session_id, recorder = wire.raw_session() if role == "client" else wire.raw_accepted()
    header = stream_header(session_id, uni=True)
    stream = wire.raw.open(header[:1], uni=True)
    wire.run(SILENCE - SOON)
    wire.raw.send(stream, header[1:] + b"data")
    wire.run(10 * SILENCE)
    wire.raw.send(stream, b" and more", end=True)
    wire.run()
    assert recorder.data == {stream: b"data and more"}
    assert side.errors == []


def test_stream_that_is_only_stopped_is_not_waited_for_without_end() -> None:
    wire, side = patient_wire()
    session_id, recorder = wire.raw_session()
    stream = wire.raw.open()
    wire.raw.stop(stream)
    wire.run(SILENCE + SOON)
    assert [error.code for error in side.errors] == [ErrorCode.H3_REQUEST_INCOMPLETE]
    assert_others_go_on(wire, session_id, recorder, side)


# What comes for a session that does not.


@pytest.mark.parametrize("uni", [False, True])
def test_stream_of_a_session_that_never_comes(uni: bool) -> None:
    wire, side = patient_wire()
    session_id, recorder = wire.raw_session()
    stream = wire.raw.open_in(session_id + 8, b"for later", uni=uni)
    wire.run(SILENCE / 2)
    wire.raw.send(stream, b", and later")
    wire.run(SILENCE / 2 - SOON)
    assert stream not in wire.raw.stops
    wire.run(2 * SOON)
    assert wire.raw.stops[stream] == ErrorCode.WT_BUFFERED_STREAM_REJECTED
    assert [error.code for error in side.errors] == [ErrorCode.WT_BUFFERED_STREAM_REJECTED]
    assert_others_go_on(wire, session_id, recorder, side)
    wire.raw.send(stream, end=True)
    wire.run()
    side.assert_nothing_left(session_id)


def test_header_and_session_have_one_deadline_together() -> None:
    wire, _ = patient_wire()
    wire.raw_session()
    header = stream_header(8, uni=True)
    stream = wire.raw.open(header[:1], uni=True)
    wire.run(SILENCE - 1)
    wire.raw.send(stream, header[1:])
    wire.run(1 + SOON)
    assert wire.raw.stops[stream] == ErrorCode.WT_BUFFERED_STREAM_REJECTED


def test_stream_waits_on_where_it_is_this_side_that_decides() -> None:
    wire, side = patient_wire()
    side.decide = lambda session: None
    session_id = wire.raw.request()
    stream = wire.raw.open_in(session_id, b"early", uni=True)
    wire.raw.datagram(b"early", session_id)
    wire.run(3.5 * SILENCE)
    recorder = Recorder()
    side.sessions[0].accept(recorder)
    wire.run()
    assert recorder.data == {stream: b"early"}
    assert recorder.datagrams == [b"early"]
    assert side.errors == []


def test_place_of_a_stream_that_waited_in_vain_is_free_again() -> None:
    wire, _ = patient_wire()
    session_id, _ = wire.raw_session()
    for _ in range(2 * LIMITS.max_buffered_streams):
        wire.raw.open_in(session_id + 8, bytes(100), uni=True)
    wire.run()
    assert len(wire.raw.stops) == LIMITS.max_buffered_streams
    wire.run(SILENCE)
    assert len(wire.raw.stops) == 2 * LIMITS.max_buffered_streams
    wire.raw.open_in(session_id + 8, bytes(LIMITS.max_buffered_bytes), uni=True)
    wire.run()
    assert len(wire.raw.stops) == 2 * LIMITS.max_buffered_streams


@pytest.mark.parametrize("wait", [SILENCE - SOON, SILENCE + SOON])
def test_datagrams_of_a_session_that_does_not_come_in_time(wait: float) -> None:
    wire, side = patient_wire()
    session_id, recorder = wire.raw_session()
    wire.raw.datagram(b"too early", session_id + 4)
    wire.run(wait)
    wire.raw_session()
    other = side.sessions[1].handler
    assert isinstance(other, Recorder)
    assert other.datagrams == ([b"too early"] if wait < SILENCE else [])
    assert side.errors == []
    assert_others_go_on(wire, session_id, recorder, side)


# A connection without a session.


def goaways(wire: Wire) -> int:
    """How often the server has asked the raw client to leave."""
    stream_id = min(stream_id for stream_id in wire.raw.data if stream_id & 2)
    return len([1 for kind, _ in parse_control(wire.raw, stream_id) if kind == 0x07])


def test_connection_without_a_session_is_asked_to_leave_and_then_closed() -> None:
    wire, side = patient_wire()
    for _ in range(int(3 * SILENCE)):
        assert side.closed is None
        wire.raw.quic.ping()
        wire.run(1)
    assert goaways(wire) == 1
    wire.run()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == ErrorCode.H3_NO_ERROR
    assert wire.raw.closed.by_peer
    assert side.closed is not None
    assert side.unused == [side.connection]
    assert side.errors == []
    wire.run(1)
    assert len(wire.server_end) == 0


def test_connection_is_first_asked_to_leave() -> None:
    wire, _ = patient_wire()
    wire.run(2 * SILENCE - 3 * SOON)
    assert goaways(wire) == 0
    wire.run(2 * SOON)
    assert goaways(wire) == 1
    # A request that was on its way is refused so that the client may ask elsewhere.
    request = wire.raw.request()
    wire.run()
    assert wire.raw.resets[request] == ErrorCode.H3_REQUEST_REJECTED


def test_connection_with_a_session_stays() -> None:
    wire, side = patient_wire()
    session_id, recorder = wire.raw_session()
    wire.run(10 * SILENCE)
    assert goaways(wire) == 0
    assert wire.server.engine.deadline is None
    assert_others_go_on(wire, session_id, recorder, side)


def test_connection_whose_session_has_ended_waits_for_another() -> None:
    wire, side = patient_wire()
    session_id, _ = wire.raw_session()
    wire.run(5 * SILENCE)
    wire.raw.send(session_id, end=True)
    wire.run(2 * SILENCE - 3 * SOON)
    session_id, recorder = wire.raw_session()
    wire.run(5 * SILENCE)
    assert_others_go_on(wire, session_id, recorder, side)
    wire.raw.send(session_id, end=True)
    wire.run(3 * SILENCE - SOON)
    assert side.closed is None
    wire.run(2 * SOON)
    assert side.closed is not None
    assert side.unused == [side.connection]


def test_server_that_closes_a_session_late_leaves_time_for_its_end() -> None:
    wire, side = patient_wire()
    wire.raw_session()
    wire.run(5 * SILENCE)
    # The last packet came long before.
    side.sessions[0].close(7, "enough")
    wire.run(SILENCE - SOON)
    assert side.closed is None
    wire.run(SILENCE + 2 * SOON)
    assert side.closed is not None


def test_requests_that_are_refused_are_no_sessions() -> None:
    wire, side = patient_wire()
    side.decide = lambda session: session.reject(401)
    for _ in range(int(3 * SILENCE)):
        if side.closed is None:
            wire.raw.request(end=True)
        wire.run(1)
    wire.run()
    assert side.closed is not None
    assert side.unused == [side.connection]


def test_client_that_waits_for_a_decision_is_not_asked_to_leave() -> None:
    wire, side = patient_wire()
    decided: list[Session] = []
    side.decide = decided.append
    wire.raw.request()
    wire.run(4.5 * SILENCE)
    assert side.closed is None
    assert goaways(wire) == 0
    decided[0].accept(Recorder())
    wire.run(5 * SILENCE)
    assert decided[0].state is State.ESTABLISHED


def test_client_may_stay_without_a_session() -> None:
    # It is for its own user to leave.
    wire, side = patient_wire("server")
    wire.run(10 * SILENCE)
    assert side.closed is None


# The timer.


def test_nothing_is_armed_while_nothing_is_awaited() -> None:
    wire = Wire(idle_timeout=600)
    assert wire.client.engine.deadline is None
    assert wire.server.engine.deadline is not None  # a session
    wire.session()
    assert wire.server.engine.deadline is None


def test_deadline_of_a_connection_that_has_ended_is_none() -> None:
    wire, side = patient_wire()
    wire.raw.open(b"\x40")
    wire.run()
    engine = side.engine
    wire.raw.quic.close(0x100)
    wire.run()
    assert side.closed is not None
    assert engine.deadline is None


def test_time_is_what_the_limits_say() -> None:
    wire = Wire(raw_client=True, server_limits=Limits(header_timeout=2.0))
    wire.run(1.8)
    assert wire.server.closed is None
    wire.run(0.2)
    assert_connection_failed(wire, wire.server, ErrorCode.H3_MISSING_SETTINGS)


def test_handler_that_fails_at_a_deadline_ends_its_connection_alone() -> None:
    wire = Wire(raw_client=True)

    def fails(connection: Connection, error: ProtocolError) -> None:
        raise RuntimeError("a fault of the handler's")

    wire.server.protocol_error = fails  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a fault of the handler's"):
        wire.run(SILENCE + SOON)
    wire.run()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == ErrorCode.H3_INTERNAL_ERROR
