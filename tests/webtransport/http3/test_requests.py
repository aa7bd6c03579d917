"""A server and the requests that it gets: acceptance, rejection, malformed ones."""

from __future__ import annotations

import pytest

from pingpong.webtransport import SessionHandler
from pingpong.webtransport.capsules import CapsuleType
from pingpong.webtransport.drafts import Setting, Version
from pingpong.webtransport.errors import ErrorCode, StateError
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.http3.frames import FrameType, encode_frame, encode_settings
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.states import State
from tests.webtransport.raw import CONNECT
from tests.webtransport.wire import Recorder, Wire

Header = tuple[bytes, bytes]


def without(*names: bytes) -> list[Header]:
    return [(name, value) for name, value in CONNECT if name not in names]


def changed(name: bytes, value: bytes) -> list[Header]:
    return [(key, value if key == name else old) for key, old in CONNECT]


def test_request_is_what_the_client_asked_for() -> None:
    wire = Wire()
    session, recorder, peer, _ = wire.pair(
        authority="localhost:4433",
        path="/ping?x=1",
        origin="https://example.org",
        protocols=("pingpong.v1", "b"),
        headers=((b"x-extra", b"1"),),
    )
    request = peer.request
    assert (request.authority, request.path) == ("localhost:4433", "/ping?x=1")
    assert request.origin == "https://example.org"
    assert request.protocols == ("pingpong.v1", "b")
    assert request.header(b"x-extra") == b"1"
    assert session.state is peer.state is State.ESTABLISHED
    assert recorder.established == 1
    assert session.protocol is peer.protocol is None


def test_acceptance_can_choose_a_protocol() -> None:
    wire = Wire()
    wire.server.decide = lambda session: session.accept(Recorder(), "b")
    session, _, peer, _ = wire.pair(protocols=("a", "b"))
    assert session.protocol == peer.protocol == "b"


def test_accepting_a_protocol_that_was_not_offered_raises() -> None:
    wire = Wire()
    wire.server.decide = lambda session: None
    session, recorder = wire.session(protocols=("a",))
    peer = wire.server.sessions[0]
    with pytest.raises(ValueError, match="does not offer"):
        peer.accept(Recorder(), "b")
    assert peer.state is State.REQUESTED
    peer.accept(Recorder(), "a")
    wire.run()
    assert recorder.established == 1
    assert session.protocol == "a"


@pytest.mark.parametrize("status", [400, 403, 404, 429, 503])
def test_rejection_reaches_the_client_as_a_status(status: int) -> None:
    wire = Wire()
    wire.server.decide = lambda session: session.reject(status, ((b"x-why", b"because"),))
    session, recorder = wire.session()
    assert recorder.closed == SessionClosed(error=f"the server answered {status}", status=status)
    assert recorder.established == 0
    assert session.state is State.CLOSED
    wire.client.assert_nothing_left()
    wire.server.assert_nothing_left()
    assert wire.client.requests_ended == wire.server.requests_ended == 1


def test_default_handlers_reject_sessions_and_refuse_streams() -> None:
    wire = Wire()
    wire.server.decide = super(type(wire.server), wire.server).session_requested
    _, recorder = wire.session()
    assert recorder.closed is not None
    assert recorder.closed.status == 404
    wire.server.decide = lambda session: session.accept(SessionHandler())
    session, recorder = wire.session()
    streams = [session.open_stream(recorder, unidirectional=uni) for uni in (False, True)]
    streams[0].send(b"x")
    streams[1].send(b"x")
    session.send_datagram(b"x")
    session.drain()
    wire.run()
    assert recorder.resets == {streams[0].id: 0}
    assert recorder.stops == {streams[0].id: 0, streams[1].id: 0}
    wire.server.assert_nothing_left(session.id)
    session.close()
    wire.run()
    wire.server.assert_nothing_left()


def test_decision_can_be_made_later() -> None:
    wire = Wire()
    wire.server.decide = lambda session: None
    session, recorder = wire.session()
    other, other_recorder = wire.session()
    assert session.state is State.REQUESTED
    wire.run(1)
    first, second = wire.server.sessions
    second.reject(403)
    first.accept(Recorder())
    wire.run()
    assert recorder.established == 1
    assert other_recorder.closed is not None
    assert other_recorder.closed.status == 403
    for peer in (first, second):
        with pytest.raises(StateError):
            peer.accept(Recorder())
        with pytest.raises(StateError):
            peer.reject(404)
    assert other.state is State.CLOSED


def test_client_neither_accepts_nor_rejects() -> None:
    wire = Wire()
    wire.server.decide = lambda session: None
    session, recorder = wire.session()
    with pytest.raises(StateError):
        session.accept(recorder)
    with pytest.raises(StateError):
        session.reject(404)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", b"/"),
            ],
            405,
            id="GET",
        ),
        pytest.param(changed(b":protocol", b"connect-udp"), 501, id="unknown :protocol"),
        pytest.param([(b":method", b"CONNECT"), (b":authority", b"a:1")], 501, id="plain CONNECT"),
    ],
)
@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("settings_first", [False, True])
def test_request_that_asks_for_no_session(
    headers: list[Header], status: int, end: bool, settings_first: bool
) -> None:
    wire = Wire(raw_client=True)
    if settings_first:
        wire.raw.send_settings()
        wire.run()
    stream_id = wire.raw.request(headers, end=end)
    wire.run()
    if not settings_first:
        assert wire.raw.data.get(stream_id) is None
        wire.raw.send_settings()
        wire.run()
    assert wire.raw.status(stream_id) == status
    if status == 405:
        assert wire.raw.headers(stream_id)[b"allow"] == b"CONNECT"
    assert stream_id in wire.raw.ended
    if not end:
        # A body of it is not of interest, and does no harm.
        wire.raw.send(stream_id, encode_frame(FrameType.DATA, bytes(50_000)), end=True)
        wire.run()
    assert wire.server.errors == []
    assert wire.server.sessions == []
    wire.server.assert_nothing_left()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(without(b":method"), id="no method"),
        pytest.param(without(b":path"), id="no path"),
        pytest.param(without(b":authority"), id="no authority"),
        pytest.param(without(b":scheme"), id="no scheme"),
        pytest.param(changed(b":scheme", b"http"), id="not https"),
        pytest.param([*CONNECT, (b":path", b"/")], id="twice"),
        pytest.param([*CONNECT, (b":status", b"200")], id="of a response"),
        pytest.param([(b"a", b"b"), *CONNECT], id="order"),
        pytest.param([*CONNECT, (b"Upper", b"b")], id="upper case"),
        pytest.param([*CONNECT, (b"connection", b"close")], id="connection"),
        pytest.param([*CONNECT, (b"a", b"b\r\nc: d")], id="value"),
    ],
)
def test_malformed_request_ends_its_stream_only(headers: list[Header]) -> None:
    wire = Wire(raw_client=True)
    first, recorder = wire.raw_session()
    stream_id = wire.raw.request(headers)
    wire.run()
    assert wire.raw.resets == {stream_id: ErrorCode.H3_MESSAGE_ERROR}
    assert wire.raw.stops == {stream_id: ErrorCode.H3_MESSAGE_ERROR}
    assert [error.code for error in wire.server.errors] == [ErrorCode.H3_MESSAGE_ERROR]
    assert recorder.closed is None
    wire.raw.reset(stream_id)
    wire.run()
    wire.server.assert_nothing_left(first)


def test_first_generation_client_may_send_what_others_may_not() -> None:
    """wtransport 0.1: no path, no authority, its fields in any order."""
    wire = Wire(raw_client=True)
    old: dict[int, int] = {Setting.H3_DATAGRAM_DRAFT_04: 1, Setting.ENABLE_WEBTRANSPORT: 1}
    wire.raw.open(b"\0" + encode_settings(old), uni=True)
    session_id = wire.raw.request(
        [
            (b"sec-webtransport-http3-draft02", b"1"),
            (b":protocol", b"webtransport"),
            (b":scheme", b"https"),
            (b":method", b"CONNECT"),
        ]
    )
    wire.run()
    assert wire.raw.status(session_id) == 200
    assert wire.raw.headers(session_id)[b"sec-webtransport-http3-draft"] == b"draft02"
    assert wire.server.sessions[0].request.path == "/"
    draft = wire.server.sessions[0].draft
    assert draft.version is Version.DRAFT_02
    assert not draft.flow_control


def test_client_without_datagrams_makes_a_malformed_request() -> None:
    wire = Wire(raw_client=True)
    wire.raw.send_settings({Setting.H3_DATAGRAM: 0, Setting.H3_DATAGRAM_DRAFT_04: 0})
    session_id = wire.raw.request()
    wire.run()
    assert wire.raw.resets == {session_id: ErrorCode.H3_MESSAGE_ERROR}
    assert wire.raw.closed is None


def test_request_before_the_settings_waits_for_them() -> None:
    wire = Wire(raw_client=True)
    session_id = wire.raw.request()
    wire.raw.capsule(session_id, CapsuleType.DATAGRAM, b"early")
    wire.run()
    assert wire.server.sessions == []
    assert wire.raw.data.get(session_id) is None
    wire.raw.send_settings()
    wire.run()
    assert wire.raw.status(session_id) == 200
    recorder = wire.server.sessions[0].handler
    assert isinstance(recorder, Recorder)
    assert recorder.datagrams == [b"early"]


def test_request_that_ends_before_the_settings_is_a_session_that_ended() -> None:
    wire = Wire(raw_client=True)
    recorder = Recorder()
    wire.server.decide = lambda session: session.accept(recorder)
    session_id = wire.raw.request(end=True)
    wire.run()
    assert recorder.closed is None
    wire.raw.send_settings()
    wire.run()
    assert wire.raw.status(session_id) == 200
    assert recorder.closed == SessionClosed(code=0)
    wire.server.assert_nothing_left()


@pytest.mark.parametrize("end", ["reset", "stop", "lost"])
def test_request_that_is_cancelled_before_the_settings_is_forgotten(end: str) -> None:
    wire = Wire(raw_client=True)
    session_id = wire.raw.request()
    wire.run()
    if end == "reset":
        wire.raw.reset(session_id)
    elif end == "stop":
        wire.raw.stop(session_id)
    else:
        wire.raw.quic.close(0x100)
    wire.run()
    if end == "lost":
        wire.server.assert_forgotten()
    else:
        assert wire.raw.resets.keys() == {session_id}
        wire.raw.send_settings()
        wire.raw.reset(session_id)
        wire.run()
        wire.server.assert_nothing_left()
    assert wire.server.sessions == []
    assert wire.server.errors == []


def test_too_much_before_the_decision_is_refused() -> None:
    wire = Wire(raw_client=True)
    wire.server.decide = lambda session: None
    wire.raw.send_settings()
    session_id = wire.raw.request()
    for _ in range(17):
        wire.raw.send(session_id, encode_frame(FrameType.DATA, bytes(1 << 10)))
    wire.run()
    assert wire.raw.resets == {session_id: ErrorCode.H3_EXCESSIVE_LOAD}
    assert wire.server.sessions[0].state is State.CLOSED


def test_sessions_above_the_cap_get_429() -> None:
    wire = Wire(server_limits=Limits(max_sessions=2))
    first, recorder = wire.session()
    wire.session()
    _, refused = wire.session()
    assert refused.closed is not None
    assert refused.closed.status == 429
    first.close()
    wire.run()
    _, recorder = wire.session()
    assert recorder.established == 1


# Requests that end before the connection's handler is asked: it hears of each, once.


def raw_client() -> Wire:
    wire = Wire(raw_client=True)
    wire.raw.send_settings()
    wire.run()
    return wire


def test_too_many_sessions() -> None:
    wire = Wire(server_limits=Limits(max_sessions=1))
    server = wire.server
    wire.session()
    _, recorder = wire.session()
    assert recorder.closed is not None
    assert [closed.status for closed in server.refused] == [429]


def test_what_is_no_request_for_a_session() -> None:
    wire = raw_client()
    raw, server = wire.raw, wire.server
    stream = raw.request([(b":method", b"GET"), *without(b":method", b":protocol")])
    wire.run()
    assert raw.status(stream) == 405
    assert [closed.status for closed in server.refused] == [405]


def test_a_malformed_request() -> None:
    wire = raw_client()
    raw, server = wire.raw, wire.server
    raw.request([*CONNECT, (b"Upper-Case", b"1")])
    wire.run()
    (closed,) = server.refused
    assert (closed.by_peer, closed.wire_code) == (False, ErrorCode.H3_MESSAGE_ERROR)


def test_a_request_that_the_client_takes_back_unfinished() -> None:
    wire = raw_client()
    raw, server = wire.raw, wire.server
    stream = raw.open(b"\x01")  # the beginning of a HEADERS frame
    wire.run()
    raw.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
    wire.run()
    assert [closed.by_peer for closed in server.refused] == [True]


def test_a_handler_that_was_asked_hears_no_more_of_it() -> None:
    wire = Wire()
    server = wire.server
    server.decide = lambda session: session.reject(403)
    wire.session()
    server.decide = lambda session: session.accept(SessionHandler())
    session, _ = wire.session()
    session.close()
    wire.run()
    server.decide = lambda session: None
    session, recorder = wire.session()
    session.close()
    wire.run()
    assert isinstance(recorder, Recorder)
    assert server.refused == []


def test_what_ends_with_its_connection_is_not_reported() -> None:
    wire = raw_client()
    raw, server = wire.raw, wire.server
    raw.open(b"\x01")
    wire.run()
    server.connection.close()
    wire.run()
    assert server.refused == []
