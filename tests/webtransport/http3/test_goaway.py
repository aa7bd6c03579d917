"""GOAWAY, both ways (RFC 9114, section 5.2; draft-16, section 4.6)."""

from __future__ import annotations

import pytest

from pingpong.webtransport.errors import ErrorCode, StateError
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.http3.frames import (
    FrameType,
    encode_headers,
)
from pingpong.webtransport.quic.engine import QuicConnection, QuicEvents
from pingpong.webtransport.states import State
from tests.webtransport.raw import goaway, parse_control
from tests.webtransport.wire import (
    Recorder,
    Wire,
    assert_connection_failed,
)


def test_drain_sends_goaway_and_drains_all_sessions() -> None:
    wire = Wire()
    pairs = [wire.pair() for _ in range(2)]
    wire.server.connection.drain()
    wire.server.connection.drain()
    wire.run()
    assert wire.client.connection.draining
    for session, recorder, _, _ in pairs:
        assert recorder.draining == 1
        assert session.state is State.ESTABLISHED
    with pytest.raises(StateError, match="accepts no more"):
        wire.session()
    # They go on as long as they like.
    pairs[0][0].send_datagram(b"x")
    wire.run()
    assert pairs[0][3].datagrams == [b"x"]


def test_goaway_names_the_first_request_that_is_not_served() -> None:
    wire = Wire(raw_client=True)
    wire.raw_session()
    wire.raw_session()
    wire.server.connection.drain()
    wire.run()
    frames = [f for f in parse_control(wire.raw, 3) if f[0] == FrameType.GOAWAY]
    assert frames == [(FrameType.GOAWAY, b"\x08")]


def test_request_after_goaway_is_rejected_without_being_processed() -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    wire.server.connection.drain()
    late = wire.raw.request()
    wire.run()
    assert wire.raw.resets == wire.raw.stops == {late: ErrorCode.H3_REQUEST_REJECTED}
    assert len(wire.server.sessions) == 1
    assert recorder.closed is None
    # Nobody's fault: they crossed on the way.
    assert wire.server.errors == []
    wire.raw.reset(late)
    wire.run()
    wire.server.assert_nothing_left(0)


def test_goaway_before_the_handshake_is_sent_after_it() -> None:
    wire = Wire(raw_client=True, connect=False)
    attach = wire.server.attach

    def draining(quic: QuicConnection) -> QuicEvents:
        connection = attach(quic)
        wire.server.connection.drain()
        return connection

    wire.server_end._accept = draining
    wire.connect()
    assert parse_control(wire.raw, 3)[-1] == (FrameType.GOAWAY, b"\x00")


def test_session_that_is_established_after_goaway_is_reported_to_drain() -> None:
    wire = Wire()
    wire.server.decide = lambda session: None
    session, recorder = wire.session()
    wire.server.connection.drain()
    wire.run()
    assert recorder.draining == 0
    wire.server.sessions[0].accept(Recorder())
    wire.run()
    assert recorder.established == recorder.draining == 1
    assert session.draining


def test_goaway_refuses_the_requests_that_it_leaves_out() -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    (first, kept), (second, refused) = wire.session(), wire.session()
    wire.raw.send(wire.raw.control, goaway(second.id))
    wire.run()
    assert refused.closed == SessionClosed(
        error="the server accepts no more sessions here",
        wire_code=ErrorCode.H3_REQUEST_REJECTED,
    )
    cancelled = {second.id: ErrorCode.H3_REQUEST_CANCELLED}
    assert wire.raw.resets == wire.raw.stops == cancelled
    assert kept.closed is None
    wire.raw.send(first.id, encode_headers([(b":status", b"200")]))
    wire.raw.reset(second.id)
    wire.run()
    assert kept.established == 1
    assert wire.client.errors == []
    wire.client.assert_nothing_left(first.id)


def test_goaway_can_be_lowered_and_not_raised() -> None:
    wire = Wire(raw_server=True)
    session_id, recorder = wire.raw_accepted()
    wire.raw.send(wire.raw.control, goaway(1 << 40) + goaway(1 << 40) + goaway(400))
    wire.run()
    assert wire.client.errors == []
    assert recorder.draining == 1
    assert session_id == 0
    wire.raw.send(wire.raw.control, goaway(404))
    wire.run()
    assert_connection_failed(wire, wire.client, ErrorCode.H3_ID_ERROR)


@pytest.mark.parametrize("identifier", [1, 2, 3])
def test_goaway_with_no_requests_id(identifier: int) -> None:
    wire = Wire(raw_server=True)
    wire.raw_accepted()
    wire.raw.send(wire.raw.control, goaway(identifier))
    wire.run()
    assert_connection_failed(wire, wire.client, ErrorCode.H3_ID_ERROR)


def test_goaway_of_a_client_drains_its_sessions() -> None:
    wire = Wire()
    session, _, _, peer_recorder = wire.pair()
    wire.client.connection.drain()
    wire.run()
    assert peer_recorder.draining == 1
    assert wire.server.connection.draining
    assert session.state is State.ESTABLISHED
    with pytest.raises(StateError):
        wire.session()


def test_goaway_of_a_client_is_about_pushes_and_forbids_it_no_request() -> None:
    wire = Wire(raw_client=True)
    wire.raw.send_settings()
    # Any number names a push.
    wire.raw.send(wire.raw.control, goaway(3))
    wire.run()
    _, recorder = wire.raw_session()
    assert recorder.established == 1
    wire.server.connection.drain()
    wire.run()
    assert (FrameType.GOAWAY, b"\x04") in parse_control(wire.raw, 3)
