from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pingpong.webtransport import errors
from pingpong.webtransport.errors import (
    ConnectionProtocolError,
    DatagramTooLargeError,
    ErrorCode,
    ProtocolError,
    SessionClosedError,
    SessionProtocolError,
    StateError,
    StreamProtocolError,
    StreamResetError,
    WebTransportError,
    error_name,
    from_http3_code,
    to_http3_code,
)

FIRST = 0x52E4A40FA8DB
LAST = 0x52E5AC983162
FIRST_RESERVED = FIRST + (0x21 - FIRST) % 0x1F
RESERVED = range(FIRST_RESERVED, LAST + 1, 0x1F)
CODES = st.integers(0, 0xFFFF_FFFF)


def test_the_range_of_the_draft() -> None:
    assert (errors.FIRST_APPLICATION_ERROR, errors.LAST_APPLICATION_ERROR) == (FIRST, LAST)
    assert to_http3_code(0) == FIRST
    assert to_http3_code(0xFFFF_FFFF) == LAST
    assert from_http3_code(FIRST) == 0
    assert from_http3_code(LAST) == 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("code", "wire_code"),
    [
        (0x1D, FIRST + 0x1D),
        (0x1E, FIRST + 0x1F),
        (0x3B, FIRST + 0x3C),
        (0x3C, FIRST + 0x3E),
        (0xFFFF_FFFE, LAST - 1),
    ],
)
def test_reserved_code_points_are_skipped(code: int, wire_code: int) -> None:
    assert to_http3_code(code) == wire_code
    assert from_http3_code(wire_code) == code


def test_the_range_has_room_for_exactly_32_bits() -> None:
    assert LAST - FIRST + 1 - len(RESERVED) == 1 << 32
    assert all((code - 0x21) % 0x1F == 0 for code in (RESERVED[0], RESERVED[-1]))


@given(st.integers(0, len(RESERVED) - 1))
@example(0)
@example(len(RESERVED) - 1)
def test_a_reserved_code_point_is_nobodys_and_its_neighbours_are_adjacent(index: int) -> None:
    reserved = RESERVED[index]
    assert from_http3_code(reserved) is None
    below, above = from_http3_code(reserved - 1), from_http3_code(reserved + 1)
    assert below is not None
    assert above == below + 1


@given(CODES)
def test_round_trip_as_the_drafts_pseudo_code_has_it(code: int) -> None:
    wire_code = to_http3_code(code)
    assert wire_code == FIRST + code + code // 0x1E
    assert wire_code not in RESERVED
    assert from_http3_code(wire_code) == code


@given(CODES, CODES)
def test_the_order_is_kept(one: int, other: int) -> None:
    assert (one < other) == (to_http3_code(one) < to_http3_code(other))


@pytest.mark.parametrize(
    "wire_code", [0, ErrorCode.H3_NO_ERROR, ErrorCode.WT_SESSION_GONE, FIRST - 1, LAST + 1, 1 << 61]
)
def test_codes_outside_the_range_are_no_applications(wire_code: int) -> None:
    assert from_http3_code(wire_code) is None


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_an_applications_code_has_32_bits(code: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        to_http3_code(code)


# Draft-16, section 9.5; RFC 9114, section 8.1; RFC 9204, section 6; RFC 9297, section 5.2.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WT_BUFFERED_STREAM_REJECTED", 0x3994BD84),
        ("WT_SESSION_GONE", 0x170D7B68),
        ("WT_FLOW_CONTROL_ERROR", 0x045D4487),
        ("WT_ALPN_ERROR", 0x0817B3DD),
        ("WT_REQUIREMENTS_NOT_MET", 0x212C0D48),
        ("H3_NO_ERROR", 0x100),
        ("H3_STREAM_CREATION_ERROR", 0x103),
        ("H3_CLOSED_CRITICAL_STREAM", 0x104),
        ("H3_FRAME_UNEXPECTED", 0x105),
        ("H3_FRAME_ERROR", 0x106),
        ("H3_EXCESSIVE_LOAD", 0x107),
        ("H3_ID_ERROR", 0x108),
        ("H3_SETTINGS_ERROR", 0x109),
        ("H3_MISSING_SETTINGS", 0x10A),
        ("H3_REQUEST_REJECTED", 0x10B),
        ("H3_REQUEST_CANCELLED", 0x10C),
        ("H3_MESSAGE_ERROR", 0x10E),
        ("QPACK_DECOMPRESSION_FAILED", 0x200),
        ("QPACK_ENCODER_STREAM_ERROR", 0x201),
        ("QPACK_DECODER_STREAM_ERROR", 0x202),
        ("H3_DATAGRAM_ERROR", 0x33),
    ],
)
def test_code_points_and_their_names(name: str, value: int) -> None:
    assert ErrorCode[name] == value
    assert error_name(value) == name


def test_a_code_without_a_name_is_shown_in_hex() -> None:
    assert error_name(FIRST) == "0x52e4a40fa8db"


@pytest.mark.parametrize(
    "kind", [ConnectionProtocolError, SessionProtocolError, StreamProtocolError]
)
def test_a_protocol_error_owns_its_code(kind: type[ProtocolError]) -> None:
    error = kind(ErrorCode.H3_ID_ERROR, "session id 2")
    assert isinstance(error, WebTransportError)
    assert (error.code, error.reason) == (ErrorCode.H3_ID_ERROR, "session id 2")
    assert str(error) == "H3_ID_ERROR: session id 2"


def test_what_the_other_errors_carry() -> None:
    closed = SessionClosedError("closed", 7, "bye")
    assert (closed.code, closed.reason) == (7, "bye")
    assert SessionClosedError("lost").code is None
    assert StreamResetError("reset", 3).code == 3
    too_large = DatagramTooLargeError(1300, 1200)
    assert (too_large.size, too_large.limit) == (1300, 1200)
    assert str(too_large) == "a datagram of 1300 bytes does not fit: at most 1200"
    assert issubclass(StateError, WebTransportError)
