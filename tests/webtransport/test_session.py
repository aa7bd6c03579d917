from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport import varint
from pingpong.webtransport.capsules import CapsuleType, encode_close
from pingpong.webtransport.errors import ErrorCode, StateError
from pingpong.webtransport.events import Request, SessionClosed
from pingpong.webtransport.http3.frames import FrameType, encode_frame, encode_headers
from pingpong.webtransport.session import Session
from pingpong.webtransport.states import State
from pingpong.webtransport.streams import Stream
from tests.webtransport.raw import capsule
from tests.webtransport.wire import Recorder, Side, Wire

# Ends.


@given(code=st.integers(0, 0xFFFF_FFFF), reason=st.text(max_size=1100), by_client=st.booleans())
def test_close_code_and_reason_reach_the_other_side(
    settled: Wire, code: int, reason: str, by_client: bool
) -> None:
    session, recorder, peer, peer_recorder = settled.pair()
    mine, theirs = (recorder, peer_recorder) if by_client else (peer_recorder, recorder)
    (session if by_client else peer).close(code, reason)
    settled.run()
    assert mine.closed == SessionClosed(code=code, reason=reason, by_peer=False)
    assert theirs.closed is not None
    assert (theirs.closed.code, theirs.closed.by_peer) == (code, True)
    # Cut to 1024 bytes, at the end of a character.
    assert reason.startswith(theirs.closed.reason)
    size = len(theirs.closed.reason.encode())
    assert size == len(reason.encode()) or 1020 < size <= 1024
    settled.client.assert_nothing_left()
    settled.server.assert_nothing_left()


@pytest.fixture(scope="module")
def settled() -> Wire:
    """One for all examples: a handshake for each would cost too much."""
    return Wire()


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_close_code_has_32_bits(code: int) -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    with pytest.raises(ValueError, match="32 bits"):
        session.close(code)
    assert recorder.closed is None


def test_fin_without_a_capsule_is_a_close_with_code_0() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.raw.send(session_id, end=True)
    wire.run()
    assert recorder.closed == SessionClosed(code=0, reason="")
    assert session_id in wire.raw.ended
    assert wire.raw.capsules(session_id) == []
    wire.server.assert_nothing_left()


def test_reset_of_the_connect_stream_ends_the_session_without_a_code() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.raw.reset(session_id, ErrorCode.H3_INTERNAL_ERROR)
    wire.run()
    assert recorder.closed == SessionClosed(
        error="the peer reset the session: H3_INTERNAL_ERROR",
        wire_code=ErrorCode.H3_INTERNAL_ERROR,
    )
    assert not recorder.closed.clean
    assert wire.raw.resets == {session_id: ErrorCode.WT_SESSION_GONE}
    wire.server.assert_nothing_left()


@pytest.mark.parametrize("by_client", [True, False])
def test_streams_end_with_the_session(by_client: bool) -> None:
    wire = Wire()
    session, recorder, peer, peer_recorder = wire.pair()
    for one, told in ((session, recorder), (peer, peer_recorder)):
        for uni in (False, True):
            one.open_stream(told, unidirectional=uni).send(b"x")
    wire.run()
    (session if by_client else peer).close()
    wire.run()
    # The sides are told of the session's end, which says it all.
    assert recorder.resets == recorder.stops == peer_recorder.resets == peer_recorder.stops == {}
    for side in (wire.client, wire.server):
        side.assert_nothing_left()


def test_streams_end_with_session_gone_on_the_wire() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    mine = [wire.raw.open_in(session_id, b"x", uni=uni) for uni in (False, True)]
    wire.run()
    session = wire.server.sessions[0]
    theirs = [session.open_stream(recorder, unidirectional=uni).id for uni in (False, True)]
    half = session.open_stream(recorder)
    half.send(b"complete", True)
    wire.run()
    session.close()
    wire.run()
    gone = ErrorCode.WT_SESSION_GONE
    assert wire.raw.stops == {mine[0]: gone, mine[1]: gone, theirs[0]: gone, half.id: gone}
    assert wire.raw.resets == {mine[0]: gone, theirs[0]: gone, theirs[1]: gone}


def test_both_sides_may_close_at_once() -> None:
    wire = Wire()
    session, recorder, peer, peer_recorder = wire.pair()
    session.close(1, "client")
    peer.close(2, "server")
    wire.run()
    assert recorder.closed == SessionClosed(code=1, reason="client", by_peer=False)
    assert peer_recorder.closed == SessionClosed(code=2, reason="server", by_peer=False)
    session.close(3)
    peer.close(4)
    wire.run()
    wire.client.assert_nothing_left()
    wire.server.assert_nothing_left()


def test_nothing_can_be_sent_after_the_end() -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    stream = session.open_stream(recorder)
    session.close()
    assert not session.can_open_stream(False)
    with pytest.raises(StateError, match="closed"):
        session.open_stream(recorder)
    with pytest.raises(StateError, match="closed"):
        session.send_datagram(b"")
    with pytest.raises(StateError):
        stream.send(b"")
    session.drain()
    wire.run()
    assert recorder.calls == []


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(encode_frame(FrameType.DATA, b"x"), id="DATA"),
        pytest.param(encode_headers([(b"a", b"b")]), id="HEADERS"),
        pytest.param(b"\x00", id="part of a frame"),
        pytest.param(
            encode_frame(FrameType.DATA, capsule(CapsuleType.WT_DRAIN_SESSION)), id="capsule"
        ),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_data_after_the_close_capsule_resets_the_stream(after: bytes, together: bool) -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    # Its own FIN has to be on its way still, or there is nothing left to reset.
    wire.lose = lambda packet, to_server: not to_server
    wire.raw.send(session_id, encode_frame(FrameType.DATA, encode_close(1, "bye")))
    if not together:
        wire.step()
    wire.raw.send(session_id, after)
    wire.step()
    wire.step()
    wire.lose = lambda packet, to_server: False
    wire.run(1)
    assert recorder.closed == SessionClosed(code=1, reason="bye")
    assert wire.raw.resets == wire.raw.stops == {session_id: ErrorCode.H3_MESSAGE_ERROR}
    assert [error.code for error in wire.server.errors] == [ErrorCode.H3_MESSAGE_ERROR]
    wire.raw.send(session_id, after)
    wire.raw.reset(session_id)
    wire.run()
    assert len(wire.server.errors) == 1
    wire.server.assert_nothing_left()


def test_two_capsules_in_one_frame_the_first_of_which_closes() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    frame = encode_close(1, "bye") + capsule(CapsuleType.WT_DRAIN_SESSION)
    wire.raw.send(session_id, encode_frame(FrameType.DATA, frame))
    wire.run()
    assert recorder.closed == SessionClosed(code=1, reason="bye")
    assert recorder.draining == 0
    assert [error.code for error in wire.server.errors] == [ErrorCode.H3_MESSAGE_ERROR]


def test_fin_within_a_capsule_is_a_malformed_message() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    half = encode_frame(FrameType.DATA, encode_close(1, "bye")[:-1])
    wire.raw.send(session_id, half, end=True)
    wire.run()
    assert recorder.closed is not None
    assert recorder.closed.wire_code == ErrorCode.H3_MESSAGE_ERROR
    assert wire.raw.resets == {session_id: ErrorCode.H3_MESSAGE_ERROR}
    wire.server.assert_nothing_left()


# Draining.


@pytest.mark.parametrize("by_client", [True, False])
def test_drain_asks_to_leave_and_the_session_goes_on(by_client: bool) -> None:
    wire = Wire()
    session, recorder, peer, peer_recorder = wire.pair()
    mine, theirs = (session, peer) if by_client else (peer, session)
    told = peer_recorder if by_client else recorder
    mine.drain()
    mine.drain()
    wire.run()
    assert told.draining == 1
    assert mine.draining
    assert theirs.draining
    theirs.send_datagram(b"still")
    mine.open_stream(recorder).send(b"going on")
    wire.run()
    assert session.state is State.ESTABLISHED
    assert (recorder if by_client else peer_recorder).datagrams == [b"still"]


def test_drain_capsule_with_a_value_is_malformed() -> None:
    wire = Wire(raw_client=True)
    session_id, recorder = wire.raw_session()
    wire.raw.capsule(session_id, CapsuleType.WT_DRAIN_SESSION, b"x")
    wire.run()
    assert wire.raw.resets == {session_id: ErrorCode.H3_MESSAGE_ERROR}
    assert recorder.draining == 0


# Datagrams.


def test_datagrams_of_sessions_are_kept_apart() -> None:
    wire = Wire()
    pairs = [wire.pair() for _ in range(3)]
    for number, (session, _, peer, _) in enumerate(pairs):
        session.send_datagram(b"to the server %d" % number)
        peer.send_datagram(b"to the client %d" % number)
        session.send_datagram(b"")
    wire.run()
    for number, (_, recorder, _, peer_recorder) in enumerate(pairs):
        assert peer_recorder.datagrams == [b"to the server %d" % number, b""]
        assert recorder.datagrams == [b"to the client %d" % number]


def test_datagram_of_a_late_session_has_a_longer_prefix() -> None:
    wire = Wire(raw_client=True)
    wire.raw.send_settings()
    for _ in range(64):
        wire.raw.quic.open_stream(b"", False)
    session_id, recorder = wire.raw_session()
    assert session_id == 256
    session = wire.server.sessions[0]
    assert session.max_datagram_size == 1168
    session.send_datagram(bytes(1168))
    wire.raw.quic.send_datagram(varint.encode(64) + b"in")
    # Not the shortest form, which is allowed.
    wire.raw.quic.send_datagram(b"\x80\x00\x00\x40" + b"long")
    wire.run()
    assert wire.raw.datagrams == [b"\x40\x40" + bytes(1168)]
    assert recorder.datagrams == [b"in", b"long"]


def test_arrival_is_the_packets() -> None:
    wire = Wire()
    arrivals = []

    class Clock(Recorder):
        def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
            arrivals.append(arrival)

        def stream_data_received(
            self, stream: Stream, data: bytes, end_stream: bool, arrival: int
        ) -> None:
            arrivals.append(arrival)

    wire.server.decide = lambda session: session.accept(Clock())
    session, recorder = wire.session()
    session.send_datagram(b"x")
    wire.step()
    first = int(wire.now * 1e9)
    assert arrivals == [first]
    stream = session.open_stream(recorder)
    stream.send(b"header and all")
    wire.step()
    stream.send(b"more")
    wire.step()
    assert len(arrivals) == 3
    assert arrivals[2] == int(wire.now * 1e9) > arrivals[1] > first


# Faults of the handler's.


class FaultyError(Exception):
    pass


def fails(*args: object) -> None:
    raise FaultyError


@pytest.mark.parametrize(
    ("method", "act"),
    [
        ("datagram_received", lambda session, stream: session.send_datagram(b"x")),
        ("stream_opened", lambda session, stream: stream.send(b"x")),
        ("session_draining", lambda session, stream: session.drain()),
        ("session_closed", lambda session, stream: session.close()),
    ],
)
def test_fault_of_a_handler_ends_its_connection_with_internal_error(
    method: str, act: Callable[[Session, object], None]
) -> None:
    wire = Wire()
    faulty = Recorder()
    setattr(faulty, method, fails)
    wire.server.decide = lambda session: session.accept(faulty)
    session, recorder = wire.session()
    wire.server.decide = None
    _, other = wire.session()
    act(session, session.open_stream(recorder))
    with pytest.raises(FaultyError):
        wire.run()
    wire.run()
    assert wire.client.closed is not None
    assert wire.client.closed.code == ErrorCode.H3_INTERNAL_ERROR
    assert other.closed is not None
    assert wire.server.closed is not None
    for side in (wire.client, wire.server):
        side.assert_forgotten()


def test_fault_in_session_closed_keeps_nothing_from_the_others() -> None:
    wire = Wire()
    sessions = [wire.pair() for _ in range(3)]
    for _, _, _, peer_recorder in sessions[:2]:
        peer_recorder.session_closed = fails  # type: ignore[assignment, method-assign]
    wire.client.connection.close()
    with pytest.raises(FaultyError):
        wire.run()
    assert sessions[2][3].closed is not None
    assert wire.server.closed is not None
    assert all(peer.state is State.CLOSED for _, _, peer, _ in sessions)
    assert all(peer.streams == set() for _, _, peer, _ in sessions)


@pytest.mark.parametrize("what", ["session", "connection"])
def test_handler_may_end_everything_from_within(what: str) -> None:
    for method in ("session_established", "datagram_received", "stream_opened", "session_draining"):
        wire = Wire()

        class Ending(Recorder):
            pass

        def end(self: Recorder, one: object, *args: object, side: Side = wire.server) -> Recorder:
            if what == "session":
                side.sessions[0].close(6, "from within")
            else:
                side.connection.close()
            return self

        setattr(Ending, method, end)
        ending = Ending()
        wire.server.decide = lambda session, ending=ending: session.accept(ending)
        session, recorder = wire.session()
        if session.state is State.ESTABLISHED:
            session.send_datagram(b"x")
            stream = session.open_stream(recorder)
            stream.send(b"data", True)
            session.drain()
            wire.run()
        assert ending.closed is not None, method
        assert recorder.closed is not None, method
        assert ending.data == {} or method != "stream_opened"
        if what == "session":
            assert recorder.closed == SessionClosed(code=6, reason="from within")
            wire.server.assert_nothing_left()
            wire.client.assert_nothing_left()
        else:
            wire.server.assert_forgotten()


def test_context_is_the_handlers_own() -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    session.context = stream_context = object()
    stream = session.open_stream(recorder)
    stream.context = stream_context
    assert session.context is stream.context
    assert isinstance(Request("a", "/"), Request)
