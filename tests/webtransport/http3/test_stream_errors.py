"""What breaks the rules of HTTP/3: the code that they name, on the scope that they name."""

from __future__ import annotations

import pytest

from pingpong.webtransport.drafts import Setting
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.http3.frames import (
    FrameType,
    encode_frame,
    encode_headers,
    encode_settings,
)
from tests.webtransport.raw import CONNECT, control, goaway
from tests.webtransport.wire import (
    Wire,
    assert_connection_failed,
    raw_wire,
)

SETTINGS = encode_settings(
    {Setting.H3_DATAGRAM: 1, Setting.WT_ENABLED: 1, Setting.ENABLE_CONNECT_PROTOCOL: 1}
)


# The critical streams.


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (control(goaway(0)), ErrorCode.H3_MISSING_SETTINGS),
        (control(encode_frame(FrameType.DATA, b"")), ErrorCode.H3_MISSING_SETTINGS),
        (control(SETTINGS, SETTINGS), ErrorCode.H3_FRAME_UNEXPECTED),
        (control(SETTINGS, encode_frame(FrameType.DATA, b"")), ErrorCode.H3_FRAME_UNEXPECTED),
        (control(SETTINGS, encode_headers(CONNECT)), ErrorCode.H3_FRAME_UNEXPECTED),
        (control(SETTINGS, b"\x02\x00"), ErrorCode.H3_FRAME_UNEXPECTED),
        (control(SETTINGS, b"\x40\x41\x00"), ErrorCode.H3_FRAME_ERROR),
        (control(SETTINGS, b"\x07\x02\x00\x00"), ErrorCode.H3_FRAME_ERROR),
        (control(SETTINGS, b"\x07\x00"), ErrorCode.H3_FRAME_ERROR),
        (control(b"\x04\x01\x08"), ErrorCode.H3_FRAME_ERROR),
        (control(b"\x04\x04\x08\x01\x08\x01"), ErrorCode.H3_SETTINGS_ERROR),
        (control(SETTINGS, goaway(4), goaway(8)), ErrorCode.H3_ID_ERROR),
        (control(SETTINGS, b"\x03\x01\x00"), ErrorCode.H3_ID_ERROR),
        (b"\x02\x3f\xe1\x1f", ErrorCode.QPACK_ENCODER_STREAM_ERROR),
        (b"\x03\x81", ErrorCode.QPACK_DECODER_STREAM_ERROR),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_malformed_critical_stream_is_a_connection_error(
    role: str, data: bytes, code: ErrorCode, bytewise: bool
) -> None:
    wire, side = raw_wire(role)
    stream_id = wire.raw.open(uni=True)
    for piece in [data[i : i + 1] for i in range(len(data))] if bytewise else [data]:
        wire.raw.send(stream_id, piece)
        wire.step()
    wire.run()
    assert_connection_failed(wire, side, code)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("kind", [0x00, 0x02, 0x03])
@pytest.mark.parametrize("end", ["fin", "reset", "stop", "twice"])
def test_critical_stream_is_one_and_never_ends(role: str, kind: int, end: str) -> None:
    wire, side = raw_wire(role)
    first = control(SETTINGS) if kind == 0 else bytes([kind])
    stream_id = wire.raw.open(first, uni=True)
    wire.run()
    code = ErrorCode.H3_CLOSED_CRITICAL_STREAM
    if end == "fin":
        wire.raw.send(stream_id, end=True)
    elif end == "reset":
        wire.raw.reset(stream_id)
    elif end == "stop":
        # The other side's control stream.
        wire.raw.stop(3 if role == "client" else 2)
    else:
        wire.raw.open(bytes([kind]), uni=True)
        code = ErrorCode.H3_STREAM_CREATION_ERROR
    wire.run()
    assert_connection_failed(wire, side, code)


def test_qpack_streams_may_say_what_they_have_to() -> None:
    wire = Wire(raw_client=True)
    wire.raw.open(b"\x02\x20\x20", uni=True)
    wire.raw.open(b"\x03\x40\x7f\xff\x01", uni=True)
    _, recorder = wire.raw_session()
    assert recorder.established == 1


@pytest.mark.parametrize(
    ("role", "code"),
    [("client", ErrorCode.H3_STREAM_CREATION_ERROR), ("server", ErrorCode.H3_ID_ERROR)],
)
def test_push_stream(role: str, code: ErrorCode) -> None:
    wire, side = raw_wire(role)
    wire.raw.open(b"\x01\x00", uni=True)
    wire.run()
    assert_connection_failed(wire, side, code)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("end", [False, True])
def test_unknown_unidirectional_stream_is_stopped_and_does_no_harm(role: str, end: bool) -> None:
    wire, side = raw_wire(role)
    stream_id = wire.raw.open(b"\x21whatever", uni=True, end=end)
    wire.raw.send_settings()
    wire.run()
    expected = {} if end else {stream_id: ErrorCode.H3_STREAM_CREATION_ERROR}
    assert wire.raw.stops == expected
    if not end:
        wire.raw.send(stream_id, b"more")
        wire.raw.reset(stream_id)
        wire.run()
    assert side.errors == []
    side.assert_nothing_left()


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("data", [b"", b"\x40", b"\x40\x54", b"\x40\x54\x80\x00"])
def test_unidirectional_stream_that_ends_before_it_says_what_it_is(role: str, data: bytes) -> None:
    wire, side = raw_wire(role)
    wire.raw.send_settings()
    wire.raw.open(data, uni=True, end=True)
    wire.run()
    assert side.errors == []
    side.assert_nothing_left()


# Request streams.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode_frame(FrameType.DATA, b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
        (b"\x04\x00", ErrorCode.H3_FRAME_UNEXPECTED),
        (goaway(0), ErrorCode.H3_FRAME_UNEXPECTED),
        (b"\x0d\x01\x00", ErrorCode.H3_FRAME_UNEXPECTED),
        (b"\x03\x01\x00", ErrorCode.H3_FRAME_UNEXPECTED),
        (b"\x05\x01\x00", ErrorCode.H3_FRAME_UNEXPECTED),
        (b"\x06\x00", ErrorCode.H3_FRAME_UNEXPECTED),
        (encode_headers(CONNECT) + b"\x40\x41\x00", ErrorCode.H3_FRAME_ERROR),
        (encode_headers(CONNECT) + encode_headers(CONNECT), ErrorCode.H3_FRAME_UNEXPECTED),
        (b"\x01\x02\xff\xff", ErrorCode.QPACK_DECOMPRESSION_FAILED),
        (b"\x01\x03\x00\x00\x80", ErrorCode.QPACK_DECOMPRESSION_FAILED),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_malformed_request_stream_is_a_connection_error(
    data: bytes, code: ErrorCode, bytewise: bool
) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    stream_id = wire.raw.open()
    for piece in [data[i : i + 1] for i in range(len(data))] if bytewise else [data]:
        wire.raw.send(stream_id, piece)
        wire.step()
    wire.run()
    assert_connection_failed(wire, wire.server, code)
    assert recorder.closed is not None
    assert recorder.closed.wire_code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode_frame(FrameType.DATA, b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
        (b"\x05\x01\x00", ErrorCode.H3_ID_ERROR),
        (b"\x40\x41\x00", ErrorCode.H3_FRAME_ERROR),
        (b"\x01\x02\xff\xff", ErrorCode.QPACK_DECOMPRESSION_FAILED),
        (
            encode_headers([(b":status", b"200")]) + encode_headers([(b":status", b"200")]),
            ErrorCode.H3_FRAME_UNEXPECTED,
        ),
    ],
)
def test_malformed_response_stream_is_a_connection_error(data: bytes, code: ErrorCode) -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.run()
    session, recorder = wire.session()
    wire.raw.send(session.id, data)
    wire.run()
    assert_connection_failed(wire, wire.client, code)
    assert recorder.closed is not None


@pytest.mark.parametrize("data", [b"", b"\x41", b"\x40\x41", b"\x40\x41\x40", b"\x21\x00"])
def test_request_stream_that_ends_before_a_request_is_incomplete(data: bytes) -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    stream_id = wire.raw.open(data, end=True)
    wire.run()
    assert wire.raw.resets == {stream_id: ErrorCode.H3_REQUEST_INCOMPLETE}
    assert [error.code for error in wire.server.errors] == [ErrorCode.H3_REQUEST_INCOMPLETE]
    assert recorder.closed is None
    wire.server.assert_nothing_left(session_id)


def test_fin_within_a_frame_is_a_connection_error() -> None:
    wire = Wire(raw_client=True)
    wire.raw.send_settings()
    wire.raw.open(encode_headers(CONNECT)[:-1], end=True)
    wire.run()
    assert_connection_failed(wire, wire.server, ErrorCode.H3_FRAME_ERROR)


def test_oversized_field_section_is_refused() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    stream_id = wire.raw.open(b"\x01\x80\x10\x00\x00")
    wire.run()
    assert wire.raw.resets == {stream_id: ErrorCode.H3_EXCESSIVE_LOAD}
    assert recorder.closed is None
    assert session_id == 0


@pytest.mark.parametrize("data", [b"\x01\x00", b"\x00", b"\x40\x42"])
def test_servers_bidirectional_stream_is_webtransports_or_an_error(data: bytes) -> None:
    wire = Wire(raw_server=True)
    wire.raw.send_settings()
    wire.raw.open(data)
    wire.run()
    assert_connection_failed(wire, wire.client, ErrorCode.H3_STREAM_CREATION_ERROR)
