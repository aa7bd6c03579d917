"""Bytes in order, at a cost that the peer does not choose."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from aioquic.quic.stream import FinalSizeError
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong.webtransport.quic.reassembly import (
    MAX_PIECES,
    MAX_STREAM_PIECES,
    Buffers,
    StreamReceiver,
    TooManyPiecesError,
)

TEXT = Random(1).randbytes(400)


def receiver() -> tuple[StreamReceiver, Buffers]:
    shared = Buffers()
    return StreamReceiver(0, shared), shared


def received(one: StreamReceiver, start: int, data: bytes, fin: bool = False) -> bytes:
    return one.receive(start, data, fin) or b""


@given(
    st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 60), st.booleans()), max_size=60)
)
@settings(max_examples=500)
def test_any_frames_of_a_text_bring_the_text(frames: list[tuple[int, int, bool]]) -> None:
    one, shared = receiver()
    got = b""
    here = [False] * len(TEXT)
    for start, length, _ in frames:
        end = min(len(TEXT), start + length)
        here[start:end] = [True] * (end - start)
        before = one.starting_offset()
        data = received(one, start, TEXT[start:end])
        got += data
        # All that is in order, and nothing of it kept.
        due = here.index(False) if False in here else len(TEXT)
        assert one.starting_offset() == before + len(data) == due
        assert got == TEXT[:due]
        assert shared.size == sum(here[due:])
        assert shared.pieces <= sum(here[due:])
    one.discard()
    assert (shared.size, shared.pieces) == (0, 0)


@given(st.randoms(use_true_random=False))
def test_a_text_ends_where_it_says(random: Random) -> None:
    cuts = sorted({0, len(TEXT), *(random.randrange(len(TEXT)) for _ in range(9))})
    frames = [(a, TEXT[a:b], b == len(TEXT)) for a, b in itertools.pairwise(cuts)]
    frames.append((len(TEXT), b"", True))
    random.shuffle(frames)
    one, shared = receiver()
    ready = [(one.receive(*frame), one.is_finished) for frame in frames]
    reported = [(data, has_ended) for data, has_ended in ready if data is not None]
    assert b"".join(data for data, _ in reported) == TEXT
    assert [has_ended for _, has_ended in reported] == [False] * (len(reported) - 1) + [True]
    assert shared.size == 0
    # Everything after the end is a duplicate.
    assert one.receive(0, TEXT, True) is None
    with pytest.raises(FinalSizeError):
        one.receive(len(TEXT), b"x", False)


def test_a_byte_far_ahead_costs_a_byte() -> None:
    one, shared = receiver()
    assert one.receive(10**9, b"x", False) is None
    assert (shared.size, shared.pieces) == (1, 1)


@pytest.mark.parametrize("step", [2, -2])
def test_pieces_of_a_stream_are_bounded(step: int) -> None:
    one, shared = receiver()
    offsets = [10**6 + step * n for n in range(MAX_STREAM_PIECES)]
    for offset in offsets:
        one.receive(offset, b"x", False)
    with pytest.raises(TooManyPiecesError):
        one.receive(offsets[-1] + step, b"x", False)
    # One that closes a gap is welcome.
    assert one.receive(offsets[0] + 1, b"x", False) is None
    assert shared.pieces <= MAX_STREAM_PIECES


def test_pieces_of_all_streams_are_bounded() -> None:
    shared = Buffers()
    streams = [StreamReceiver(4 * n, shared) for n in range(3 * MAX_PIECES // MAX_STREAM_PIECES)]
    for n in range(MAX_PIECES):
        streams[n % len(streams)].receive(10**6 + 2 * n, b"x", False)
    with pytest.raises(TooManyPiecesError):
        streams[0].receive(1, b"x", False)
    assert shared.pieces == MAX_PIECES
    for one in streams:
        one.discard()
    assert shared.pieces == 0


def test_a_large_stream_over_a_bad_network_arrives() -> None:
    """100 MB, a tenth of it lost and sent again, packets up to 64 apart."""
    random = Random(7)
    size, packet, window = 100_000_000, 1_200, 220
    one, shared = receiver()
    data = bytes(packet)
    sent = arrived = most = 0
    lost: list[int] = []
    flight: list[int] = []
    while arrived < size:
        # What was lost is sent again a round trip later, before anything new.
        flight += lost
        lost = []
        while len(flight) < window and sent < min(size, arrived + window * packet):
            flight.append(sent)
            sent += packet
        batch, flight = flight[: window // 2], flight[window // 2 :]
        order = sorted(range(len(batch)), key=lambda n: n + random.uniform(0, 64))
        for n in order:
            if random.random() < 0.1:
                lost.append(batch[n])
            else:
                arrived += len(received(one, batch[n], data))
        most = max(most, shared.pieces)
    assert arrived >= size
    assert shared.size == 0
    assert most < MAX_STREAM_PIECES / 4
