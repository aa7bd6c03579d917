from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import (
    MAX_PAYLOAD,
    CapsuleDecoder,
    CapsuleType,
    decode_close,
    decode_limit,
    encode_capsule,
    encode_close,
    encode_limit,
)
from pingpong.webtransport.errors import ErrorCode, SessionProtocolError

Capsules = list[tuple[CapsuleType, bytes]]


def unknown(kind: int, payload: bytes) -> bytes:
    return varint.encode(kind) + varint.encode(len(payload)) + payload


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Pieces of `data`, cut at each of the offsets that lies within it."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def decode(pieces: Iterable[bytes]) -> tuple[Capsules, ErrorCode | None]:
    """All capsules that come out before the end or an error, and the error's code."""
    decoder, capsules = CapsuleDecoder(), []
    try:
        for piece in pieces:
            for capsule in decoder.feed(piece):
                capsules.append(capsule)
    except SessionProtocolError as error:
        return capsules, error.code
    return capsules, None


KNOWN = st.sampled_from(sorted(CapsuleType)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.binary(max_size=min(MAX_PAYLOAD[kind], 40)))
)
UNKNOWN = st.tuples(
    st.integers(0, varint.MAX).filter(lambda kind: kind not in set(CapsuleType))
    # 0x29 * N + 0x17: reserved to exercise that unknown types are skipped (RFC 9297, section 5.4).
    | st.integers(0, 1000).map(lambda n: 0x29 * n + 0x17),
    st.binary(max_size=40),
)
CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)


class TestEncoding:
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (CapsuleType.WT_CLOSE_SESSION, 0x2843),
            (CapsuleType.WT_DRAIN_SESSION, 0x78AE),
            (CapsuleType.WT_MAX_DATA, 0x190B4D3D),
            (CapsuleType.WT_MAX_STREAMS_BIDI, 0x190B4D3F),
            (CapsuleType.WT_MAX_STREAMS_UNI, 0x190B4D40),
            (CapsuleType.WT_DATA_BLOCKED, 0x190B4D41),
            (CapsuleType.WT_STREAMS_BLOCKED_BIDI, 0x190B4D43),
            (CapsuleType.WT_STREAMS_BLOCKED_UNI, 0x190B4D44),
        ],
    )
    def test_types_of_the_draft(self, kind: CapsuleType, value: int) -> None:
        assert kind == value

    def test_on_the_wire(self) -> None:
        assert encode_capsule(CapsuleType.WT_DRAIN_SESSION) == bytes.fromhex("800078ae 00")
        assert encode_close(0xDEADBEEF, "bye") == bytes.fromhex("6843 07 deadbeef 627965")
        assert encode_limit(CapsuleType.WT_MAX_DATA, 16_384) == bytes.fromhex(
            "990b4d3d 04 80004000"
        )

    @given(st.integers(0, varint.MAX))
    def test_limits_go_round(self, limit: int) -> None:
        [(kind, payload)] = CapsuleDecoder().feed(encode_limit(CapsuleType.WT_MAX_DATA, limit))
        assert (kind, decode_limit(payload)) == (CapsuleType.WT_MAX_DATA, limit)

    @pytest.mark.parametrize("payload", ["", "40", "80000040"[:6], "0000", "400100", "c0"])
    def test_a_limit_is_exactly_one_integer(self, payload: str) -> None:
        with pytest.raises(SessionProtocolError) as raised:
            decode_limit(bytes.fromhex(payload))
        assert raised.value.code == ErrorCode.H3_MESSAGE_ERROR

    def test_a_limit_may_be_longer_than_needed(self) -> None:
        assert decode_limit(bytes.fromhex("c000000000000007")) == 7


class TestClose:
    @given(st.integers(0, 0xFFFF_FFFF), st.text(max_size=300))
    @example(0, "")
    @example(0xFFFF_FFFF, "\0")
    @example(1, "\ufeffwith a mark")
    def test_round_trip(self, code: int, reason: str) -> None:
        [(kind, payload)] = CapsuleDecoder().feed(encode_close(code, reason))
        assert kind is CapsuleType.WT_CLOSE_SESSION
        if len(reason.encode()) <= 1024:
            assert decode_close(payload) == (code, reason)

    @given(st.integers(1000, 1030), st.text(alphabet="aé€😀", min_size=300, max_size=400))
    @example(1024, "")
    @example(1025, "")
    @example(1021, "😀")
    @example(1023, "é")
    def test_a_long_reason_is_cut_at_a_characters_end(self, padding: int, tail: str) -> None:
        reason = "x" * padding + tail
        [(_, payload)] = CapsuleDecoder().feed(encode_close(5, reason))
        code, got = decode_close(payload)
        assert code == 5
        assert reason.startswith(got)
        size = len(got.encode())
        assert size <= 1024
        # Nothing more would have fitted.
        assert got == reason or size + len(reason[len(got)].encode()) > 1024

    def test_a_reason_of_1024_bytes_is_whole(self) -> None:
        capsule = encode_close(0, "é" * 512)
        [(_, payload)] = CapsuleDecoder().feed(capsule)
        assert decode_close(payload) == (0, "é" * 512)

    def test_a_reason_of_1025_bytes_is_refused_before_it_is_here(self) -> None:
        header = varint.encode(CapsuleType.WT_CLOSE_SESSION) + varint.encode(4 + 1025)
        assert decode([header]) == ([], ErrorCode.H3_MESSAGE_ERROR)

    def test_a_reason_that_utf8_cannot_hold_still_closes(self) -> None:
        [(_, payload)] = CapsuleDecoder().feed(encode_close(9, "bad \udc80"))
        assert decode_close(payload) == (9, "bad ?")

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"\0\0\0",
            b"\0\0\0\0\xff",
            b"\0\0\0\0\xc3",
            "\0\0\0\0€".encode()[:-1],
            b"\0\0\0\0\xc0\x80",
            b"\0\0\0\0\xed\xa0\x80",
            b"\0\0\0\0\xf4\x90\x80\x80",
        ],
    )
    def test_malformed(self, payload: bytes) -> None:
        with pytest.raises(SessionProtocolError) as raised:
            decode_close(payload)
        assert raised.value.code == ErrorCode.H3_MESSAGE_ERROR


class TestDecoder:
    @given(st.lists(KNOWN | UNKNOWN, max_size=8), CUTS)
    def test_splits_make_no_difference(
        self, made: list[tuple[int, bytes]], cuts: list[int]
    ) -> None:
        data = b"".join(unknown(kind, payload) for kind, payload in made)
        known = [(kind, payload) for kind, payload in made if kind in set(CapsuleType)]
        assert decode([data]) == (known, None)
        assert decode(split(data, cuts)) == (known, None)
        assert decode(bytes((byte,)) for byte in data) == (known, None)

    @given(st.binary(max_size=60), CUTS)
    @example(encode_close(3, "last words") + encode_capsule(CapsuleType.WT_DRAIN_SESSION, b"!"), [])
    def test_splits_of_anything_make_no_difference(self, data: bytes, cuts: list[int]) -> None:
        whole = decode([data])
        assert decode(split(data, cuts)) == whole
        assert decode(bytes((byte,)) for byte in data) == whole

    def test_what_comes_before_an_error_counts(self) -> None:
        data = encode_close(3, "last words") + encode_capsule(CapsuleType.WT_DRAIN_SESSION, b"!")
        capsules, code = decode([data])
        assert [decode_close(payload) for _, payload in capsules] == [(3, "last words")]
        assert code == ErrorCode.H3_MESSAGE_ERROR

    def test_types_and_lengths_may_be_longer_than_needed(self) -> None:
        data = bytes.fromhex("c0000000000078ae 80000000 c000000000000000 4002 6869")
        assert decode([data]) == (
            [(CapsuleType.WT_DRAIN_SESSION, b""), (CapsuleType.DATAGRAM, b"hi")],
            None,
        )

    @pytest.mark.parametrize("kind", sorted(CapsuleType))
    def test_a_length_that_no_capsule_of_the_type_has_is_refused_at_once(
        self, kind: CapsuleType
    ) -> None:
        for length in (MAX_PAYLOAD[kind] + 1, varint.MAX):
            header = varint.encode(kind) + varint.encode(length)
            assert decode([header]) == ([], ErrorCode.H3_MESSAGE_ERROR)
            assert decode(bytes((byte,)) for byte in header) == ([], ErrorCode.H3_MESSAGE_ERROR)

    def test_what_a_peer_can_make_grow(self) -> None:
        largest = {kind.name: size for kind, size in MAX_PAYLOAD.items()}
        assert (largest.pop("DATAGRAM"), largest.pop("WT_CLOSE_SESSION")) == (65_535, 4 + 1024)
        assert largest.pop("WT_DRAIN_SESSION") == 0
        # Of a stream's capsules, which are refused, an id and an integer; of all others one.
        assert largest.pop("WT_MAX_STREAM_DATA") == largest.pop("WT_STREAM_DATA_BLOCKED") == 16
        assert set(largest.values()) == {8}
        assert len(largest) == 6

    @pytest.mark.parametrize("kind", sorted(CapsuleType))
    def test_the_largest_of_each_type(self, kind: CapsuleType) -> None:
        payload = bytes(MAX_PAYLOAD[kind])
        assert decode([encode_capsule(kind, payload)]) == ([(kind, payload)], None)

    @pytest.mark.parametrize("length", [varint.MAX, 64 << 20])
    def test_an_unknown_capsule_is_skipped_without_memory(self, length: int) -> None:
        decoder = CapsuleDecoder()
        assert list(decoder.feed(varint.encode(0x17) + varint.encode(length))) == []
        chunk = bytes(1 << 20)
        for _ in range(64):
            assert list(decoder.feed(chunk)) == []
            assert sys.getsizeof(decoder._buffer) < 1 << 10
        assert decoder.incomplete == (length > 64 << 20)
        if not decoder.incomplete:
            drain = encode_capsule(CapsuleType.WT_DRAIN_SESSION)
            assert list(decoder.feed(drain)) == [(CapsuleType.WT_DRAIN_SESSION, b"")]

    @given(KNOWN | UNKNOWN)
    def test_incomplete_until_the_last_byte(self, made: tuple[int, bytes]) -> None:
        data = unknown(*made)
        decoder = CapsuleDecoder()
        assert not decoder.incomplete
        for byte in data[:-1]:
            assert list(decoder.feed(bytes((byte,)))) == []
            assert decoder.incomplete
        list(decoder.feed(data[-1:]))
        assert not decoder.incomplete

    def test_all_is_taken_even_if_nobody_looks(self) -> None:
        decoder = CapsuleDecoder()
        decoder.feed(encode_close(0, "")[:3])
        assert decoder.incomplete
        assert len(list(decoder.feed(encode_close(0, "")[3:]))) == 1
        assert not decoder.incomplete
