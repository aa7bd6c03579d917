from __future__ import annotations

from random import Random
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleType
from pingpong.webtransport.drafts import Credit
from pingpong.webtransport.errors import ErrorCode, StateError, to_http3_code
from pingpong.webtransport.flow import FlowControl
from pingpong.webtransport.limits import Limits
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.quic.engine import QuicConnection
from pingpong.webtransport.session import Session
from pingpong.webtransport.streams import Stream, StreamHandler, encode_stream_header
from tests.webtransport.raw import stream_header
from tests.webtransport.standins import Quic
from tests.webtransport.wire import Recorder, Wire


@pytest.fixture(scope="module")
def settled() -> tuple[Wire, Session, Recorder, Session, Recorder]:
    """One for all examples: a handshake for each would cost too much."""
    wire = Wire(idle_timeout=1e6)
    return wire, *wire.pair()


@pytest.mark.parametrize("session_id", [0, 4, 60, 64, 16_384, varint.MAX - 3])
@pytest.mark.parametrize("uni", [False, True])
def test_header_is_type_and_session(session_id: int, uni: bool) -> None:
    header = encode_stream_header(session_id, uni)
    assert header == stream_header(session_id, uni=uni)
    assert header[:2] == (b"\x40\x54" if uni else b"\x40\x41")


@pytest.mark.parametrize("uni", [False, True])
@pytest.mark.parametrize("by_client", [True, False])
def test_stream_carries_bytes_both_ways(uni: bool, by_client: bool) -> None:
    wire = Wire()
    pair = wire.pair()
    session, recorder, peer, told = pair if by_client else (*pair[2:], *pair[:2])
    stream = session.open_stream(recorder, unidirectional=uni)
    assert stream in session.streams
    assert (stream.is_local, stream.is_unidirectional) == (True, uni)
    assert (stream.send_open, stream.receive_open) == (True, not uni)
    stream.send(b"hello ")
    wire.run()
    stream.send(b"world", True)
    wire.run()
    assert not stream.send_open
    other = told.opened[0]
    assert (other.id, other.is_local, other.is_unidirectional) == (stream.id, False, uni)
    assert told.data == {stream.id: b"hello world"}
    assert told.ended == {stream.id}
    assert (other.send_open, other.receive_open) == (not uni, False)
    assert (other in peer.streams) == (not uni)
    if uni:
        with pytest.raises(StateError):
            other.send(b"back")
    else:
        other.send(b"back", True)
        wire.run()
        assert recorder.data == {stream.id: b"back"}
        assert recorder.ended == {stream.id}
    assert session.streams == peer.streams == set()


def test_stream_that_is_opened_and_not_written_is_seen_by_the_peer() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder)
    wire.run()
    assert [one.id for one in peer.opened] == [stream.id]
    assert peer.data == {}
    peer.opened[0].send(b"first", True)
    wire.run()
    assert recorder.data == {stream.id: b"first"}


def test_empty_stream_is_only_an_end() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(b"", True)
    wire.run()
    assert peer.data == {stream.id: b""}
    assert peer.ended == {stream.id}


@pytest.mark.parametrize("code", [0, 1, 0x1D, 0x1E, 0x1F, 0xFFFF_FFFF])
def test_reset_and_stop_carry_the_applications_code(code: int) -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    reset, stopped = session.open_stream(recorder), session.open_stream(recorder)
    reset.send(b"x")
    stopped.send(b"x")
    wire.run()
    reset.reset(code)
    stopped.stop(code)
    wire.run()
    assert peer.resets == {reset.id: code}
    assert peer.stops == {stopped.id: code}
    # Each ends one half; of what was stopped nothing is told any more.
    assert (recorder.resets, recorder.stops) == ({}, {})
    for stream in (reset, stopped):
        other = next(one for one in peer.opened if one.id == stream.id)
        assert other.receive_open == (stream is stopped)
        assert other.send_open == (stream is reset)


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_code_has_32_bits(code: int) -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    stream = session.open_stream(recorder)
    with pytest.raises(ValueError, match="32 bits"):
        stream.reset(code)
    assert stream.send_open
    with pytest.raises(ValueError, match="32 bits"):
        stream.stop(code)
    assert stream.receive_open


@pytest.mark.parametrize(
    "wire_code",
    [0, ErrorCode.H3_REQUEST_CANCELLED, ErrorCode.WT_SESSION_GONE, 0x52E4A40FA8DA, varint.MAX],
)
def test_code_outside_the_range_is_no_code(wire_code: int) -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    stream_id = wire.raw.open_in(0, b"x")
    wire.run()
    wire.raw.stop(stream_id, wire_code)
    wire.raw.reset(stream_id, wire_code)
    wire.run()
    assert recorder.resets == recorder.stops == {stream_id: None}
    # STOP_SENDING is answered with the code that it had.
    assert wire.raw.resets == {stream_id: wire_code}
    wire.server.assert_nothing_left(0)


def test_stop_and_first_bytes_in_one_packet() -> None:
    """The frames come in this order: the stop is for a stream that is not there yet."""
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    stream_id = wire.raw.open_in(0, b"no answer please", end=True)
    wire.raw.stop(stream_id, to_http3_code(8))
    wire.run()
    assert recorder.data == {stream_id: b"no answer please"}
    assert recorder.stops == {stream_id: 8}
    assert wire.raw.resets == {stream_id: to_http3_code(8)}
    wire.server.assert_nothing_left(0)


def test_stop_alone_for_a_stream_that_never_says_whose_it_is() -> None:
    wire = Wire(raw_client=True)
    wire.raw_session()
    stream_id = wire.raw.open()
    wire.raw.stop(stream_id, 5)
    wire.run()
    assert wire.raw.resets == {stream_id: 5}
    wire.raw.reset(stream_id)
    wire.run()
    wire.server.assert_nothing_left(0)


def test_reset_does_nothing_after_the_end_and_once_more() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    ended, reset = session.open_stream(recorder), session.open_stream(recorder)
    ended.send(b"all", True)
    ended.reset(1)
    reset.reset(2)
    reset.reset(3)
    wire.run()
    assert peer.resets == {reset.id: 2}
    assert peer.ended == {ended.id}


def test_what_arrives_after_stop_is_thrown_away() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"x")
    wire.run()
    other = peer.opened[0]
    wire.lose = lambda packet, to_server: to_server
    stream.stop(1)
    other.send(b"thrown away")
    wire.run(0.01)
    other.send(b"this too", True)
    wire.run(0.01)
    wire.lose = lambda packet, to_server: False
    wire.run(3)
    assert recorder.data == {}
    assert recorder.ended == set()
    assert not stream.receive_open
    stream.send(b"", True)
    wire.run()
    wire.client.assert_nothing_left(session.id)


def test_held_bytes_keep_a_stream_until_they_are_read() -> None:
    wire = Wire()
    session, recorder, peer_session, peer = wire.pair()
    peer.holding = True
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(b"12345678", True)
    wire.run()
    other = peer.opened[0]
    assert not other.receive_open
    assert peer_session.streams == {other}
    other.release(3)
    assert peer_session.streams == {other}
    other.release(100)
    assert peer_session.streams == set()
    other.release(1)
    wire.server.assert_nothing_left(session.id)


def test_handler_can_be_changed() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"1")
    wire.run()
    second = Recorder()
    peer.opened[0].handler = second
    stream.send(b"2", True)
    wire.run()
    assert peer.data == {stream.id: b"1"}
    assert second.data == {stream.id: b"2"}


def test_silent_handler_hears_nothing_and_keeps_nothing() -> None:
    wire = Wire(windows=Windows(stream=10_000))
    session, _, _, peer = wire.pair()
    stream = session.open_stream(StreamHandler())
    stream.send(bytes(50_000))
    stream.notify_writable(0)
    wire.run()
    other: Stream = peer.opened[0]
    other.send(bytes(30_000), True)
    other.stop()
    stream.reset()
    wire.run()
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)


@given(
    chunks=st.lists(st.binary(max_size=2_000), max_size=8),
    losses=st.lists(st.booleans(), max_size=20),
    seed=st.integers(0, 1 << 32),
    double=st.booleans(),
    uni=st.booleans(),
)
def test_bytes_arrive_in_order_whatever_the_network_does(
    settled: tuple[Wire, Session, Recorder, Session, Recorder],
    chunks: list[bytes],
    losses: list[bool],
    seed: int,
    double: bool,
    uni: bool,
) -> None:
    wire, session, recorder, _, peer = settled
    fate = iter(losses)
    order = Random(seed)

    def network(packets: list[bytes], to_server: bool) -> list[bytes]:
        packets = [packet for packet in packets for _ in range(1 + double)]
        order.shuffle(packets)
        return packets

    wire.network = network
    wire.lose = lambda packet, to_server: next(fate, False)
    stream = session.open_stream(recorder, unidirectional=uni)
    for chunk in chunks:
        stream.send(chunk)
        wire.step()
    stream.send(b"", True)
    # Each loss doubles the time to the next attempt.
    wire.run(500_000)
    assert peer.data[stream.id] == b"".join(chunks)
    assert stream.id in peer.ended
    other = peer.opened.pop()
    if not uni:
        for chunk in chunks:
            other.send(chunk)
        other.send(b"", True)
        wire.run(100)
        assert recorder.data[stream.id] == b"".join(chunks)
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)


class Halves(RuleBasedStateMachine):
    """Both halves of one stream, whatever its user and its peer do; the model is what was done."""

    @initialize(is_local=st.booleans(), uni=st.booleans(), granted=st.none() | st.integers(0, 20))
    def start(self, is_local: bool, uni: bool, granted: int | None) -> None:
        self.quic = Quic(is_client=True)
        self.id = {(True, False): 4, (True, True): 6, (False, False): 1, (False, True): 7}[
            is_local, uni
        ]
        self.limit = granted
        self.flow = None
        if granted is not None:
            limits = Limits(initial_max_data=1_000)
            self.flow = FlowControl(limits, Credit(data=granted), lambda capsule: None)
        self.over = 0
        self.handler = Halved()
        self.stream = Stream(
            cast(QuicConnection, self.quic),
            self.id,
            self.handler,
            flow=self.flow,
            on_closed=self.end,
            is_local=is_local,
            header_size=3,
        )
        self.can_send = is_local or not uni
        self.can_receive = not is_local or not uni
        self.written = self.came = b""
        self.write_ended = not self.can_send
        self.was_reset = False
        self.receive_over = not self.can_receive
        self.stopped_by_us = self.abandoned = False
        self.received = 3 * (not is_local)

    @property
    def send_over(self) -> bool:
        """Whether our half is over: there is none, it was reset, or all of it was sent."""
        return not self.can_send or self.was_reset or self.id in self.quic.ended

    def end(self, stream: Stream) -> None:
        assert stream is self.stream
        self.over += 1

    # The user.

    @rule(data=st.binary(max_size=12), end=st.booleans())
    def send(self, data: bytes, end: bool) -> None:
        if self.write_ended:
            with pytest.raises(StateError):
                self.stream.send(data, end)
            return
        self.written += data
        self.write_ended = end
        self.stream.send(data, end)

    @rule(code=st.integers(0, 9))
    def reset(self, code: int) -> None:
        ongoing = not self.send_over
        self.stream.reset(code)
        if ongoing:
            assert self.quic.resets == {self.id: to_http3_code(code)}
            self.write_ended = self.was_reset = True

    @rule(code=st.integers(0, 9))
    def stop(self, code: int) -> None:
        first = not self.stopped_by_us
        self.stopped_by_us = True
        self.stream.stop(code)
        if first and not self.receive_over:
            assert self.quic.stops == {self.id: to_http3_code(code)}

    @rule(size=st.integers(1, 10))
    def release(self, size: int) -> None:
        held = self.quic.held.get(self.id, 0)
        self.stream.release(size)
        assert self.quic.held.get(self.id, 0) == max(0, held - size)

    @rule()
    def notify_writable(self) -> None:
        if not self.abandoned:
            was_over = self.over > 0
            is_asked = self.stream.notify_writable(0)
            assert is_asked == (not was_over and self.stream.buffered > 0)

    # The peer.

    @precondition(lambda self: not self.receive_over)
    @rule(data=st.binary(max_size=12), end=st.booleans(), hold=st.booleans())
    def receive(self, data: bytes, end: bool, hold: bool) -> None:
        if not data and not end:
            return
        self.receive_over = end
        self.handler.holds = hold
        self.received += len(data)
        if not self.stopped_by_us:
            self.came += data
        self.stream.receive(data, end, 0)

    @precondition(lambda self: not self.receive_over)
    @rule(code=st.integers(0, 9), unseen=st.integers(0, 9))
    def receive_reset(self, code: int, unseen: int) -> None:
        self.receive_over = True
        self.received += unseen
        self.stream.receive_reset(to_http3_code(code), self.received)
        assert self.handler.reset == (None if self.stopped_by_us else code)

    @precondition(lambda self: self.can_send)
    @rule(code=st.integers(0, 9))
    def receive_stop(self, code: int) -> None:
        ongoing = not self.send_over and not self.abandoned
        self.stream.receive_stop(to_http3_code(code))
        self.write_ended = self.was_reset = True
        assert self.handler.stop == (code if ongoing else self.handler.stop)

    @precondition(lambda self: self.limit is not None)
    @rule(more=st.integers(1, 20))
    def grant(self, more: int) -> None:
        assert self.flow is not None
        assert self.limit is not None
        self.limit += more
        self.flow.receive(CapsuleType.WT_MAX_DATA, varint.encode(self.limit))

    @precondition(lambda self: self.id in self.quic.asked)
    @rule()
    def writable(self) -> None:
        self.quic.asked.clear()
        self.stream.writable()

    @rule()
    def abandon(self) -> None:
        self.stream.abandon(ErrorCode.WT_SESSION_GONE)
        self.abandoned = self.stopped_by_us = self.write_ended = self.was_reset = True
        self.handler.is_done = True

    # What holds at any time.

    @invariant()
    def what_was_written_leaves_in_order_as_far_as_there_is_credit(self) -> None:
        sent = self.quic.sent.get(self.id, b"")
        assert self.written.startswith(sent)
        if self.id in self.quic.resets:
            return
        allowed = len(self.written) if self.limit is None else self.limit
        assert len(sent) == min(len(self.written), allowed)
        complete = self.can_send and self.write_ended and len(sent) == len(self.written)
        assert (self.id in self.quic.ended) == complete

    @invariant()
    def what_came_was_read_in_order_once(self) -> None:
        assert self.handler.data == self.came

    @invariant()
    def what_came_is_accounted_for(self) -> None:
        if self.flow is not None:
            header = 3 * (not self.stream.is_local)
            assert self.flow.data_in.received == self.received - header
            unread = self.quic.held.get(self.id, 0)
            assert self.flow.data_in.consumed == self.flow.data_in.received - unread

    @invariant()
    def it_is_over_when_both_halves_are_and_nothing_is_kept(self) -> None:
        assert self.stream.send_open == (not self.write_ended)
        assert self.stream.receive_open == (not self.receive_over)
        waits = self.quic.held.get(self.id, 0) or (self.quic.asked and not self.abandoned)
        assert (self.over > 0) == bool(self.send_over and self.receive_over and not waits)


class Halved(StreamHandler):
    """Writes down what comes, and keeps it unread where it is told to."""

    def __init__(self) -> None:
        self.data = b""
        self.holds = self.is_done = False
        self.reset: int | None = None
        self.stop: int | None = None

    def stream_data_received(
        self, stream: Stream, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        assert not self.is_done
        assert self.reset is None
        self.data += data
        if self.holds:
            stream.hold(len(data))

    def stream_reset_received(self, stream: Stream, code: int | None) -> None:
        assert not self.is_done
        assert self.reset is None
        self.reset = code

    def stop_sending_received(self, stream: Stream, code: int | None) -> None:
        assert not self.is_done
        self.stop = code

    def stream_writable(self, stream: Stream) -> None:
        assert not self.is_done


TestHalves = Halves.TestCase
TestHalves.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
