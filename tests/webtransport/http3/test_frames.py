from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pingpong.webtransport import varint
from pingpong.webtransport.errors import (
    ConnectionProtocolError,
    ErrorCode,
    ProtocolError,
    StreamProtocolError,
)
from pingpong.webtransport.http3.frames import (
    HTTP2_FRAMES,
    FrameReader,
    FrameType,
    decode_headers,
    decode_integer,
    decode_settings,
    encode_frame,
    encode_headers,
    encode_settings,
)

Frames = list[tuple[int, bytes]]
MAX_SETTINGS = 64
MAX_FIELD_SECTION = 100
CONTROL_ONLY = [
    FrameType.CANCEL_PUSH,
    FrameType.SETTINGS,
    FrameType.GOAWAY,
    FrameType.MAX_PUSH_ID,
]


def control() -> FrameReader:
    return FrameReader.for_control(MAX_SETTINGS)


def request(*, is_client: bool = False) -> FrameReader:
    return FrameReader.for_request(MAX_FIELD_SECTION, is_client=is_client)


def grease(n: int) -> int:
    """RFC 9114, section 7.2.8: types to exercise that unknown ones are skipped."""
    return 0x1F * n + 0x21


def raw(kind: int, payload: bytes) -> bytes:
    return varint.encode(kind) + varint.encode(len(payload)) + payload


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Pieces of `data`, cut at each of the offsets that lies within it."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def read(reader: FrameReader, pieces: Iterable[bytes]) -> tuple[Frames, str]:
    """The frames up to the end or an error, neighbouring DATA joined; and what the error was."""
    frames: Frames = []
    try:
        for piece in pieces:
            for kind, payload in reader.feed(piece):
                if kind == FrameType.DATA and frames and frames[-1][0] == FrameType.DATA:
                    frames[-1] = (kind, frames[-1][1] + payload)
                else:
                    frames.append((kind, payload))
    except ProtocolError as error:
        return frames, f"{type(error).__name__} {error.code.name}"
    return frames, "incomplete" if reader.incomplete else ""


def bytewise(data: bytes) -> Iterable[bytes]:
    return (bytes((byte,)) for byte in data)


CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)
GREASE = st.tuples(
    st.integers(0, (varint.MAX - 0x21) // 0x1F).map(grease)
    # PRIORITY_UPDATE (RFC 9218), ORIGIN (RFC 9412), and HTTP/2's that HTTP/3 leaves free.
    | st.sampled_from([0xF0700, 0xF0701, 0x0C, 0x0A, 0x0E]),
    st.binary(max_size=20),
)


class TestFrames:
    @given(
        st.lists(
            st.tuples(st.sampled_from([FrameType.HEADERS, FrameType.DATA]), st.binary(max_size=20))
            | GREASE,
            max_size=8,
        ),
        CUTS,
    )
    def test_splits_of_a_request_make_no_difference(self, made: Frames, cuts: list[int]) -> None:
        data = b"".join(raw(kind, payload) for kind, payload in made)
        expected: Frames = []
        for kind, payload in made:
            if kind == FrameType.HEADERS:
                expected.append((kind, payload))
            elif kind == FrameType.DATA and payload:
                if expected and expected[-1][0] == FrameType.DATA:
                    expected[-1] = (kind, expected[-1][1] + payload)
                else:
                    expected.append((kind, payload))
        assert read(request(), [data]) == (expected, "")
        assert read(request(), split(data, cuts)) == (expected, "")
        assert read(request(), bytewise(data)) == (expected, "")

    @given(
        st.lists(
            st.tuples(st.sampled_from(CONTROL_ONLY), st.binary(max_size=8)) | GREASE, max_size=8
        ),
        CUTS,
    )
    def test_splits_of_a_control_stream_make_no_difference(
        self, made: Frames, cuts: list[int]
    ) -> None:
        data = b"".join(raw(kind, payload) for kind, payload in made)
        expected = [(kind, payload) for kind, payload in made if kind in CONTROL_ONLY]
        assert read(control(), [data]) == (expected, "")
        assert read(control(), split(data, cuts)) == (expected, "")
        assert read(control(), bytewise(data)) == (expected, "")

    @given(st.binary(max_size=80), CUTS, st.sampled_from([control, request]))
    @example(raw(FrameType.HEADERS, b"\0\0") + raw(0x02, b""), [], request)
    @example(raw(FrameType.DATA, b"data") + varint.encode(FrameType.WT_STREAM), [], request)
    @example(raw(FrameType.SETTINGS, b"") + raw(FrameType.GOAWAY, bytes(9)), [], control)
    def test_splits_of_anything_make_no_difference(
        self, data: bytes, cuts: list[int], make: Callable[[], FrameReader]
    ) -> None:
        whole = read(make(), [data])
        assert read(make(), split(data, cuts)) == whole
        assert read(make(), bytewise(data)) == whole

    def test_a_frame_counts_even_if_an_error_follows_it(self) -> None:
        data = raw(FrameType.HEADERS, b"fields") + raw(FrameType.SETTINGS, b"")
        assert read(request(), [data]) == (
            [(FrameType.HEADERS, b"fields")],
            "ConnectionProtocolError H3_FRAME_UNEXPECTED",
        )

    def test_types_and_lengths_may_be_longer_than_needed(self) -> None:
        data = bytes.fromhex("c000000000000001 80000002 6869 4000 c000000000000003 616263")
        expected = [(FrameType.HEADERS, b"hi"), (FrameType.DATA, b"abc")]
        assert read(request(), [data]) == (expected, "")
        assert read(request(), bytewise(data)) == (expected, "")

    def test_data_is_passed_on_as_it_comes(self) -> None:
        reader = request()
        assert list(reader.feed(bytes.fromhex("00 ffffffffffffffff") + b"first")) == [
            (FrameType.DATA, b"first")
        ]
        assert list(reader.feed(b"second")) == [(FrameType.DATA, b"second")]
        assert reader.incomplete

    @pytest.mark.parametrize("make", [control, request])
    def test_an_unknown_frame_is_skipped_without_memory(
        self, make: Callable[[], FrameReader]
    ) -> None:
        reader = make()
        assert list(reader.feed(varint.encode(grease(7)) + varint.encode(varint.MAX))) == []
        for _ in range(64):
            assert list(reader.feed(bytes(1 << 20))) == []
            assert reader._buffer == b""
        assert reader.incomplete

    @given(st.sampled_from([FrameType.HEADERS, FrameType.DATA]), st.binary(max_size=20), GREASE)
    def test_incomplete_until_the_last_byte(
        self, kind: FrameType, payload: bytes, other: tuple[int, bytes]
    ) -> None:
        for data in (encode_frame(kind, payload), raw(*other)):
            reader = request()
            assert not reader.incomplete
            for byte in data[:-1]:
                list(reader.feed(bytes((byte,))))
                assert reader.incomplete
            list(reader.feed(data[-1:]))
            assert not reader.incomplete


class TestRefusedFrames:
    def refused(self, reader: FrameReader, kind: int) -> str:
        """What the type alone, without a length, is answered with."""
        frames, error = read(reader, bytewise(varint.encode(kind)))
        assert frames == []
        return error

    @pytest.mark.parametrize("kind", sorted(HTTP2_FRAMES))
    @pytest.mark.parametrize("make", [control, request])
    def test_http2s(self, kind: int, make: Callable[[], FrameReader]) -> None:
        error = self.refused(make(), kind)
        assert error == "ConnectionProtocolError H3_FRAME_UNEXPECTED"

    def test_which_are_http2s(self) -> None:
        # PRIORITY, PING, WINDOW_UPDATE, CONTINUATION (RFC 9114, section 11.2.1).
        assert set(HTTP2_FRAMES) == {0x02, 0x06, 0x08, 0x09}

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (FrameType.DATA, "H3_FRAME_UNEXPECTED"),
            (FrameType.HEADERS, "H3_FRAME_UNEXPECTED"),
            (FrameType.PUSH_PROMISE, "H3_FRAME_UNEXPECTED"),
            (FrameType.WT_STREAM, "H3_FRAME_ERROR"),
        ],
    )
    def test_on_a_control_stream(self, kind: FrameType, code: str) -> None:
        assert self.refused(control(), kind) == f"ConnectionProtocolError {code}"

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (FrameType.CANCEL_PUSH, "H3_FRAME_UNEXPECTED"),
            (FrameType.SETTINGS, "H3_FRAME_UNEXPECTED"),
            (FrameType.GOAWAY, "H3_FRAME_UNEXPECTED"),
            (FrameType.MAX_PUSH_ID, "H3_FRAME_UNEXPECTED"),
            (FrameType.WT_STREAM, "H3_FRAME_ERROR"),
        ],
    )
    @pytest.mark.parametrize("is_client", [False, True])
    def test_on_a_request_stream(self, kind: FrameType, code: str, is_client: bool) -> None:
        assert self.refused(request(is_client=is_client), kind) == f"ConnectionProtocolError {code}"

    def test_a_push_promise_by_role(self) -> None:
        kind = FrameType.PUSH_PROMISE
        client = self.refused(request(is_client=True), kind)
        assert client == "ConnectionProtocolError H3_ID_ERROR"
        assert self.refused(request(), kind) == "ConnectionProtocolError H3_FRAME_UNEXPECTED"


class TestLargeFrames:
    @pytest.mark.parametrize(
        ("make", "kind", "limit", "error"),
        [
            (
                control,
                FrameType.SETTINGS,
                MAX_SETTINGS,
                "ConnectionProtocolError H3_EXCESSIVE_LOAD",
            ),
            (control, FrameType.GOAWAY, 8, "ConnectionProtocolError H3_FRAME_ERROR"),
            (control, FrameType.MAX_PUSH_ID, 8, "ConnectionProtocolError H3_FRAME_ERROR"),
            (control, FrameType.CANCEL_PUSH, 8, "ConnectionProtocolError H3_FRAME_ERROR"),
            # Of a stream: the connection's other sessions have nothing to do with it.
            (
                request,
                FrameType.HEADERS,
                MAX_FIELD_SECTION,
                "StreamProtocolError H3_EXCESSIVE_LOAD",
            ),
        ],
    )
    def test_refused_before_it_is_here(
        self, make: Callable[[], FrameReader], kind: FrameType, limit: int, error: str
    ) -> None:
        largest = bytes(limit)
        assert read(make(), [raw(kind, largest)]) == ([(kind, largest)], "")
        for length in (limit + 1, varint.MAX):
            header = varint.encode(kind) + varint.encode(length)
            assert read(make(), bytewise(header)) == ([], error)

    def test_settings_as_small_as_an_integer(self) -> None:
        reader = FrameReader.for_control(8)
        header = varint.encode(FrameType.SETTINGS) + varint.encode(9)
        assert read(reader, [header]) == ([], "ConnectionProtocolError H3_EXCESSIVE_LOAD")


class TestFirstType:
    @given(st.integers(0, varint.MAX), st.binary(max_size=3))
    def test_known_as_soon_as_its_last_byte_is(self, kind: int, behind: bytes) -> None:
        data = varint.encode(kind)
        for end in range(len(data)):
            assert control().first_type(data[:end]) is None
        assert control().first_type(data + behind) == kind

    def test_stays_known_while_the_frame_comes(self) -> None:
        reader = control()
        for byte in raw(FrameType.SETTINGS, b"\x21\0" * 10)[:-1]:
            piece = bytes((byte,))
            assert reader.first_type(piece) == FrameType.SETTINGS
            assert list(reader.feed(piece)) == []


class TestSettings:
    @given(
        st.dictionaries(st.integers(0, varint.MAX), st.integers(0, varint.MAX), max_size=20),
    )
    def test_round_trip(self, settings: dict[int, int]) -> None:
        [(kind, payload)] = FrameReader.for_control(1 << 12).feed(encode_settings(settings))
        assert kind == FrameType.SETTINGS
        assert decode_settings(payload) == settings

    def test_on_the_wire(self) -> None:
        assert encode_settings({0x33: 1, 0x2C7CF000: 1}) == bytes.fromhex("04 07 3301 ac7cf00001")

    @given(
        st.dictionaries(st.integers(0, varint.MAX), st.integers(0, varint.MAX), min_size=1),
        st.data(),
    )
    def test_truncated(self, settings: dict[int, int], data: st.DataObject) -> None:
        pairs = [varint.encode(key) + varint.encode(value) for key, value in settings.items()]
        end = data.draw(st.integers(1, len(pairs[-1]) - 1))
        with pytest.raises(ConnectionProtocolError) as raised:
            decode_settings(b"".join(pairs[:-1]) + pairs[-1][:end])
        assert raised.value.code == ErrorCode.H3_FRAME_ERROR

    @pytest.mark.parametrize("payload", ["33013301", "33013300", "0800 4064 01 4008 01"])
    def test_twice(self, payload: str) -> None:
        with pytest.raises(ConnectionProtocolError) as raised:
            decode_settings(bytes.fromhex(payload))
        assert raised.value.code == ErrorCode.H3_SETTINGS_ERROR


class TestIntegers:
    @given(st.integers(0, varint.MAX))
    def test_exactly_one(self, value: int) -> None:
        payload = varint.encode(value)
        assert decode_integer(payload, "GOAWAY") == value
        for wrong in (payload[:-1], payload + b"\0"):
            with pytest.raises(ConnectionProtocolError, match="malformed GOAWAY") as raised:
                decode_integer(wrong, "GOAWAY")
            assert raised.value.code == ErrorCode.H3_FRAME_ERROR


FIELDS = st.lists(
    st.tuples(
        st.from_regex(rb":?[a-z][a-z0-9-]{0,15}", fullmatch=True)
        | st.sampled_from([b":method", b":path", b":status", b"origin", b"accept"]),
        st.binary(max_size=30),
    ),
    max_size=12,
)


def field_section(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The payload of a HEADERS frame."""
    [(kind, payload)] = FrameReader.for_request(1 << 15, is_client=True).feed(
        encode_headers(headers)
    )
    assert kind == FrameType.HEADERS
    return payload


class TestFieldSections:
    # By hand from RFC 9204, section 4.5, its static table (appendix A), and RFC 7541's
    # Huffman example (appendix C.4.1).
    @pytest.mark.parametrize(
        ("payload", "headers"),
        [
            ("0000", {}),
            ("0000 d9", {b":status": b"200"}),
            ("0000 cf d7 c1", {b":method": b"CONNECT", b":scheme": b"https", b":path": b"/"}),
            # An index of more than six bits: 63 + 35.
            ("0000 ff23", {b"x-frame-options": b"sameorigin"}),
            # RFC 9204, appendix B.1.
            ("0000 510b 2f696e6465782e68746d6c", {b":path": b"/index.html"}),
            ("0000 508c f1e3c2e5f23a6ba0ab90f4ff", {b":authority": b"www.example.com"}),
            ("0000 2702 3a70726f746f636f6c 01 78", {b":protocol": b"x"}),
            # Never to be indexed.
            ("0000 7101 78", {b":path": b"x"}),
        ],
    )
    def test_without_a_dynamic_table(self, payload: str, headers: Mapping[bytes, bytes]) -> None:
        assert decode_headers(bytes.fromhex(payload), 1 << 14) == list(headers.items())

    @pytest.mark.parametrize(
        "payload",
        [
            "",
            "00",
            "0200 80",  # a required insert count
            "0300 c1",
            "0000 80",  # an entry of the dynamic table
            "0000 10",  # one behind the base
            "0000 4001 78",  # a name from the dynamic table
            "0000 ff24",  # 99, the first index behind the static table
            "0000 ff",
            "0000 ffffffffffffffffffff",
            "0000 5105 2f",
            "0000 5081 00",  # Huffman code that ends in something else than its padding
        ],
    )
    def test_malformed(self, payload: str) -> None:
        with pytest.raises(ConnectionProtocolError) as raised:
            decode_headers(bytes.fromhex(payload), 1 << 14)
        assert raised.value.code == ErrorCode.QPACK_DECOMPRESSION_FAILED
        # The decoder is everybody's, and remembers nothing of it.
        assert decode_headers(bytes.fromhex("0000 d9"), 1 << 14) == [(b":status", b"200")]

    @given(FIELDS)
    def test_round_trip(self, headers: list[tuple[bytes, bytes]]) -> None:
        payload = field_section(headers)
        # Neither a required insert count nor a base: nothing of a dynamic table.
        assert payload[:2] == b"\0\0"
        assert decode_headers(payload, 1 << 14) == headers
        assert field_section(headers) == payload

    @given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda data: b"\0\0" + data))
    def test_any_bytes_are_decoded_or_refused(self, payload: bytes) -> None:
        headers = refusal = None
        try:
            headers = decode_headers(payload, 1 << 14)
        except ConnectionProtocolError as error:
            refusal = error.code
        if headers is None:
            assert refusal == ErrorCode.QPACK_DECOMPRESSION_FAILED
        else:
            assert decode_headers(field_section(headers), 1 << 14) == headers

    def test_the_size_is_that_of_the_decoded_fields(self) -> None:
        headers = [(b":status", b"200"), (b"x", b"y" * 10)]
        size = 7 + 3 + 32 + 1 + 10 + 32
        payload = field_section(headers)
        assert decode_headers(payload, size) == headers
        with pytest.raises(StreamProtocolError) as raised:
            decode_headers(payload, size - 1)
        assert raised.value.code == ErrorCode.H3_EXCESSIVE_LOAD

    def test_many_small_indexes_cannot_grow_into_more_than_allowed(self) -> None:
        with pytest.raises(StreamProtocolError) as raised:
            decode_headers(b"\0\0" + b"\xd9" * 1000, 1 << 14)
        assert raised.value.code == ErrorCode.H3_EXCESSIVE_LOAD

    def test_a_value_as_large_as_is_ever_allowed(self) -> None:
        headers = [(b"x", bytes(range(33, 127)) * 170)]
        assert decode_headers(field_section(headers), 1 << 14) == headers
