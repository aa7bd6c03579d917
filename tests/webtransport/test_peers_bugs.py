"""What other implementations got wrong, each by name: none of it here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleType, encode_close
from pingpong.webtransport.connection import Connection
from pingpong.webtransport.errors import ErrorCode, StateError
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.http3.frames import FrameType, encode_frame, encode_headers
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.states import State
from tests.webtransport.raw import CONNECT, capsule, grease
from tests.webtransport.wire import Recorder, Wire

# 1. Closed streams kept in a map: see test_churn.py.
# 2. An unbounded close message.


def test_close_message_of_1024_bytes_is_accepted() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.raw.capsule(session_id, CapsuleType.WT_CLOSE_SESSION, bytes(4) + b"x" * 1024)
    wire.run()
    assert recorder.closed == SessionClosed(code=0, reason="x" * 1024)
    assert wire.server.errors == []


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(capsule(CapsuleType.WT_CLOSE_SESSION, bytes(4) + b"x" * 1025), id="1025"),
        pytest.param(capsule(CapsuleType.WT_CLOSE_SESSION, bytes(4) + b"\xc3\x28"), id="not UTF-8"),
        pytest.param(capsule(CapsuleType.WT_CLOSE_SESSION, bytes(4) + b"\xed\xa0\x80"), id="half"),
        pytest.param(capsule(CapsuleType.WT_CLOSE_SESSION, b"123"), id="no code"),
        pytest.param(
            varint.encode(CapsuleType.WT_CLOSE_SESSION) + varint.encode(varint.MAX), id="2^62"
        ),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_close_message_that_is_too_long_or_no_text_resets_the_session(
    payload: bytes, bytewise: bool
) -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    other_id, other = wire.raw_session()
    frame = encode_frame(FrameType.DATA, payload)
    for piece in [frame[i : i + 1] for i in range(len(frame))] if bytewise else [frame]:
        wire.raw.send(session_id, piece)
        wire.step()
    wire.run()
    assert recorder.closed is not None
    assert (recorder.closed.wire_code, recorder.closed.code) == (ErrorCode.H3_MESSAGE_ERROR, None)
    assert wire.raw.resets == {session_id: ErrorCode.H3_MESSAGE_ERROR}
    assert wire.raw.stops == {session_id: ErrorCode.H3_MESSAGE_ERROR}
    assert [error.code for error in wire.server.errors] == [ErrorCode.H3_MESSAGE_ERROR]
    assert other.closed is None
    assert wire.server.closed is None
    wire.raw.datagram(b"still there", other_id)
    wire.run()
    assert other.datagrams == [b"still there"]


def test_close_capsule_that_claims_2_to_the_62_bytes_keeps_nothing() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    huge = varint.encode(grease(3)) + varint.encode(varint.MAX)
    wire.raw.send(session_id, varint.encode(FrameType.DATA) + varint.encode(varint.MAX) + huge)
    for _ in range(50):
        wire.raw.send(session_id, bytes(10_000))
        wire.run(0.02)
    assert wire.server.sessions[0].buffered_bytes == 0
    assert recorder.closed is None


# 3. A close that hangs while the peer withholds credit on the CONNECT stream.


def test_close_without_credit_on_the_connect_stream_does_not_hang() -> None:
    # The server's response takes all that the client's window gives it.
    wire = Wire(raw_client=True, client_windows=Windows(stream=12))
    wire.raw.quic._quic.windows = Windows(stream=0)
    session_id, recorder = wire.raw_session()
    session = wire.server.sessions[0]
    stream = session.open_stream(recorder)
    session.close(7, "enough")
    assert recorder.closed == SessionClosed(code=7, reason="enough", by_peer=False)
    with pytest.raises(StateError):
        session.open_stream(recorder)
    wire.run(1)
    assert wire.raw.capsules(session_id) == []
    assert wire.raw.resets[stream.id] == ErrorCode.WT_SESSION_GONE
    # When credit comes at last, the reason does as well.
    wire.raw.quic._quic.windows = Windows()
    wire.raw.send(session_id, end=True)
    wire.run()
    close = encode_close(7, "enough")
    assert wire.raw.capsules(session_id) == [(CapsuleType.WT_CLOSE_SESSION, close[-10:])]
    assert session_id in wire.raw.ended


def test_close_without_credit_is_given_up_when_the_peer_stops_reading() -> None:
    wire = Wire(raw_client=True, client_windows=Windows(stream=12))
    wire.raw.quic._quic.windows = Windows(stream=0)
    session_id, _ = wire.raw_session()
    wire.server.sessions[0].close(7, "enough")
    wire.run()
    wire.raw.stop(session_id, ErrorCode.WT_SESSION_GONE)
    wire.raw.reset(session_id)
    wire.run()
    assert wire.raw.resets == {session_id: ErrorCode.WT_SESSION_GONE}
    wire.server.assert_nothing_left()


# 4. STOP_SENDING beside the close capsule.


@pytest.mark.parametrize("order", ["capsule", "stop"])
@pytest.mark.parametrize("together", [True, False])
def test_stop_sending_beside_the_close_capsule_does_not_cost_the_code(
    order: str, together: bool
) -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    session = wire.server.sessions[0]

    def close() -> None:
        wire.raw.capsule(session_id, CapsuleType.WT_CLOSE_SESSION, b"\0\0\0\x09bye", end=True)

    def stop() -> None:
        wire.raw.stop(session_id, ErrorCode.WT_SESSION_GONE)

    first, second = (close, stop) if order == "capsule" else (stop, close)
    first()
    if not together:
        wire.run()
        if order == "stop":
            # Nothing more can be sent, but how it ends is yet to be heard.
            assert recorder.closed is None
            assert not session.send_datagram(b"late")
            assert not session.can_open_stream(True)
    second()
    wire.run()
    assert recorder.closed == SessionClosed(code=9, reason="bye")
    wire.server.assert_nothing_left()


def test_close_sends_capsule_and_fin_and_no_stop_sending() -> None:
    wire = Wire(raw_client=True)
    session_id, _ = wire.raw_session()
    wire.server.sessions[0].close(3, "done")
    wire.run()
    assert wire.raw.capsules(session_id) == [(CapsuleType.WT_CLOSE_SESSION, b"\0\0\0\x03done")]
    assert session_id in wire.raw.ended
    assert wire.raw.stops == {}
    assert wire.raw.resets == {}


def test_stop_sending_after_our_close_leaves_the_capsule_on_its_way() -> None:
    wire = Wire(raw_client=True)
    session_id, _ = wire.raw_session()
    session = wire.server.sessions[0]
    # The capsule is lost at first, and is sent again although the peer has stopped.
    wire.lose = lambda packet, to_server: not to_server
    session.close(5, "kept")
    wire.step()
    wire.lose = lambda packet, to_server: False
    wire.raw.stop(session_id, ErrorCode.WT_SESSION_GONE)
    wire.run(1)
    assert wire.raw.capsules(session_id) == [(CapsuleType.WT_CLOSE_SESSION, b"\0\0\0\x05kept")]
    wire.raw.send(session_id, end=True)
    wire.run()
    wire.server.assert_nothing_left()


def test_stop_sending_alone_ends_the_session_when_the_peer_leaves_it_at_that() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.raw.stop(session_id, ErrorCode.H3_REQUEST_CANCELLED)
    wire.run()
    assert recorder.closed is not None
    assert recorder.closed.wire_code == ErrorCode.H3_REQUEST_CANCELLED
    assert wire.raw.resets == {session_id: ErrorCode.H3_REQUEST_CANCELLED}


def test_session_that_the_peer_has_stopped_can_still_be_closed_by_this_side() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.raw.stop(session_id, ErrorCode.WT_SESSION_GONE)
    wire.run()
    assert recorder.closed is None
    wire.server.sessions[0].close(4)
    assert recorder.closed == SessionClosed(code=4, by_peer=False)


# 5. Reads and writes that hang after the session is gone.


def test_everything_ends_with_one_clear_error_when_the_connection_is_lost() -> None:
    wire = Wire(idle_timeout=2.0)
    session, recorder, peer, peer_recorder = wire.pair()
    reading = session.open_stream(recorder)
    reading.send(b"x" * 10)
    writing = session.open_stream(recorder, unidirectional=True)
    wire.run()
    wire.lose = lambda packet, to_server: True
    writing.send(bytes(1 << 20))
    writing.notify_writable(1000)
    assert {s.id for s in session.streams} == {reading.id, writing.id}
    wire.run(30)
    for told, side in ((recorder, wire.client), (peer_recorder, wire.server)):
        assert told.closed is not None
        assert told.closed.error == "the connection timed out: nothing was received from the peer"
        assert told.closed.code is None
        assert side.closed is not None
        assert side.closed.timed_out
        assert not side.closed.by_peer
        side.assert_forgotten()
    assert (session.state, peer.state) == (State.CLOSED, State.CLOSED)
    assert (session.streams, peer.streams) == (set(), set())
    assert not reading.send_open
    assert not reading.receive_open
    assert reading.buffered == writing.buffered == 0
    with pytest.raises(StateError):
        reading.send(b"more")
    with pytest.raises(StateError):
        session.send_datagram(b"more")
    with pytest.raises(StateError):
        wire.client.connection.open_session(session.request, recorder)


def test_handler_finds_the_open_streams_when_the_session_closes() -> None:
    wire = Wire()
    session, recorder, peer, _ = wire.pair()
    found: list[set[int]] = []

    class Keeper(Recorder):
        def session_closed(self, session: object, closed: SessionClosed) -> None:
            found.append({stream.id for stream in peer.streams})

    peer.handler = Keeper()
    streams = [peer.open_stream(Recorder()), peer.open_stream(Recorder(), unidirectional=True)]
    streams[1].send(b"last", True)
    theirs = session.open_stream(recorder, unidirectional=True)
    wire.run()
    session.close()
    wire.run()
    # The unidirectional one was complete, and nobody waits for anything of it.
    assert found == [{streams[0].id, theirs.id}]
    wire.server.assert_nothing_left()
    wire.client.assert_nothing_left()


@pytest.mark.parametrize("whose", ["ours", "the peer's"])
def test_everything_ends_when_the_connection_is_closed(whose: str) -> None:
    wire = Wire()
    _, recorder, _, peer_recorder = wire.pair()
    side = wire.client if whose == "ours" else wire.server
    side.connection.close(ErrorCode.H3_NO_ERROR, "done")
    wire.run(0.01)
    mine, theirs = recorder.closed, peer_recorder.closed
    assert mine is not None
    assert theirs is not None
    if whose != "ours":
        mine, theirs = theirs, mine
    assert mine.error == "the connection was closed by this side: H3_NO_ERROR, done"
    assert theirs.error == "the connection was closed by the peer: H3_NO_ERROR, done"


# 6. RESET and STOP_SENDING of the CONNECT stream in one packet; a late FIN.


@pytest.mark.parametrize("order", ["reset", "stop"])
def test_reset_and_stop_sending_in_one_packet_are_one_teardown(order: str) -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    stream_id = wire.raw.open_in(session_id, b"x")
    wire.run()
    calls: list[Callable[[], None]] = [
        lambda: wire.raw.reset(session_id, ErrorCode.H3_REQUEST_CANCELLED),
        lambda: wire.raw.stop(session_id, ErrorCode.H3_REQUEST_CANCELLED),
    ]
    for call in calls if order == "reset" else reversed(calls):
        call()
    wire.run()
    assert recorder.closed is not None
    assert recorder.closed.wire_code == ErrorCode.H3_REQUEST_CANCELLED
    assert wire.raw.resets.keys() == {session_id, stream_id}
    assert wire.raw.resets[stream_id] == ErrorCode.WT_SESSION_GONE
    wire.raw.reset(stream_id)
    wire.run()
    wire.server.assert_nothing_left()
    assert wire.server.errors == []
    assert wire.server.requests_ended == 1


def test_late_fin_does_not_revive_a_stream() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    # The packet with data and FIN is overtaken by the one with the reset.
    held: list[bytes] = []

    def hold(packets: list[bytes], to_server: bool) -> list[bytes]:
        if to_server:
            held.extend(packets)
            return []
        return packets

    stream_id = wire.raw.open_in(session_id, b"begin")
    wire.run()
    wire.network = hold
    wire.raw.send(stream_id, b"rest", end=True)
    wire.step()
    wire.network = lambda packets, to_server: packets
    wire.raw.reset(stream_id)
    wire.step()
    wire.step()
    assert recorder.resets == {stream_id: None}
    recorder.opened[0].send(b"", True)
    for packet in held:
        wire.server_end.receive(packet, wire.client_address, wire.now, 0)
    wire.run()
    assert recorder.data == {stream_id: b"begin"}
    assert recorder.ended == set()
    wire.server.assert_nothing_left(session_id)
    wire.raw.send(session_id, end=True)
    wire.run()
    wire.server.assert_nothing_left()


def test_late_fin_on_the_connect_stream_does_not_revive_the_session() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.server.sessions[0].close(1)
    wire.run()
    wire.raw.send(session_id, end=True)
    wire.run()
    assert recorder.closed == SessionClosed(code=1, by_peer=False)
    wire.server.assert_nothing_left()


# 7. The CONNECT stream's input split at every byte, GREASE everywhere.

GREASE_FRAME = encode_frame(grease(1), b"any")  # type: ignore[arg-type]
GREASE_CAPSULE = capsule(grease(2), b"thing")


def data(*capsules: bytes) -> bytes:
    return encode_frame(FrameType.DATA, b"".join(capsules))


SESSION_OF_GREASE = b"".join(
    (
        GREASE_FRAME,
        encode_headers(CONNECT),
        GREASE_FRAME,
        encode_frame(grease(1_000_000), b""),  # type: ignore[arg-type]
        data(),
        data(GREASE_CAPSULE),
        data(GREASE_CAPSULE, capsule(CapsuleType.WT_DRAIN_SESSION), GREASE_CAPSULE),
        GREASE_FRAME,
        # A capsule may be cut over frames, anywhere.
        data(capsule(CapsuleType.DATAGRAM, b"reliable")[:3]),
        GREASE_FRAME,
        data(capsule(CapsuleType.DATAGRAM, b"reliable")[3:], GREASE_CAPSULE),
        data(capsule(grease(77), bytes(300))[:1]),
        data(capsule(grease(77), bytes(300))[1:200]),
        data(capsule(grease(77), bytes(300))[200:]),
        data(GREASE_CAPSULE, encode_close(0xDEADBEEF, "grüße")),
    )
)


def feed(connection: Connection, stream_id: int, pieces: list[bytes]) -> None:
    for piece in pieces:
        connection.stream_data_received(stream_id, piece, False, 0)
    connection.stream_data_received(stream_id, b"", True, 0)


def test_connect_stream_split_at_every_byte_and_greased() -> None:
    wire = Wire(raw_client=True)
    wire.raw.send_settings({grease(3): 17, grease(1 << 40): 1, grease(9): varint.MAX})
    wire.run()
    connection = wire.server.connection
    whole = SESSION_OF_GREASE
    cuts = [[whole[:cut], whole[cut:]] for cut in range(1, len(whole))]
    cuts.append([whole[i : i + 1] for i in range(len(whole))])
    cuts.append([whole])
    for stream_id, pieces in zip(range(0, 4 * len(cuts), 4), cuts, strict=True):
        feed(connection, stream_id, pieces)
        session = wire.server.sessions.pop()
        assert session.id == stream_id
        assert session.request.path == "/"
    assert wire.server.errors == []
    assert wire.server.closed is None
    assert connection.sessions == ()
    assert set(connection._streams) == {3, wire.raw.control}


@pytest.mark.parametrize("bytewise", [False, True])
def test_a_greased_session_is_reported_as_if_it_were_not(bytewise: bool) -> None:
    wire = Wire(raw_client=True)
    recorder = Recorder()
    wire.server.decide = lambda session: session.accept(recorder)
    wire.raw.open(varint.encode(grease(5)) + b"what is this", uni=True, end=True)
    wire.raw.send_settings({grease(3): 17})
    wire.raw.send(wire.raw.control, GREASE_FRAME)
    wire.run()
    session_id = wire.raw.open()
    pieces = [SESSION_OF_GREASE]
    if bytewise:
        pieces = [SESSION_OF_GREASE[i : i + 1] for i in range(len(SESSION_OF_GREASE))]
    for piece in pieces:
        wire.raw.send(session_id, piece)
        wire.step()
    wire.raw.send(session_id, end=True)
    wire.raw.open(varint.encode(grease(6)), uni=True)
    wire.run()
    assert recorder.draining == 1
    assert recorder.datagrams == [b"reliable"]
    assert recorder.closed == SessionClosed(code=0xDEADBEEF, reason="grüße")
    assert wire.server.errors == []
    assert wire.raw.closed is None
    assert set(wire.raw.stops.values()) <= {ErrorCode.H3_STREAM_CREATION_ERROR}


def test_stream_headers_split_at_every_byte() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    for uni in (False, True):
        # Not the shortest forms: any length is allowed (RFC 9000, section 16).
        header = b"\x80\0\0" + bytes([0x54 if uni else 0x41]) + b"\xc0" + bytes(7)
        for cut in range(len(header) + 1):
            stream_id = wire.raw.open(header[:cut], uni=uni)
            wire.run(0.01)
            wire.raw.send(stream_id, header[cut:] + b"body", end=True)
            wire.run(0.01)
            assert recorder.data[stream_id] == b"body"
            assert stream_id in recorder.ended
    assert session_id == 0
    assert wire.server.errors == []
