"""Requests that end before anybody is asked: the connection's handler hears of each, once."""

from __future__ import annotations

from pingpong.webtransport import SessionHandler
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.limits import Limits
from tests.webtransport.raw import CONNECT
from tests.webtransport.wire import Recorder, Wire

GET = (b":scheme", b":authority", b":path")
"""What else a request has that is no CONNECT."""


def raw_wire() -> Wire:
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
    wire = raw_wire()
    raw, server = wire.raw, wire.server
    get = [(b":method", b"GET"), *((key, value) for key, value in CONNECT if key in GET)]
    stream = raw.request(get)
    wire.run()
    assert raw.status(stream) == 405
    assert [closed.status for closed in server.refused] == [405]


def test_a_malformed_request() -> None:
    wire = raw_wire()
    raw, server = wire.raw, wire.server
    raw.request([*CONNECT, (b"Upper-Case", b"1")])
    wire.run()
    (closed,) = server.refused
    assert (closed.by_peer, closed.wire_code) == (False, ErrorCode.H3_MESSAGE_ERROR)


def test_a_request_that_the_client_takes_back_unfinished() -> None:
    wire = raw_wire()
    raw, server = wire.raw, wire.server
    stream = raw.open(b"\x01")  # the beginning of a HEADERS frame
    wire.run()
    raw.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
    wire.run()
    assert [closed.by_peer for closed in server.refused] == [True]


def test_whoever_was_asked_is_not_told() -> None:
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


def test_nobody_is_told_of_what_ends_with_its_connection() -> None:
    wire = raw_wire()
    raw, server = wire.raw, wire.server
    raw.open(b"\x01")
    wire.run()
    server.connection.close()
    wire.run()
    assert server.refused == []
