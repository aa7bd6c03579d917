"""What the engine does when it is used as it comes, each by name: not through the seam."""

from __future__ import annotations

import pytest

from pingpong.webtransport.errors import DatagramTooLargeError, ErrorCode, StateError
from pingpong.webtransport.http3.frames import encode_headers
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.states import State
from tests.webtransport.raw import CONNECT
from tests.webtransport.wire import Recorder, Wire

KIB = 1 << 10

# A datagram larger than fits wedges the queue.


def test_datagram_that_is_too_large_is_refused_and_wedges_nothing() -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    size = session.max_datagram_size
    assert size == 1169
    with pytest.raises(DatagramTooLargeError) as caught:
        session.send_datagram(bytes(size + 1))
    assert (caught.value.size, caught.value.limit) == (size + 1, size)
    assert session.send_datagram(b"x" * size)
    assert session.send_datagram(b"next")
    wire.run()
    assert peer.datagrams == [b"x" * size, b"next"]


@pytest.mark.parametrize("new_size", [20, 4])
def test_datagrams_fit_when_the_peers_connection_id_changes_its_length(new_size: int) -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    size = session.max_datagram_size
    engine, other = wire.client.engine, wire.server.engine._quic
    # The server gives out a longer (shorter) id; the client is made to use it.
    new = b"N" * new_size
    other._host_cids[1].cid = new
    wire.server_end.add_route(new, wire.server.engine)
    next(cid for cid in engine._quic._peer_cid_available if cid.sequence_number == 1).cid = new
    session.send_datagram(b"x" * size)
    session.send_datagram(b"small")
    engine._quic.change_connection_id()
    wire.server_end._routes = {
        key[:8]: connection for key, connection in wire.server_end._routes.items()
    }
    made = wire.client_end.transmit(wire.now)
    sizes = [len(packet) for _, packets in made for packet in packets]
    # The one that no longer fits is dropped, and those behind it leave.
    assert len(engine._quic._datagrams_pending) == 0
    assert session.max_datagram_size == size + 8 - new_size
    assert sizes
    assert max(sizes) <= 1200
    assert session.send_datagram(b"x" * session.max_datagram_size)
    with pytest.raises(DatagramTooLargeError):
        session.send_datagram(b"x" * (session.max_datagram_size + 1))
    wire.client_end.transmit(wire.now)
    assert len(engine._quic._datagrams_pending) == 0
    assert peer.datagrams == []


def test_datagram_size_follows_what_the_peer_takes() -> None:
    wire = Wire(raw_server=True, connect=False)
    wire.server_end._server.max_datagram_frame_size = 100  # type: ignore[union-attr]
    wire.connect()
    session_id, _ = wire.raw_accepted()
    session = wire.client.connection.sessions[0]
    # Type and two bytes of length of the frame, one byte of the session's id.
    assert session.max_datagram_size == 96
    session.send_datagram(bytes(96))
    wire.run()
    assert wire.raw.datagrams == [bytes(97)]
    assert wire.raw.closed is None
    assert session_id == 0


# Datagrams to a peer that did not offer them end the connection.


def test_datagram_to_a_peer_that_offered_none_is_refused() -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    # The session stands; only the word of the transport changes.
    wire.client.engine._quic._remote_max_datagram_frame_size = None
    wire.client.engine._set_datagram_size()
    assert session.max_datagram_size == 0
    with pytest.raises(DatagramTooLargeError):
        session.send_datagram(b"")
    wire.run()
    assert wire.client.closed is None
    assert peer.datagrams == []


# The datagram queue has no bound.


def test_datagram_queue_is_bounded() -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    sent = [session.send_datagram(b"%d" % number) for number in range(300)]
    assert sent == [True] * 256 + [False] * 44
    wire.run()
    assert len(peer.datagrams) == 256
    assert session.send_datagram(b"again")


# Datagrams are packed before stream frames.


def test_connect_and_datagram_in_the_wrong_order() -> None:
    wire = Wire(raw_client=True)
    wire.raw.send_settings()
    wire.run()
    order: list[str] = []
    inner = wire.server.connection
    stream, datagram = inner.stream_data_received, inner.datagram_received

    class Watching:
        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

        def stream_data_received(
            self, stream_id: int, data: bytes, end_stream: bool, arrival: int
        ) -> None:
            order.append("stream")
            stream(stream_id, data, end_stream, arrival)

        def datagram_received(self, data: bytes, arrival: int) -> None:
            order.append("datagram")
            datagram(data, arrival)

    wire.server.engine.events = Watching()  # type: ignore[assignment]
    wire.raw.open(encode_headers(CONNECT))
    wire.raw.datagram(b"in one flight")
    wire.run()
    assert order == ["datagram", "stream"]
    recorder = wire.server.sessions[0].handler
    assert isinstance(recorder, Recorder)
    assert recorder.datagrams == [b"in one flight"]


# Receive windows grow on receipt.


def test_reader_that_does_not_read_stops_the_peer_at_the_stream_window() -> None:
    wire = Wire(windows=Windows(stream=64 * KIB))
    session, recorder, _, peer = wire.pair()
    peer.holding = True
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(bytes(300 * KIB), True)
    wire.run(2)
    assert len(peer.data[stream.id]) == 64 * KIB - 3  # less the stream's header
    assert stream.buffered == 300 * KIB + 3 - 64 * KIB
    # Half of it read: so much more comes.
    held = peer.opened[0]
    held.release(32 * KIB)
    wire.run(2)
    assert len(peer.data[stream.id]) == 96 * KIB
    peer.holding = False
    held.release(1 << 30)
    wire.run(2)
    assert len(peer.data[stream.id]) == 300 * KIB
    assert stream.id in peer.ended
    assert stream.buffered == 0
    wire.server.assert_nothing_left(session.id)


def test_readers_that_do_not_read_stop_the_peer_at_the_connection_window() -> None:
    wire = Wire(windows=Windows(connection=100 * KIB, stream=64 * KIB))
    session, recorder, _, peer = wire.pair()
    peer.holding = True
    for _ in range(4):
        session.open_stream(recorder, unidirectional=True).send(bytes(50 * KIB))
    wire.run(2)
    quic = wire.server.engine._quic
    assert quic.held_total == sum(map(len, peer.data.values()))
    assert 99 * KIB < quic.held_total <= 100 * KIB
    assert quic._local_max_data.value <= 101 * KIB
    # Those that are stopped free their share; so do those that the session's end takes.
    first, second, third, fourth = peer.opened
    before = len(peer.data[fourth.id])
    for stream in (first, second, third):
        stream.stop()
    wire.run(2)
    assert len(peer.data[fourth.id]) == 50 * KIB > before
    assert quic.held_total == 50 * KIB
    session.close()
    wire.run(2)
    assert quic.held_total == 0
    assert quic.held == {}


def test_data_with_gaps_counts_against_the_connection_window() -> None:
    """A peer that leaves the first byte of every stream out gains no memory by it."""
    window = 100 * KIB
    wire = Wire(raw_client=True, windows=Windows(connection=window, stream=64 * KIB))
    wire.raw_session()
    wire.raw.quic._quic._remote_max_data = 1 << 40
    first = [wire.raw.open_in(0, uni=True) for _ in range(3)]
    wire.run()
    for stream_id in first:
        wire.raw.send(stream_id, bytes(60 * KIB))
        wire.raw.quic._quic._streams[stream_id].sender._pending.subtract(3, 4)
    wire.run()
    assert wire.raw.closed is not None
    assert (wire.raw.closed.code, wire.raw.closed.is_application) == (0x3, False)


def test_credit_for_bytes_that_a_reset_took_comes_back() -> None:
    wire = Wire(raw_client=True, windows=Windows(connection=32 * KIB, stream=16 * KIB))
    wire.raw_session()
    quic = wire.raw.quic._quic
    for _ in range(8):
        # The middle is missing, and never comes.
        stream_id = wire.raw.open_in(0, bytes(10 * KIB), uni=True)
        quic._streams[stream_id].sender._pending.subtract(100, 5 * KIB)
        wire.run()
        wire.raw.reset(stream_id)
        wire.run()
    assert wire.raw.closed is None
    server = wire.server.engine._quic
    assert server.delivered == server._local_max_data.used
    wire.server.assert_nothing_left(0)


@pytest.mark.parametrize("window", [Windows(stream=16 * KIB), Windows(connection=16 * KIB)])
def test_credit_is_granted_again_where_its_packet_is_lost(window: Windows) -> None:
    """Also where nothing else is to be sent when the loss is found out."""
    wire = Wire(windows=window)
    session, recorder, peer_session, peer = wire.pair()
    peer.holding = True
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(bytes(64 * KIB))
    wire.run(1)
    wire.lose = lambda packet, to_server: not to_server
    peer.opened[0].release(1 << 30)
    wire.step()
    wire.lose = lambda packet, to_server: False
    # These are acknowledged, by which the loss is known.
    for _ in range(4):
        peer_session.send_datagram(b"x")
        wire.step()
    before = len(peer.data[stream.id])
    for _ in range(4):
        wire.step()
    assert len(peer.data[stream.id]) > before
    assert 15 * KIB < before < 16 * KIB


# No send backpressure.


def test_buffered_and_notify_writable_tell_how_slow_the_peer_is() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder, unidirectional=True)
    header = stream.buffered
    assert header == 3
    stream.send(bytes(500 * KIB))
    assert stream.buffered == 500 * KIB + header
    stream.notify_writable(100 * KIB)
    seen = [stream.buffered]
    for _ in range(1000):
        wire.run(0.001)
        seen.append(stream.buffered)
        if recorder.calls:
            break
        assert stream.buffered > 100 * KIB
    assert recorder.calls == [("writable", stream.id)]
    assert seen[-1] <= 100 * KIB < seen[-2]
    wire.run(1)
    assert recorder.calls == [("writable", stream.id)]
    assert stream.buffered == 0
    assert len(peer.data[stream.id]) == 500 * KIB


def test_notify_writable_is_answered_also_after_the_end_of_the_half() -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(bytes(50 * KIB))
    stream.notify_writable(0)
    stream.send(b"", True)
    assert stream in session.streams
    wire.run(1)
    assert recorder.calls == [("writable", stream.id)]
    wire.client.assert_nothing_left(session.id)


def test_notify_writable_is_answered_when_the_peer_stops_reading() -> None:
    wire = Wire(windows=Windows(stream=10 * KIB))
    session, recorder, _, peer = wire.pair()
    peer.holding = True
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(bytes(50 * KIB))
    stream.notify_writable(0)
    wire.run()
    peer.opened[0].stop(3)
    wire.run()
    assert recorder.stops == {stream.id: 3}
    assert recorder.calls == [("writable", stream.id)]
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)


# Stream credit is 128/128; streams past the limit queue silently.


@pytest.mark.parametrize("uni", [False, True])
def test_stream_past_the_peers_limit_is_refused_and_credit_comes_later(uni: bool) -> None:
    wire = Wire(windows=Windows(streams_bidi=4, streams_uni=4))
    session, recorder, _, peer = wire.pair()
    # One bidirectional stream is the session's, one unidirectional the control stream.
    streams = [session.open_stream(recorder, unidirectional=uni) for _ in range(3)]
    assert not session.can_open_stream(uni)
    assert session.can_open_stream(not uni)
    with pytest.raises(StateError, match="no more streams at the moment"):
        session.open_stream(recorder, unidirectional=uni)
    wire.run()
    assert ("credit",) not in recorder.calls
    for stream in streams:
        stream.send(b"", True)
    wire.run()
    for stream in peer.opened:
        if not uni:
            stream.send(b"", True)
    wire.run()
    assert ("credit",) in recorder.calls
    assert session.can_open_stream(uni)
    session.open_stream(recorder, unidirectional=uni).send(b"", True)
    wire.run()
    assert len(peer.opened) == 4


def test_session_past_the_peers_stream_limit_is_refused() -> None:
    wire = Wire(windows=Windows(streams_bidi=1))
    session, recorder, _, _ = wire.pair()
    with pytest.raises(StateError, match="no more streams at the moment"):
        wire.client.connection.open_session(session.request, recorder)
    assert wire.client.connection.sessions == (session,)


# STOP_SENDING is answered with a reset by itself; stop and send raise on finished streams.


def test_stop_sending_resets_our_half_with_the_peers_code() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"hello")
    wire.run()
    peer.opened[0].stop(0xFFFF_FFFF)
    wire.run()
    assert recorder.stops == {stream.id: 0xFFFF_FFFF}
    assert not stream.send_open
    assert stream.receive_open
    with pytest.raises(StateError):
        stream.send(b"more")


def test_what_is_done_to_finished_streams_does_nothing() -> None:
    wire = Wire()
    session, recorder, peer_session, peer = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"", True)
    wire.run()
    other = peer.opened[0]
    other.send(b"", True)
    wire.run()
    assert session.streams == peer_session.streams == set()
    for one in (stream, other):
        one.stop(1)
        one.reset(2)
        one.release(5)
        one.hold(0)
        one.notify_writable(0)
        assert one.buffered == 0
        with pytest.raises(StateError):
            one.send(b"late")
    engine = wire.client.engine
    engine.stop_sending(stream.id, 1)
    engine.reset_stream(stream.id, 1)
    engine.reset_stream(stream.id, 1, 2)
    engine.send_stream(stream.id, b"late", True)
    # Nor to those that never were.
    for stream_id in (400, 401, 402, 403):
        engine.stop_sending(stream_id, 1)
        engine.reset_stream(stream_id, 1, 2)
        engine.send_stream(stream_id, b"never")
        assert engine.buffered(stream_id) == 0
    wire.run()
    assert (recorder.resets, recorder.stops) == ({}, {})
    assert (peer.resets, peer.stops) == ({}, {})
    assert wire.client.closed is wire.server.closed is None
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)


def test_fin_that_waits_for_credit_is_given_up_when_the_peer_stops_reading() -> None:
    """Nobody grants credit to a stream that is not read: it would stay for ever."""
    wire = Wire(windows=Windows(stream=10 * KIB))
    session, recorder, _, peer = wire.pair()
    peer.holding = True
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(bytes(50 * KIB), True)
    wire.run()
    assert session.streams == set()
    peer.opened[0].stop()
    wire.run()
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)


# RESET_STREAM_AT is unknown to the engine: see test_reset_stream_at.py.
# Unknown connection ids, limits on handshakes, Retry, timers: see test_quic_endpoint.py.


def test_session_id_that_is_not_a_clients_bidirectional_stream() -> None:
    for session_id in (1, 2, 3, 5, 402):
        for uni in (False, True):
            wire = Wire(raw_client=True)
            _, recorder = wire.raw_session()
            wire.raw.open_in(session_id, b"x", uni=uni)
            wire.run()
            assert wire.raw.closed is not None
            assert wire.raw.closed.code == ErrorCode.H3_ID_ERROR
            assert recorder.closed is not None
            assert recorder.closed.wire_code == ErrorCode.H3_ID_ERROR
            assert [error.code for error in wire.server.errors] == [ErrorCode.H3_ID_ERROR]


def test_client_sees_what_comes_on_a_bidirectional_stream_of_its_own() -> None:
    wire = Wire(raw_server=True)
    session_id, recorder = wire.raw_accepted()
    session = wire.client.connection.sessions[0]
    stream = session.open_stream(recorder)
    stream.send(b"question", True)
    wire.run()
    # Looks like a HEADERS frame, and is nobody's.
    wire.raw.send(stream.id, b"\x01\x05answer", end=True)
    wire.run()
    assert recorder.data == {stream.id: b"\x01\x05answer"}
    assert wire.client.errors == []
    assert session_id == 0
    assert session.state is State.ESTABLISHED


def test_oversized_settings_are_not_buffered() -> None:
    wire = Wire(raw_client=True)
    wire.raw.open(b"\x00\x04\x80\xff\xff\xff" + bytes(100), uni=True)
    wire.run()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == ErrorCode.H3_EXCESSIVE_LOAD
