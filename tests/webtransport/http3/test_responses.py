"""A client and the responses that it gets."""

from __future__ import annotations

import pytest

from pingpong.webtransport.errors import ErrorCode, StateError
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.http3.frames import FrameType, encode_frame, encode_headers
from pingpong.webtransport.states import State
from tests.webtransport.wire import Recorder, Wire

Header = tuple[bytes, bytes]


def answered(*fields: Header, protocols: tuple[str, ...] = (), end: bool = False) -> Recorder:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session(protocols=protocols)
    wire.raw.send(session.id, encode_headers(fields), end=end)
    wire.run()
    recorder.calls.append((wire, session))
    return recorder


@pytest.mark.parametrize("status", [200, 204, 299])
def test_any_2xx_establishes(status: int) -> None:
    assert answered((b":status", b"%d" % status)).established == 1


@pytest.mark.parametrize("status", [300, 302, 308, 400, 404, 429, 500, 999])
@pytest.mark.parametrize("end", [False, True])
def test_other_statuses_are_reported_and_redirects_not_followed(status: int, end: bool) -> None:
    recorder = answered((b":status", b"%d" % status), (b"location", b"https://b/"), end=end)
    wire, session = recorder.calls[0]
    assert recorder.established == 0
    assert recorder.closed == SessionClosed(error=f"the server answered {status}", status=status)
    assert session.id in wire.raw.ended
    assert wire.raw.data.keys() == {2, session.id}
    if not end:
        # Nor is what comes with it read.
        assert wire.raw.stops == {session.id: ErrorCode.H3_REQUEST_CANCELLED}
        wire.raw.send(session.id, encode_frame(FrameType.DATA, bytes(100_000)))
        wire.raw.reset(session.id)
        wire.run()
    wire.client.assert_nothing_left()
    assert wire.client.errors == []


def test_interim_responses_are_skipped() -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session()
    for status in (b"100", b"103", b"150"):
        wire.raw.send(session.id, encode_headers([(b":status", status), (b"link", b"x")]))
    wire.run()
    assert recorder.established == 0
    assert session.state is State.REQUESTED
    wire.raw.send(session.id, encode_headers([(b":status", b"200")]))
    wire.run()
    assert recorder.established == 1


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([(b":status", b"101")], id="101"),
        pytest.param([(b":status", b"20")], id="two digits"),
        pytest.param([(b":status", b"")], id="empty"),
        pytest.param([(b"x", b"y")], id="no status"),
        pytest.param([(b"x", b"y"), (b":status", b"200")], id="order"),
        pytest.param([(b":status", b"200"), (b":path", b"/")], id="of a request"),
    ],
)
def test_malformed_response_ends_the_session(fields: list[Header]) -> None:
    recorder = answered(*fields)
    wire, session = recorder.calls[0]
    assert recorder.closed is not None
    assert recorder.closed.wire_code == ErrorCode.H3_MESSAGE_ERROR
    assert wire.raw.resets == wire.raw.stops == {session.id: ErrorCode.H3_MESSAGE_ERROR}
    assert wire.raw.closed is None


@pytest.mark.parametrize(
    ("offered", "named", "protocol"),
    [
        (("a", "b"), b'"b"', "b"),
        (("a", "b"), b'"b";q=1', "b"),
        (("a",), b"a", None),
        (("a",), b"garbage(", None),
        (("a",), None, None),
        ((), b'"a"', None),
    ],
)
def test_protocol_of_the_response(
    offered: tuple[str, ...], named: bytes | None, protocol: str | None
) -> None:
    fields = [(b":status", b"200")]
    if named is not None:
        fields.append((b"wt-protocol", named))
    recorder = answered(*fields, protocols=offered)
    session = recorder.calls[0][1]
    assert recorder.established == 1
    assert session.protocol == protocol


def test_protocol_that_was_not_offered_is_an_alpn_error() -> None:
    recorder = answered((b":status", b"200"), (b"wt-protocol", b'"c"'), protocols=("a", "b"))
    wire, session = recorder.calls[0]
    assert recorder.established == 0
    assert recorder.closed is not None
    assert recorder.closed.wire_code == ErrorCode.WT_ALPN_ERROR
    assert wire.raw.resets == wire.raw.stops == {session.id: ErrorCode.WT_ALPN_ERROR}
    assert [error.code for error in wire.client.errors] == [ErrorCode.WT_ALPN_ERROR]


def test_request_that_cannot_be_expressed_leaves_nothing() -> None:
    wire = Wire()
    with pytest.raises(ValueError, match="printable"):
        wire.session(protocols=("grüße",))
    wire.client.assert_nothing_left()


def test_request_waits_for_the_servers_settings() -> None:
    wire = Wire(raw_server=True)
    with pytest.raises(StateError):
        wire.session()
    wire.raw.send_settings()
    wire.run()
    wire.session()


@pytest.mark.parametrize("code", [ErrorCode.H3_REQUEST_REJECTED, ErrorCode.H3_INTERNAL_ERROR])
def test_request_that_is_reset_says_why(code: ErrorCode) -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session()
    wire.raw.reset(session.id, code)
    wire.run()
    assert recorder.closed == SessionClosed(
        error=f"the peer reset the session: {code.name}", wire_code=code
    )
    wire.raw.stop(session.id, code)
    wire.run()
    wire.client.assert_nothing_left()


def test_response_with_stop_sending_without_error_is_processed() -> None:
    """A server may have no use for the rest of a request (RFC 9114, section 4.1)."""
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session()
    wire.raw.stop(session.id, ErrorCode.H3_NO_ERROR)
    wire.run()
    assert recorder.closed is None
    wire.raw.send(session.id, encode_headers([(b":status", b"403")]), end=True)
    wire.run()
    assert recorder.closed is not None
    assert recorder.closed.status == 403
    wire.client.assert_nothing_left()


def test_request_can_be_cancelled() -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session()
    session.close(5)
    wire.run()
    assert recorder.closed == SessionClosed(code=5, by_peer=False)
    cancelled = {session.id: ErrorCode.H3_REQUEST_CANCELLED}
    assert (wire.raw.resets, wire.raw.stops) == (cancelled, cancelled)
    # The answer comes too late.
    wire.raw.send(session.id, encode_headers([(b":status", b"200")]))
    wire.raw.reset(session.id)
    wire.run()
    assert recorder.established == 0
    wire.client.assert_nothing_left()
