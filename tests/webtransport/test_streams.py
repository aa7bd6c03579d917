from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport import varint
from pingpong.webtransport.errors import ErrorCode, StateError, to_http3_code
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.session import Session
from pingpong.webtransport.streams import Stream, StreamHandler, encode_stream_header
from tests.webtransport.raw import stream_header
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
