from __future__ import annotations

import re
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pingpong import ping
from pingpong.ping import Deframer, MessageTooLarge, PlainScanner, Pong
from pingpong.webtransport import varint
from tests.support.held import held

# Bytes that often come near to being pings.
PIECES = st.sampled_from(
    [b"ping", b"pin", b"pi", b"p", b"i", b"n", b"g", b"pp", b"pipi", b"x", b"\n", b"\xff"]
)
STREAMS = st.lists(PIECES, max_size=20).map(b"".join)


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes, cut anywhere, also into empty pieces."""
    data = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=20)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def answers(stream: bytes) -> bytes:
    """The obvious model: look at the whole stream at once."""
    tokens = re.findall(rb"ping|(?:(?!ping).)+", stream, re.DOTALL)
    return b"".join(b"pong" if token == b"ping" else b"?" for token in tokens)


def certain_answers(stream: bytes) -> bytes:
    """What can be answered whatever follows: the same for every continuation."""
    possible = [answers(stream + rest) for rest in (b"", b"x", b"g", b"ng", b"ing", b"ping")]
    size = 0
    while len({answer[: size + 1] for answer in possible}) == 1 and size < len(possible[0]):
        size += 1
    return possible[0][:size]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (b"ping", b"pong"),
        (b"ping\x00\xffpayload", b"pong\x00\xffpayload"),
        (b"pingping", b"pongping"),
        (b"", b"?"),
        (b"pin", b"?"),
        (b"Ping", b"?"),
        (b" ping", b"?"),
        (b"pong", b"?"),
    ],
)
def test_plain_message(message: bytes, answer: bytes) -> None:
    assert ping.answer_message(message) == answer


class TestPlainScanner:
    @pytest.mark.parametrize(
        ("pieces", "answer"),
        [
            ([b"ping"], b"pong"),
            ([b"pi", b"ng"], b"pong"),
            ([b"pingping"], b"pongpong"),
            ([b"pipinging"], b"?pong?"),
            ([b"abc", b"def"], b"?"),
            ([b"abc", b"pi", b"xyz", b"p"], b"?"),
            ([b"abc", b"ping", b"abc"], b"?pong?"),
            ([b"x", b"p", b"ping"], b"?pong"),
            ([b"pi"], b"?"),
            ([b""], b""),
        ],
    )
    def test_example(self, pieces: list[bytes], answer: bytes) -> None:
        scanner = PlainScanner()
        given = [scanner.feed(piece) for piece in pieces]
        assert b"".join([*given, scanner.feed(b"", end=True)]) == answer

    @given(cut(STREAMS))
    def test_answers_do_not_depend_on_the_cuts(self, pieces: list[bytes]) -> None:
        scanner = PlainScanner()
        *first, last = pieces
        given = [scanner.feed(piece) for piece in first]
        assert b"".join([*given, scanner.feed(last, end=True)]) == answers(b"".join(pieces))

    @given(STREAMS)
    @example(b"pix")
    @example(b"xpix")
    def test_each_answer_is_given_as_soon_as_it_is_certain(self, stream: bytes) -> None:
        scanner = PlainScanner()
        given = b""
        for size in range(1, len(stream) + 1):
            given += scanner.feed(stream[size - 1 : size])
            assert given == certain_answers(stream[:size])

    def test_ping_is_answered_without_the_stream_s_end(self) -> None:
        scanner = PlainScanner()
        assert scanner.feed(b"xx") == b"?"
        assert scanner.feed(b"ping") == b"pong"
        assert scanner.feed(b"xx") == b"?"

    def test_keeps_nothing_of_a_long_run(self) -> None:
        scanner = PlainScanner()
        for _ in range(100):
            scanner.feed(b"x" * 10_000 + b"pi")
        assert held(scanner) == [b"pi"]


class TestMessages:
    def test_layout(self) -> None:
        message = ping.encode_ping(7, 0x0102030405060708, 40)
        assert message == struct.pack(">4sIIQQQ4x", b"ping", 7, 0, 0x0102030405060708, 0, 0)
        answer = ping.answer_ping(message, 6, 10, 20)
        assert answer == struct.pack(">4sIIQQQ4x", b"pong", 7, 6, 0x0102030405060708, 10, 20)

    @given(
        st.integers(0, 2**40),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**40),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(36, 300) | st.sampled_from([65_571, 65_572, 65_573, 100_000]),
    )
    def test_round_trip(
        self, seq: int, t1: int, received: int, t2: int, t3: int, size: int
    ) -> None:
        message = ping.encode_ping(seq, t1, size)
        assert len(message) == size
        assert message[36:] == bytes(size - 36)
        answer = ping.answer_ping(message, received, t2, t3)
        assert answer is not None
        assert len(answer) == size
        assert ping.decode_pong(answer) == Pong(seq % 2**32, received % 2**32, t1, t2, t3)

    def test_answer_keeps_the_padding(self) -> None:
        message = ping.encode_ping(1, 2, 36) + b"padding"
        answer = ping.answer_ping(message, 1, 3, 4)
        assert answer is not None
        assert answer[36:] == b"padding"

    def test_answer_ignores_what_must_be_zero(self) -> None:
        message = struct.pack(">4sIIQQQ", b"ping", 1, 99, 2, 98, 97)
        assert ping.answer_ping(message, 5, 3, 4) == struct.pack(">4sIIQQQ", b"pong", 1, 5, 2, 3, 4)

    def test_size_below_the_header(self) -> None:
        with pytest.raises(ValueError, match="at least 36 bytes, not 35"):
            ping.encode_ping(1, 2, 35)

    @pytest.mark.parametrize("size", [0, 4, 35])
    def test_shorter_than_the_header_is_malformed(self, size: int) -> None:
        assert ping.answer_ping(ping.encode_ping(1, 2)[:size], 1, 2, 3) is None
        answer = ping.answer_ping(ping.encode_ping(1, 2), 1, 2, 3)
        assert answer is not None
        assert ping.decode_pong(answer[:size]) is None

    @given(st.binary(min_size=4, max_size=4))
    @example(b"PING")
    def test_another_tag_is_malformed(self, tag: bytes) -> None:
        message = tag + bytes(60)
        assert (ping.answer_ping(message, 1, 2, 3) is None) == (tag != b"ping")
        assert (ping.decode_pong(message) is None) == (tag != b"pong")


class TestDeframer:
    def test_whole_frame(self) -> None:
        deframer = Deframer(100)
        assert deframer.feed(ping.frame(b"x" * 64)) == [b"x" * 64]
        assert not deframer.pending

    @given(
        cut(
            st.lists(st.binary(max_size=80), max_size=6).map(lambda m: b"".join(map(ping.frame, m)))
        )
    )
    def test_messages_do_not_depend_on_the_cuts(self, pieces: list[bytes]) -> None:
        whole = Deframer(80).feed(b"".join(pieces))
        assert b"".join(map(ping.frame, whole)) == b"".join(pieces)
        deframer = Deframer(80)
        assert [message for piece in pieces for message in deframer.feed(piece)] == whole
        assert not deframer.pending

    @given(st.lists(st.binary(max_size=80), min_size=1, max_size=4))
    def test_byte_by_byte(self, messages: list[bytes]) -> None:
        deframer = Deframer(80)
        for message in messages:
            *first, last = ping.frame(message)
            for byte in first:
                assert deframer.feed(bytes([byte])) == []
                assert deframer.pending
            assert deframer.feed(bytes([last])) == [message]
            assert not deframer.pending

    def test_length_need_not_be_the_shortest(self) -> None:
        assert Deframer(10).feed(b"\xc0" + bytes(6) + b"\x02hi") == [b"hi"]

    def test_limit_is_allowed(self) -> None:
        assert Deframer(100).feed(ping.frame(b"x" * 100)) == [b"x" * 100]

    @pytest.mark.parametrize("size", [101, 2**62 - 1])
    @pytest.mark.parametrize("step", [1, 1000])
    def test_too_large(self, size: int, step: int) -> None:
        stream = ping.frame(b"first") + varint.encode(size)
        messages: list[bytes] = []
        deframer = Deframer(100)

        def feed() -> None:
            for start in range(0, len(stream), step):
                messages.extend(deframer.feed(stream[start : start + step]))

        with pytest.raises(MessageTooLarge, match=f"message of {size} bytes .* 100") as caught:
            feed()
        assert messages + caught.value.messages == [b"first"]
        assert (caught.value.size, caught.value.limit) == (size, 100)

    def test_too_large_stays_so_and_is_not_kept(self) -> None:
        deframer = Deframer(100)
        for _ in range(3):
            with pytest.raises(MessageTooLarge) as caught:
                deframer.feed(ping.frame(b"x" * 101))
            assert caught.value.size == 101
            assert caught.value.messages == []
            assert sum(map(len, held(deframer))) == 2
