from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pingpong.webtransport.buffering import BufferedStream, SessionBuffers
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.streams import Stream

LIMITS = Limits(max_buffered_streams=3, max_buffered_datagrams=4, max_buffered_bytes=50)


class Refusals:
    """A connection that writes down which streams it was told to end."""

    def __init__(self) -> None:
        self.refused: list[tuple[int, ErrorCode, bool]] = []

    def refuse_stream(self, stream_id: int, code: ErrorCode, ended: bool) -> None:
        self.refused.append((stream_id, code, ended))


class Taker:
    """In place of a session's stream: writes down what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        self.given.append(("data", data, end_stream))

    def receive_reset(self, code: int, final_size: int) -> None:
        self.given.append(("reset", code, final_size))

    def receive_stop(self, code: int) -> None:
        self.given.append(("stop", code))


@pytest.fixture
def kept() -> SessionBuffers:
    return SessionBuffers(LIMITS)


@pytest.fixture
def connection() -> Refusals:
    return Refusals()


@pytest.fixture
def stream(kept: SessionBuffers, connection: Refusals) -> BufferedStream:
    early = BufferedStream(kept, connection.refuse_stream, 4, 0, 3)
    assert kept.add_stream(early)
    return early


def delivered(stream: BufferedStream) -> list[tuple[Any, ...]]:
    taker = Taker()
    stream.deliver(cast(Stream, taker), 0)
    return taker.given


class TestStream:
    def test_what_it_is(self, stream: BufferedStream) -> None:
        assert (stream.id, stream.session_id, stream.header_size) == (4, 0, 3)
        assert not stream.is_receive_closed

    def test_nothing_came(self, stream: BufferedStream) -> None:
        stream.receive(b"", False, 0)
        assert delivered(stream) == []

    def test_bytes(self, stream: BufferedStream) -> None:
        stream.receive(b"one ", False, 0)
        stream.receive(b"two", False, 0)
        assert delivered(stream) == [("data", b"one two", False)]

    @pytest.mark.parametrize("data", [b"", b"bytes"])
    def test_an_end(self, stream: BufferedStream, data: bytes) -> None:
        stream.receive(data, True, 0)
        assert stream.is_receive_closed
        assert delivered(stream) == [("data", data, True)]

    def test_a_reset(self, stream: BufferedStream) -> None:
        stream.receive(b"begun", False, 0)
        stream.receive_reset(7, 12)
        assert stream.is_receive_closed
        assert delivered(stream) == [("data", b"begun", False), ("reset", 7, 12)]

    def test_a_reset_with_the_first_code(self, stream: BufferedStream) -> None:
        stream.receive_reset(0, 0)
        assert stream.is_receive_closed
        assert delivered(stream) == [("reset", 0, 0)]

    def test_a_request_to_stop(self, stream: BufferedStream) -> None:
        stream.receive_stop(0)
        stream.receive(b"x", True, 0)
        assert delivered(stream) == [("data", b"x", True), ("stop", 0)]


class TestLimits:
    def test_streams(self, kept: SessionBuffers, connection: Refusals) -> None:
        streams = [BufferedStream(kept, connection.refuse_stream, 4 * i, 0, 2) for i in range(1, 5)]
        assert [kept.add_stream(stream) for stream in streams] == [True, True, True, False]
        assert kept.take(0) == (streams[:3], [])
        assert kept.add_stream(streams[3])

    def test_datagrams(self, kept: SessionBuffers) -> None:
        assert [kept.add_datagram(i % 2 * 4, b"%d" % i) for i in range(5)] == [True] * 4 + [False]
        assert kept.take(4) == ([], [b"1", b"3"])
        assert [kept.add_datagram(0, b"5"), kept.add_datagram(0, b"6")] == [True, True]
        assert not kept.add_datagram(0, b"7")
        assert kept.take(0) == ([], [b"0", b"2", b"5", b"6"])

    def test_bytes_of_one_stream(
        self, kept: SessionBuffers, stream: BufferedStream, connection: Refusals
    ) -> None:
        stream.receive(bytes(50), False, 0)
        assert connection.refused == []
        stream.receive(b"!", False, 0)
        assert connection.refused == [(4, ErrorCode.WT_BUFFERED_STREAM_REJECTED, False)]
        # All that it held is free again.
        assert kept.add_datagram(0, bytes(50))
        assert kept.take(0) == ([], [bytes(50)])

    def test_a_stream_that_ends_with_too_much(
        self, stream: BufferedStream, connection: Refusals
    ) -> None:
        stream.receive(bytes(51), True, 0)
        assert connection.refused == [(4, ErrorCode.WT_BUFFERED_STREAM_REJECTED, True)]

    def test_bytes_of_all_together(
        self, kept: SessionBuffers, stream: BufferedStream, connection: Refusals
    ) -> None:
        assert kept.add_datagram(8, bytes(30))
        assert not kept.add_datagram(8, bytes(21))
        stream.receive(bytes(20), False, 0)
        assert not kept.add_datagram(0, b"!")
        assert kept.add_datagram(0, b"")
        assert len(kept.take(8)[1]) == 1
        assert kept.add_datagram(0, bytes(30))
        assert connection.refused == []

    def test_nothing_at_all(self, connection: Refusals) -> None:
        kept = SessionBuffers(
            Limits(max_buffered_streams=0, max_buffered_datagrams=0, max_buffered_bytes=0)
        )
        assert not kept.add_stream(BufferedStream(kept, connection.refuse_stream, 4, 0, 2))
        assert not kept.add_datagram(0, b"")
        assert kept.take(0) == ([], [])
        assert len(kept) == 0


SESSIONS = st.sampled_from([0, 4, 8])


class Early(RuleBasedStateMachine):
    """Against lists of what was kept, and their plain sum."""

    @initialize()
    def start(self) -> None:
        self.kept = SessionBuffers(LIMITS)
        self.connection = Refusals()
        self.streams: list[BufferedStream] = []
        self.data: dict[int, bytes] = {}
        self.datagrams: list[tuple[int, bytes]] = []
        self.next_id = 12

    @property
    def size(self) -> int:
        return sum(map(len, self.data.values())) + sum(len(data) for _, data in self.datagrams)

    @rule(session_id=SESSIONS)
    def add_stream(self, session_id: int) -> None:
        stream = BufferedStream(
            self.kept, self.connection.refuse_stream, self.next_id, session_id, 2
        )
        self.next_id += 4
        fits = len(self.streams) < LIMITS.max_buffered_streams
        assert self.kept.add_stream(stream) is fits
        if fits:
            self.streams.append(stream)
            self.data[stream.id] = b""

    @rule(index=st.integers(0, 10), data=st.binary(max_size=30), end=st.booleans())
    def receive(self, index: int, data: bytes, end: bool) -> None:
        living = [stream for stream in self.streams if not stream.is_receive_closed]
        if not living:
            return
        stream = living[index % len(living)]
        fits = self.size + len(data) <= LIMITS.max_buffered_bytes
        refused = len(self.connection.refused)
        stream.receive(data, end, 0)
        if fits:
            assert len(self.connection.refused) == refused
            self.data[stream.id] += data
        else:
            assert self.connection.refused[refused:] == [
                (stream.id, ErrorCode.WT_BUFFERED_STREAM_REJECTED, end)
            ]
            self.streams.remove(stream)
            del self.data[stream.id]

    @rule(session_id=SESSIONS, data=st.binary(max_size=30))
    def add_datagram(self, session_id: int, data: bytes) -> None:
        fits = (
            len(self.datagrams) < LIMITS.max_buffered_datagrams
            and self.size + len(data) <= LIMITS.max_buffered_bytes
        )
        assert self.kept.add_datagram(session_id, data) is fits
        if fits:
            self.datagrams.append((session_id, data))

    @rule(session_id=SESSIONS)
    def take(self, session_id: int) -> None:
        streams, datagrams = self.kept.take(session_id)
        assert streams == [s for s in self.streams if s.session_id == session_id]
        assert datagrams == [data for owner, data in self.datagrams if owner == session_id]
        for stream in streams:
            given = b"".join(call[1] for call in delivered(stream) if call[0] == "data")
            assert given == self.data.pop(stream.id)
        self.streams = [s for s in self.streams if s.session_id != session_id]
        self.datagrams = [(o, data) for o, data in self.datagrams if o != session_id]

    @invariant()
    def counted(self) -> None:
        assert len(self.kept) == len(self.streams) + len(self.datagrams)


TestEarly = Early.TestCase
TestEarly.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
