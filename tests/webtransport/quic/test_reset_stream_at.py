"""RESET_STREAM_AT (draft-ietf-quic-reliable-stream-reset), which aioquic lacks, in and out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport import varint
from pingpong.webtransport.quic.aioquic import HookedConnection
from pingpong.webtransport.quic.config import Windows
from pingpong.webtransport.quic.one_rtt import OneRttConnection
from pingpong.webtransport.quic.reset_stream_at import RESET_STREAM_AT
from pingpong.webtransport.session import Session
from tests.webtransport.raw import stream_header
from tests.webtransport.wire import Recorder, Wire

HEADER = stream_header(0, uni=True)
CODE = 0x52E4A40FA8DB
"""The application's error code 0."""


class Injector:
    """Puts a frame of a test's into the packets of a connection of aioquic's."""

    def __init__(self, quic: OneRttConnection) -> None:
        self.frames: list[bytes] = []
        write = quic._write_connection_limits
        has_control_frames = quic._has_control_frames

        def hooked(builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
            while self.frames:
                frame = self.frames.pop(0)
                kind = varint.decode(frame)
                assert kind is not None
                buffer = builder.start_frame(kind[0], capacity=len(frame))
                buffer.push_bytes(frame[kind[1] :])
            write(builder, space)

        quic._write_connection_limits = hooked  # type: ignore[method-assign]
        quic._has_control_frames = (  # type: ignore[method-assign]
            lambda path: bool(self.frames) or has_control_frames(path)
        )


def reset_at(stream_id: int, code: int, final_size: int, reliable_size: int) -> bytes:
    return b"".join(
        varint.encode(n) for n in (RESET_STREAM_AT, stream_id, code, final_size, reliable_size)
    )


def abused() -> tuple[Wire, Injector, Recorder]:
    """A session of a raw client that can send RESET_STREAM_AT as it likes."""
    wire = Wire(raw_client=True)
    injector = Injector(wire.raw.quic._quic)
    _, recorder = wire.raw_session()
    return wire, injector, recorder


def send(wire: Wire, injector: Injector, *frames: bytes) -> None:
    injector.frames += frames
    wire.raw.quic._request_transmit()
    wire.run()


# In.


def test_both_sides_offer_it() -> None:
    wire = Wire()
    assert wire.client.connection.quic.reset_stream_at
    assert wire.server.connection.quic.reset_stream_at


def test_frame_that_comes_with_all_data_resets_at_once() -> None:
    wire, injector, recorder = abused()
    stream_id = wire.raw.open(HEADER + b"data", uni=True)
    wire.run()
    send(wire, injector, reset_at(stream_id, CODE + 7, 100, 4))
    assert recorder.data == {stream_id: b"data"}
    assert recorder.resets == {stream_id: 7}
    # What comes after is not wanted any more.
    wire.raw.send(stream_id, b"more")
    wire.run()
    assert recorder.data == {stream_id: b"data"}
    assert wire.raw.closed is None


def test_frame_that_comes_before_the_data_waits_for_it() -> None:
    wire, injector, recorder = abused()
    stream_id = wire.raw.quic._quic.get_next_available_stream_id(True)
    send(wire, injector, reset_at(stream_id, CODE + 7, 50, 5))
    assert recorder.opened == []
    assert wire.server.engine._quic._pending_resets == {stream_id: (CODE + 7, 50, 5)}
    wire.raw.open(HEADER + b"a", uni=True)
    wire.run()
    assert recorder.data == {stream_id: b"a"}
    assert recorder.resets == {}
    wire.raw.send(stream_id, b"bc")
    wire.run()
    assert recorder.data == {stream_id: b"abc"}
    assert recorder.resets == {stream_id: 7}
    assert wire.server.engine._quic._pending_resets == {}


def test_frame_in_the_packet_with_the_header_tells_whose_stream_it_was() -> None:
    wire, injector, recorder = abused()
    stream_id = wire.raw.open(HEADER, uni=True)
    # Frames of the connection come first in a packet: the reset before the header.
    send(wire, injector, reset_at(stream_id, CODE, 3, 3))
    assert recorder.resets == {stream_id: 0}
    assert recorder.opened[0].id == stream_id


def test_lower_reliable_size_takes_effect_and_a_higher_one_does_not() -> None:
    wire, injector, recorder = abused()
    stream_id = wire.raw.open(HEADER + b"12345", uni=True)
    wire.run()
    send(wire, injector, reset_at(stream_id, CODE, 100, 50))
    send(wire, injector, reset_at(stream_id, CODE, 100, 90))
    assert recorder.resets == {}
    send(wire, injector, reset_at(stream_id, CODE, 100, 8))
    assert recorder.resets == {stream_id: 0}


def test_plain_reset_after_it_needs_no_data() -> None:
    wire, injector, recorder = abused()
    stream_id = wire.raw.open(HEADER + b"x", uni=True)
    wire.run()
    send(wire, injector, reset_at(stream_id, CODE, 9, 9))
    assert recorder.resets == {}
    # RESET_STREAM has the same fields but the last.
    plain = b"\x04" + b"".join(varint.encode(n) for n in (stream_id, CODE, 9))
    send(wire, injector, plain)
    assert recorder.resets == {stream_id: 0}
    assert wire.server.engine._quic._pending_resets == {}


def test_all_data_and_fin_after_it_are_the_end_without_a_reset() -> None:
    """Allowed to a receiver that has got everything all the same (section 5)."""
    wire, injector, recorder = abused()
    stream_id = wire.raw.open(HEADER + b"x", uni=True)
    wire.run()
    send(wire, injector, reset_at(stream_id, CODE, 6, 6))
    wire.raw.send(stream_id, b"yz", end=True)
    wire.run()
    assert recorder.data == {stream_id: b"xyz"}
    assert (recorder.ended, recorder.resets) == ({stream_id}, {})
    assert wire.server.engine._quic._pending_resets == {}


def test_frame_for_a_finished_stream_is_ignored() -> None:
    wire, injector, recorder = abused()
    stream_id = wire.raw.open(HEADER + b"x", uni=True, end=True)
    wire.run(1)
    send(wire, injector, reset_at(stream_id, CODE, 4, 4), reset_at(stream_id, CODE, 4, 0))
    assert recorder.resets == {}
    assert wire.raw.closed is None
    wire.server.assert_nothing_left(0)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([(CODE, 3, 4)], QuicErrorCode.FRAME_ENCODING_ERROR, id="reliable > final"),
        pytest.param([(CODE, 1, 0)], QuicErrorCode.FINAL_SIZE_ERROR, id="below what came"),
        pytest.param([(CODE, 1 << 40, 90)], QuicErrorCode.FLOW_CONTROL_ERROR, id="over the window"),
        pytest.param(
            [(CODE, 90, 80), (CODE, 91, 80)], QuicErrorCode.FINAL_SIZE_ERROR, id="other final size"
        ),
        pytest.param(
            [(CODE, 90, 80), (CODE + 1, 90, 70)], QuicErrorCode.STREAM_STATE_ERROR, id="other code"
        ),
    ],
)
def test_malformed_frame_is_a_connection_error(
    frames: list[tuple[int, int, int]], code: int
) -> None:
    wire, injector, recorder = abused()
    stream_id = wire.raw.open(HEADER + b"abc", uni=True)
    wire.run()
    send(wire, injector, *(reset_at(stream_id, *frame) for frame in frames))
    assert wire.raw.closed is not None
    assert (wire.raw.closed.code, wire.raw.closed.is_application) == (code, False)
    assert wire.raw.closed.by_peer
    assert recorder.closed is not None
    assert not recorder.closed.by_peer


def test_data_beyond_the_final_size_is_a_connection_error() -> None:
    wire, injector, _ = abused()
    stream_id = wire.raw.open(HEADER + b"abc", uni=True)
    wire.run()
    send(wire, injector, reset_at(stream_id, CODE, 10, 9))
    wire.raw.send(stream_id, bytes(50))
    wire.run()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == QuicErrorCode.FINAL_SIZE_ERROR


@pytest.mark.parametrize("stream_id", [3, 401])
def test_frame_for_a_stream_that_is_not_the_peers_to_reset(stream_id: int) -> None:
    wire, injector, _ = abused()
    send(wire, injector, reset_at(stream_id, CODE, 4, 4))
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == QuicErrorCode.STREAM_STATE_ERROR


def test_truncated_frame_is_a_connection_error() -> None:
    wire, injector, _ = abused()
    injector.frames.append(reset_at(402, CODE, 100, 5)[:-1])
    wire.raw.quic._request_transmit()
    # Nothing may come behind it, or that would be its missing byte.
    wire.step()
    wire.run()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code in (
        QuicErrorCode.FRAME_ENCODING_ERROR,
        QuicErrorCode.STREAM_LIMIT_ERROR,
    )


def test_transport_parameter_with_a_value_is_an_error() -> None:
    wire = Wire(raw_client=True, connect=False)
    original = HookedConnection._serialize_transport_parameters

    def wrong(self: HookedConnection) -> bytes:
        return original(self) + (b"\x1d\x01\x00" if self._is_client else b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HookedConnection, "_serialize_transport_parameters", wrong)
        wire.connect()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == QuicErrorCode.TRANSPORT_PARAMETER_ERROR


# Out.


def losing(wire: Wire, count: int) -> None:
    """Lose the next packets to the server."""

    def lose(packet: bytes, to_server: bool) -> bool:
        nonlocal count
        count -= to_server
        return to_server and count >= 0

    wire.lose = lose


@pytest.mark.parametrize("lost", range(6))
@pytest.mark.parametrize("data", [b"", b"some data"])
@pytest.mark.parametrize("one_flight", [True, False])
def test_header_always_arrives_even_when_its_packet_is_lost(
    lost: int, data: bytes, one_flight: bool
) -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    losing(wire, lost)
    stream = session.open_stream(recorder, unidirectional=True)
    if data:
        stream.send(data)
    if not one_flight:
        wire.step()
    stream.reset(9)
    wire.run(3)
    assert peer.resets == {stream.id: 9}
    assert data.startswith(peer.data.get(stream.id, b""))
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)


def test_header_and_reset_can_be_many_packets_apart() -> None:
    """The header's packet is acknowledged long after that of the reset."""
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    held: list[bytes] = []

    def hold(packets: list[bytes], to_server: bool) -> list[bytes]:
        if to_server and not held:
            held.extend(packets)
            return []
        return packets

    wire.network = hold
    stream = session.open_stream(recorder, unidirectional=True)
    wire.step()
    stream.reset(1)
    wire.step()
    assert peer.opened == []
    for packet in held:
        wire.server_end.receive(packet, wire.client_address, wire.now, 0)
    wire.run(1)
    assert peer.resets == {stream.id: 1}
    wire.client.assert_nothing_left(session.id)


def test_data_that_was_not_sent_yet_never_is() -> None:
    wire = Wire(windows=Windows(stream=5_000))
    session, recorder, _, peer = wire.pair()
    peer.holding = True
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(bytes(100_000))
    wire.run()
    sent = len(peer.data[stream.id])
    assert stream.buffered > 90_000
    stream.reset(2)
    assert stream.buffered == 0
    wire.run()
    assert len(peer.data[stream.id]) == sent
    assert peer.resets == {stream.id: 2}
    assert len(wire.client.engine._quic._streams.get(stream.id, QuicStream()).sender._buffer) == 0
    wire.client.assert_nothing_left(session.id)


def test_what_was_lost_of_the_rest_is_not_sent_again() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder, unidirectional=True)
    wire.run()
    wire.lose = lambda packet, to_server: to_server
    stream.send(bytes(8_000))
    wire.step()
    stream.reset(3)
    wire.step()
    wire.lose = lambda packet, to_server: False
    wire.run(3)
    assert peer.resets == {stream.id: 3}
    # What a probe brought again at most, before the loss was noticed.
    assert len(peer.data.get(stream.id, b"")) < 3_000
    wire.client.assert_nothing_left(session.id)


def test_reset_after_everything_was_acknowledged_does_nothing() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"all", True)
    wire.run()
    wire.client.engine.reset_stream(stream.id, CODE, 3)
    wire.run()
    assert peer.resets == {}
    assert peer.ended == {stream.id}


def test_abandoned_stream_whose_fin_is_acknowledged_first_leaves_nothing() -> None:
    wire = Wire()
    session, recorder, _, _ = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"question", True)
    acknowledgement: list[bytes] = []

    def hold(packets: list[bytes], to_server: bool) -> list[bytes]:
        if not to_server:
            acknowledgement.extend(packets)
            return []
        return packets

    wire.network = hold
    wire.run(0.003)
    assert acknowledgement
    session.close()
    for packet in acknowledgement:
        wire.client_end.receive(packet, ("192.0.2.2", 4433), wire.now, 0)
    wire.network = lambda packets, to_server: packets
    wire.run(2)
    wire.client.assert_nothing_left()
    wire.server.assert_nothing_left()


def test_header_that_waits_for_credit_is_sent_before_the_reset() -> None:
    wire = Wire(windows=Windows(connection=4_000))
    session, recorder, _, peer = wire.pair()
    peer.holding = True
    filling = session.open_stream(recorder, unidirectional=True)
    filling.send(bytes(10_000))
    wire.run()
    stream = session.open_stream(recorder, unidirectional=True)
    stream.reset(4)
    wire.run()
    assert wire.client.engine._quic._late_resets != []
    assert wire.server.closed is None
    peer.holding = False
    peer.opened[0].release(1 << 20)
    wire.run(1)
    assert peer.resets == {stream.id: 4}
    assert len(peer.data[filling.id]) == 10_000
    filling.send(b"", True)
    wire.run(1)
    wire.client.assert_nothing_left(session.id)


@pytest.fixture
def plain_peer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Wire]:
    """Makes a wire whose raw server does not offer RESET_STREAM_AT."""
    original = HookedConnection._serialize_transport_parameters

    def without(self: HookedConnection) -> bytes:
        return (original if self._is_client else QuicConnection._serialize_transport_parameters)(
            self
        )

    monkeypatch.setattr(HookedConnection, "_serialize_transport_parameters", without)
    return lambda: Wire(raw_server=True)


def test_peer_without_it_gets_a_plain_reset(plain_peer: Callable[[], Wire]) -> None:
    wire = plain_peer()
    session_id, recorder = wire.raw_accepted()
    assert not wire.client.connection.quic.reset_stream_at
    session = wire.client.connection.sessions[0]
    assert session.id == session_id
    stream = session.open_stream(recorder, unidirectional=True)
    stream.send(b"x")
    wire.run()
    seen: list[object] = []
    quic = wire.raw.quic._quic
    quic._handle_reset_stream_at_frame = lambda *args: seen.append(args)  # type: ignore[method-assign]
    stream.reset(5)
    wire.run()
    assert seen == []
    assert wire.raw.resets == {stream.id: CODE + 5}
    assert wire.raw.final_sizes == {stream.id: len(HEADER) + 1}
    wire.client.assert_nothing_left(session.id)


def test_plain_reset_that_takes_the_header_opens_nothing() -> None:
    wire = Wire(raw_client=True)
    _, recorder = wire.raw_session()
    wire.lose = lambda packet, to_server: to_server
    bidi, uni = wire.raw.open_in(0, b"x"), wire.raw.open_in(0, b"x", uni=True)
    half = wire.raw.open(HEADER[:1], uni=True)
    wire.step()
    wire.lose = lambda packet, to_server: False
    for stream_id in (bidi, uni):
        wire.raw.reset(stream_id)
    wire.run(1)
    assert half in wire.server.connection._streams
    wire.raw.reset(half)
    wire.run(1)
    assert recorder.opened == []
    # Our half of it has to end as well.
    assert wire.raw.resets.keys() == {bidi}
    wire.server.assert_nothing_left(0)


@pytest.fixture(scope="module")
def settled() -> tuple[Wire, Session, Recorder, Recorder]:
    """One for all examples: a handshake for each would cost too much."""
    wire = Wire(idle_timeout=1e6)
    session, recorder, _, peer = wire.pair()
    return wire, session, recorder, peer


@given(
    data=st.binary(max_size=3_000),
    losses=st.lists(st.booleans(), max_size=12),
    pauses=st.lists(st.sampled_from(["step", "run", "none"]), min_size=2, max_size=2),
    stop=st.booleans(),
)
def test_reset_with_any_losses_is_reported_once_with_the_right_code(
    settled: tuple[Wire, Session, Recorder, Recorder],
    data: bytes,
    losses: list[bool],
    pauses: list[str],
    stop: bool,
) -> None:
    wire, session, recorder, peer = settled
    fate = iter(losses)
    wire.lose = lambda packet, to_server: next(fate, False)
    stream = session.open_stream(recorder, unidirectional=not stop)
    for pause in pauses:
        if data:
            stream.send(data)
        if pause == "step":
            wire.step()
        elif pause == "run":
            wire.run(0.05)
    if stop:
        stream.stop(1)
    stream.reset(77)
    # Each loss doubles the time to the next attempt.
    wire.run(10_000)
    assert peer.resets[stream.id] == 77
    assert (data * 2).startswith(peer.data.get(stream.id, b""))
    for opened in list(peer.opened):
        opened.reset()
        peer.opened.remove(opened)
    wire.run(1)
    wire.client.assert_nothing_left(session.id)
    wire.server.assert_nothing_left(session.id)
