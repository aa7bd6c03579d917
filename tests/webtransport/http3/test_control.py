from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport import varint
from pingpong.webtransport.errors import ConnectionProtocolError, ErrorCode
from pingpong.webtransport.http3.control import (
    ControlStream,
    CriticalStream,
    QpackDecoderStream,
    QpackEncoderStream,
)
from pingpong.webtransport.http3.frames import HTTP2_FRAMES, FrameType, encode_settings

MAX_SETTINGS = 128
SETTINGS = {0x08: 1, 0x33: 1, 0x2C7CF000: 1, 0x1F * 5 + 0x21: 77}


class Events:
    """Writes down what the control stream says."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def settings_received(self, settings: Mapping[int, int]) -> None:
        self.said.append(settings)

    def goaway_received(self, identifier: int) -> None:
        self.said.append(identifier)


def control(events: Events, *, is_client: bool = False) -> ControlStream:
    return ControlStream(
        events.settings_received, events.goaway_received, MAX_SETTINGS, is_client=is_client
    )


def raw(kind: int, payload: bytes = b"") -> bytes:
    return varint.encode(kind) + varint.encode(len(payload)) + payload


def integer(kind: FrameType, value: int) -> bytes:
    return raw(kind, varint.encode(value))


def feed(pieces: Iterable[bytes], *, is_client: bool = False) -> tuple[list[Any], str]:
    """What is said before the end or an error, and the error's name."""
    events = Events()
    stream = control(events, is_client=is_client)
    try:
        for piece in pieces:
            stream.receive(piece, False, 0)
    except ConnectionProtocolError as error:
        return events.said, error.code.name
    return events.said, ""


def both_ways(data: bytes, *, is_client: bool = False) -> tuple[list[Any], str]:
    """As `feed`, at once and byte by byte, which must make no difference."""
    whole = feed([data], is_client=is_client)
    assert feed((bytes((byte,)) for byte in data), is_client=is_client) == whole
    return whole


FIRST = encode_settings(SETTINGS)
GREASE = raw(0x1F * 9 + 0x21, b"whatever") + raw(0xF0700, b"priority") + raw(0x21)


class TestFirstFrame:
    def test_settings(self) -> None:
        assert both_ways(FIRST) == ([SETTINGS], "")

    def test_settings_of_none(self) -> None:
        assert both_ways(encode_settings({})) == ([{}], "")

    @pytest.mark.parametrize("cut", range(1, len(FIRST)))
    def test_not_before_they_are_complete(self, cut: int) -> None:
        assert feed([FIRST[:cut]]) == ([], "")
        assert feed([FIRST[:cut], FIRST[cut:]]) == ([SETTINGS], "")

    @pytest.mark.parametrize(
        "kind",
        [
            FrameType.DATA,
            FrameType.HEADERS,
            FrameType.CANCEL_PUSH,
            FrameType.PUSH_PROMISE,
            FrameType.GOAWAY,
            FrameType.MAX_PUSH_ID,
            FrameType.WT_STREAM,
            *sorted(HTTP2_FRAMES),
            0x21,
            0xF0700,
        ],
    )
    def test_any_other_is_as_if_there_were_no_settings(self, kind: int) -> None:
        # The type alone is enough.
        assert both_ways(varint.encode(kind)) == ([], "H3_MISSING_SETTINGS")
        assert both_ways(raw(kind, b"\0") + FIRST) == ([], "H3_MISSING_SETTINGS")

    def test_a_type_that_is_longer_than_needed(self) -> None:
        assert both_ways(bytes.fromhex("c000000000000004 00")) == ([{}], "")
        assert both_ways(bytes.fromhex("c000000000000007 01 00")) == ([], "H3_MISSING_SETTINGS")


class TestAfterwards:
    def test_unknown_frames_are_skipped(self) -> None:
        goaway = integer(FrameType.GOAWAY, 8)
        assert both_ways(FIRST + GREASE + goaway + GREASE) == ([SETTINGS, 8], "")

    def test_a_second_settings(self) -> None:
        assert both_ways(FIRST + raw(FrameType.SETTINGS)) == ([SETTINGS], "H3_FRAME_UNEXPECTED")

    @pytest.mark.parametrize("kind", sorted(HTTP2_FRAMES))
    def test_http2s_frames(self, kind: int) -> None:
        assert both_ways(FIRST + raw(kind)) == ([SETTINGS], "H3_FRAME_UNEXPECTED")

    @pytest.mark.parametrize(
        ("kind", "error"),
        [
            (FrameType.DATA, "H3_FRAME_UNEXPECTED"),
            (FrameType.HEADERS, "H3_FRAME_UNEXPECTED"),
            (FrameType.PUSH_PROMISE, "H3_FRAME_UNEXPECTED"),
            (FrameType.WT_STREAM, "H3_FRAME_ERROR"),
        ],
    )
    def test_frames_of_other_streams(self, kind: FrameType, error: str) -> None:
        assert both_ways(FIRST + raw(kind)) == ([SETTINGS], error)


class TestSettings:
    @given(
        st.dictionaries(st.integers(0, varint.MAX), st.integers(0, varint.MAX), max_size=6),
        st.integers(0, 6),
        st.integers(0, 1000),
    )
    def test_grease_anywhere(self, settings: dict[int, int], at: int, n: int) -> None:
        pairs = list(settings.items())
        pairs.insert(at, (0x1F * n + 0x21, n))
        expected = dict(pairs)
        assert feed([encode_settings(expected)]) == ([expected], "")

    def test_truncated(self) -> None:
        assert both_ways(raw(FrameType.SETTINGS, b"\x33")) == ([], "H3_FRAME_ERROR")

    def test_twice_the_same(self) -> None:
        assert both_ways(raw(FrameType.SETTINGS, b"\x33\1\x33\1")) == ([], "H3_SETTINGS_ERROR")

    def test_too_many(self) -> None:
        header = varint.encode(FrameType.SETTINGS) + varint.encode(MAX_SETTINGS + 1)
        assert both_ways(header) == ([], "H3_EXCESSIVE_LOAD")

    def test_too_many_by_far(self) -> None:
        header = varint.encode(FrameType.SETTINGS) + varint.encode(varint.MAX)
        assert both_ways(header) == ([], "H3_EXCESSIVE_LOAD")

    def test_an_error_in_what_the_settings_mean_is_the_first_one(self) -> None:
        class Strict(Events):
            def settings_received(self, settings: Mapping[int, int]) -> None:
                raise ConnectionProtocolError(ErrorCode.H3_SETTINGS_ERROR, "not these")

        stream = control(Strict())
        with pytest.raises(ConnectionProtocolError) as raised:
            stream.receive(FIRST + raw(FrameType.DATA), False, 0)
        assert raised.value.code == ErrorCode.H3_SETTINGS_ERROR


class TestIntegerFrames:
    @pytest.mark.parametrize("is_client", [False, True])
    def test_goaway_may_come_again(self, is_client: bool) -> None:
        data = FIRST + integer(FrameType.GOAWAY, varint.MAX - 3) + integer(FrameType.GOAWAY, 0)
        assert both_ways(data, is_client=is_client) == ([SETTINGS, varint.MAX - 3, 0], "")

    @pytest.mark.parametrize(
        "kind", [FrameType.GOAWAY, FrameType.MAX_PUSH_ID, FrameType.CANCEL_PUSH]
    )
    @pytest.mark.parametrize(
        "payload", [b"", b"\x40", b"\0\0", bytes(9), varint.encode(99) + b"\0"]
    )
    def test_malformed(self, kind: FrameType, payload: bytes) -> None:
        assert both_ways(FIRST + raw(kind, payload)) == ([SETTINGS], "H3_FRAME_ERROR")

    def test_max_push_id_only_grows(self) -> None:
        data = FIRST + b"".join(integer(FrameType.MAX_PUSH_ID, value) for value in (0, 5, 5, 100))
        assert both_ways(data) == ([SETTINGS], "")
        assert both_ways(data + integer(FrameType.MAX_PUSH_ID, 99)) == ([SETTINGS], "H3_ID_ERROR")

    @pytest.mark.parametrize("payload", [b"\0", b"", b"\0\0"])
    def test_max_push_id_is_the_clients_to_send(self, payload: bytes) -> None:
        data = FIRST + raw(FrameType.MAX_PUSH_ID, payload)
        assert both_ways(data, is_client=True) == ([SETTINGS], "H3_FRAME_UNEXPECTED")

    @pytest.mark.parametrize("is_client", [False, True])
    def test_no_push_can_be_cancelled(self, is_client: bool) -> None:
        for data in (
            FIRST + integer(FrameType.CANCEL_PUSH, 0),
            FIRST + integer(FrameType.CANCEL_PUSH, varint.MAX),
        ):
            assert both_ways(data, is_client=is_client) == ([SETTINGS], "H3_ID_ERROR")

    def test_not_even_an_allowed_one(self) -> None:
        allowed = integer(FrameType.MAX_PUSH_ID, 10)
        data = FIRST + allowed + integer(FrameType.CANCEL_PUSH, 3)
        assert both_ways(data) == ([SETTINGS], "H3_ID_ERROR")


@given(st.binary(max_size=60), st.booleans(), st.lists(st.integers(0, 60), max_size=4))
def test_splits_of_anything_make_no_difference(
    behind: bytes, is_client: bool, cuts: list[int]
) -> None:
    data = FIRST + behind
    whole = both_ways(data, is_client=is_client)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert feed(pieces, is_client=is_client) == whole


class TestEnds:
    @pytest.fixture(
        params=[
            lambda: control(Events(), is_client=True),
            QpackEncoderStream,
            QpackDecoderStream,
            lambda: CriticalStream("control"),
        ]
    )
    def stream(self, request: pytest.FixtureRequest) -> CriticalStream:
        make: Callable[[], CriticalStream] = request.param
        return make()

    @pytest.mark.parametrize(
        "end",
        [
            lambda stream: stream.receive(b"", True, 0),
            lambda stream: stream.receive_reset(0, 10),
            lambda stream: stream.receive_stop(ErrorCode.H3_NO_ERROR),
        ],
    )
    def test_any_end_is_the_connections(
        self, stream: CriticalStream, end: Callable[[CriticalStream], None]
    ) -> None:
        with pytest.raises(ConnectionProtocolError) as raised:
            end(stream)
        assert raised.value.code == ErrorCode.H3_CLOSED_CRITICAL_STREAM

    def test_nothing_without_an_end(self, stream: CriticalStream) -> None:
        stream.receive(b"", False, 0)

    def test_what_comes_with_the_end_counts(self) -> None:
        events = Events()
        stream = control(events)
        with pytest.raises(ConnectionProtocolError) as raised:
            stream.receive(FIRST, True, 0)
        assert raised.value.code == ErrorCode.H3_CLOSED_CRITICAL_STREAM
        assert events.said == [SETTINGS]


def instructions_refused(stream: CriticalStream, data: bytes) -> ErrorCode | None:
    """The code that `data` is answered with, fed byte by byte."""
    try:
        for byte in data:
            stream.receive(bytes((byte,)), False, 0)
    except ConnectionProtocolError as error:
        return error.code
    return None


class TestQpackEncoderStream:
    def test_a_capacity_of_nothing_may_be_set_often(self) -> None:
        stream = QpackEncoderStream()
        stream.receive(b"\x20", False, 0)
        stream.receive(b"\x20" * 10, False, 0)

    # RFC 9204, section 4.3: a capacity, an insert by name, one by literal name, a duplicate.
    @pytest.mark.parametrize(
        "instruction", ["21", "3f", "3f00", "c000", "8000", "4000", "00", "1f"]
    )
    @pytest.mark.parametrize("around", [b"", b"\x20"])
    def test_anything_else_needs_a_table(self, instruction: str, around: bytes) -> None:
        data = around + bytes.fromhex(instruction) + around
        code = ErrorCode.QPACK_ENCODER_STREAM_ERROR
        assert instructions_refused(QpackEncoderStream(), data) == code
        with pytest.raises(ConnectionProtocolError) as raised:
            QpackEncoderStream().receive(data, False, 0)
        assert raised.value.code == code


def prefixed(first: int, bits: int, value: int) -> bytes:
    """RFC 7541, section 5.1: an integer behind the first bits of a byte."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((first | value,))
    encoded, value = bytearray((first | limit,)), value - limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class TestQpackDecoderStream:
    @given(st.lists(st.integers(0, varint.MAX), max_size=5))
    def test_streams_may_be_cancelled(self, stream_ids: list[int]) -> None:
        data = b"".join(prefixed(0x40, 6, stream_id) for stream_id in stream_ids)
        assert instructions_refused(QpackDecoderStream(), data) is None
        QpackDecoderStream().receive(data, False, 0)

    # RFC 9204, section 4.4: a section's acknowledgment, an insert count's increment.
    @pytest.mark.parametrize("instruction", [b"\x80", b"\xff", b"\x00", b"\x01", b"\x3f"])
    @given(stream_id=st.integers(0, varint.MAX))
    def test_nothing_can_be_acknowledged(self, instruction: bytes, stream_id: int) -> None:
        data = prefixed(0x40, 6, stream_id) + instruction
        code = ErrorCode.QPACK_DECODER_STREAM_ERROR
        assert instructions_refused(QpackDecoderStream(), data) == code

    def test_the_largest_integer_there_is(self) -> None:
        largest = prefixed(0x40, 6, varint.MAX)
        assert len(largest) == 10
        assert instructions_refused(QpackDecoderStream(), largest) is None

    @pytest.mark.parametrize("more", [1, 1000])
    def test_an_integer_without_an_end(self, more: int) -> None:
        data = b"\x7f" + b"\x80" * (8 + more)
        code = ErrorCode.QPACK_DECODER_STREAM_ERROR
        assert instructions_refused(QpackDecoderStream(), data) == code
        assert instructions_refused(QpackDecoderStream(), b"\x7f" + b"\x80" * 8 + b"\0") is None
