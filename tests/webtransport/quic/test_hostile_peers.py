"""What a peer sends that the specification allows, or does not, and that would cost a lot."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicErrorCode, pull_quic_header

from pingpong.server.sessions.counters import MessageCounters
from pingpong.server.sessions.handlers import PingSession
from pingpong.webtransport.capsules import CapsuleType
from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.http3.frames import FrameType, encode_headers
from pingpong.webtransport.quic.config import EndpointConfig, Windows
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from pingpong.webtransport.quic.hardening import MAX_FRAMES
from pingpong.webtransport.quic.reassembly import (
    MAX_CRYPTO_BYTES,
    MAX_CRYPTO_PIECES,
    MAX_STREAM_PIECES,
)
from tests.webtransport.quic.packets import (
    Stranger,
    ack_frame,
    crypto_frame,
    numbers,
    packet,
    stream_frame,
)
from tests.webtransport.raw import CONNECT, Raw, stream_header
from tests.webtransport.wire import CLIENT, SERVER, Recorder, Wire, certificate, identity

PACKET = 1_150


class Attack:
    """A raw peer with an established session, in either role, beside a healthy connection."""

    def __init__(self, role: str = "client", **server: object) -> None:
        self.wire = wire = Wire(raw_client=role == "client", raw_server=role == "server", **server)  # type: ignore[arg-type]
        self.victim = wire.server if role == "client" else wire.client
        self.raw = wire.raw
        _, self.recorder = wire.raw_session() if role == "client" else wire.raw_accepted()

    def send(self, payload: bytes, number: int | None = None) -> None:
        data = packet(self.raw.quic._quic, payload, number)
        if self.victim is self.wire.server:
            self.wire.server_end.receive(data, CLIENT, self.wire.now, int(self.wire.now * 1e9))
        else:
            self.wire.client_end.receive(data, SERVER, self.wire.now, int(self.wire.now * 1e9))

    @property
    def code(self) -> int | None:
        """What the connection was closed with."""
        self.wire.run()
        closed = self.victim.closed
        return None if closed is None else closed.code


def fill(frame: Callable[[int], bytes], size: int = PACKET) -> bytes:
    """As many frames as fit, from a number."""
    payload, n = b"", 0
    while len(payload) + len(frame(n)) <= size:
        payload += frame(n)
        n += 1
    return payload


both_roles = pytest.mark.parametrize("role", ["client", "server"])


# Reassembly.


def closed_with(wire: Wire, stranger: Stranger) -> int | None:
    """The code of the CONNECTION_CLOSE in the Initial packets that a stranger gets."""
    keys = Stranger().keys
    keys.setup_initial(cid=stranger.destination, is_client=True, version=1)
    for _, packets in wire.server_end.transmit(wire.now):
        for data in packets:
            buffer = Buffer(data=data)
            header = pull_quic_header(buffer)
            _, plain, _ = keys.decrypt_packet(data[: header.packet_length], buffer.tell(), 0)
            at = plain.find(b"\x1c")
            if at >= 0:
                return Buffer(data=plain[at + 1 :]).pull_uint_var()
    return None


@pytest.mark.parametrize(
    "offsets",
    [
        [MAX_CRYPTO_BYTES],
        [524_000],
        [1 + 2 * n for n in range(MAX_CRYPTO_PIECES + 1)],
    ],
)
def test_a_handshake_in_pieces_is_bounded(offsets: list[int]) -> None:
    wire = Wire(connect=False)
    stranger = Stranger()
    payload = b"".join(crypto_frame(offset, b"x") for offset in offsets)
    wire.server_end.receive(stranger.initial(payload), CLIENT, wire.now, int(wire.now * 1e9))
    assert closed_with(wire, stranger) == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED


def test_a_handshake_that_never_completes_its_message_is_bounded() -> None:
    wire = Wire(connect=False)
    stranger = Stranger()
    # A ClientHello of 16 MB, in order.
    data = b"\x01\xff\xff\xff" + bytes(MAX_CRYPTO_BYTES)
    codes = []
    for at in range(0, len(data), 1_000):
        frame = crypto_frame(at, data[at : at + 1_000])
        wire.server_end.receive(stranger.initial(frame), CLIENT, wire.now, int(wire.now * 1e9))
        codes.append(closed_with(wire, stranger))
    assert codes[: MAX_CRYPTO_BYTES // 1_000 - 1] == [None] * (MAX_CRYPTO_BYTES // 1_000 - 1)
    assert QuicErrorCode.CRYPTO_BUFFER_EXCEEDED in codes


@both_roles
def test_crypto_after_the_handshake_is_bounded(role: str) -> None:
    attack = Attack(role)
    attack.send(crypto_frame(524_000, b"x"))
    assert attack.code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED


@both_roles
def test_gaps_in_a_stream_are_bounded(role: str) -> None:
    attack = Attack(role)
    stream_id = attack.raw.open(stream_header(0, uni=True), uni=True)
    attack.wire.run()
    for at in range(100, 4 * MAX_STREAM_PIECES, 200):
        attack.send(b"".join(stream_frame(stream_id, at + n, b"x") for n in range(0, 200, 2)))
    assert attack.code == ErrorCode.H3_EXCESSIVE_LOAD


def test_a_stream_with_all_its_gaps_filled_arrives() -> None:
    attack = Attack()
    header = stream_header(0, uni=True)
    stream_id = attack.raw.open(header, uni=True)
    attack.wire.run()
    text = bytes(n % 251 for n in range(400))
    for order in (range(1, 400, 2), range(0, 400, 2)):
        payload = b"".join(stream_frame(stream_id, len(header) + n, text[n : n + 1]) for n in order)
        attack.send(payload)
    assert attack.code is None
    assert attack.recorder.data[stream_id] == text


def test_a_skipped_stream_can_still_be_used_once() -> None:
    attack = Attack()
    raw, wire = attack.raw, attack.wire
    high = 4 * 20 + 2
    attack.send(stream_frame(high, 0, stream_header(0, uni=True) + b"high"))
    low = 4 * 10 + 2
    wire.run()
    assert not wire.server.engine.is_receive_closed(low)
    attack.send(numbers(0x0F, low, 0, 6) + stream_header(0, uni=True) + b"low")
    assert attack.code is None
    assert attack.recorder.data == {high: b"high", low: b"low"}
    assert low in attack.recorder.ended
    wire.run()
    # It is over: more of it means nothing, and no stream comes of it.
    attack.send(stream_frame(low, 0, b"again"))
    assert attack.code is None
    assert len(attack.recorder.opened) == 2
    assert wire.server.engine.is_receive_closed(low)
    assert raw.closed is None


# Acknowledgements.


@both_roles
@pytest.mark.parametrize("ahead", [0, 1_000_000])
def test_what_was_not_sent_cannot_be_acknowledged(role: str, ahead: int) -> None:
    attack = Attack(role)
    next_number = attack.victim.engine._quic._packet_number
    attack.send(ack_frame(next_number - 1))
    assert attack.code is None
    next_number = attack.victim.engine._quic._packet_number
    attack.send(ack_frame(next_number + ahead))
    assert attack.code == QuicErrorCode.PROTOCOL_VIOLATION
    ends = (attack.wire.server_end, attack.wire.client_end)
    assert sum(end.counters.protocol_errors for end in ends) == 1


def test_who_acknowledges_blindly_is_found_out() -> None:
    attack = Attack()
    session = attack.wire.server.sessions[-1]
    wire = attack.wire
    wire.lose = lambda data, to_server: not to_server
    for _ in range(3_000):
        session.send_datagram(b"x")
        wire.server_end.transmit(wire.now)
        number = wire.server.engine._quic._packet_number - 1
        attack.send(ack_frame(number, min(number, 20)))
        wire.now += 0.0001
        if wire.server.closed is not None:
            break
    assert attack.code == QuicErrorCode.PROTOCOL_VIOLATION
    assert number < 2_100


def test_a_peer_that_acknowledges_what_came_is_not_suspected() -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    random = [0]

    def some(data: bytes, to_server: bool) -> bool:
        random[0] += 1
        return random[0] % 10 == 0

    wire.lose = some
    for _ in range(3_000):
        session.send_datagram(b"x")
        wire.step()
    assert wire.server.closed is None
    assert wire.client.closed is None
    assert 2_500 < len(peer.datagrams) < 3_000


def grown(attack: Attack, packets: int) -> int:
    """Bytes by which memory grows while PINGs are acknowledged."""
    wire = attack.wire
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(packets):
        attack.send(b"\x01")
        wire.now += 0.1
        wire.server_end.handle_timers(wire.now)
        wire.server_end.transmit(wire.now)
    return tracemalloc.get_traced_memory()[0] - before


def test_who_acknowledges_nothing_makes_nothing_grow() -> None:
    attack = Attack()
    tracemalloc.start()
    try:
        grown(attack, 400)
        assert grown(attack, 1_000) < 64 << 10
    finally:
        tracemalloc.stop()
    assert attack.victim.closed is None


def test_who_acknowledges_late_is_not_waited_for_the_longer() -> None:
    attack = Attack()
    wire, engine = attack.wire, attack.victim.engine
    wire.lose = lambda data, to_server: True
    attack.victim.sessions[-1].send_datagram(b"x")
    first = engine._quic._packet_number
    for _ in range(100):
        wire.now += 1
        wire.server_end.handle_timers(wire.now)
        wire.server_end.transmit(wire.now)
        attack.send(b"\x01")
    # One of them is a probe that left long ago.
    for number in range(first, engine._quic._packet_number):
        attack.send(ack_frame(number))
    assert attack.victim.closed is None
    assert engine.idle_timeout < 60


def test_ranges_below_zero_are_malformed() -> None:
    attack = Attack()
    attack.send(ack_frame(2, 0, (5, 0)))
    assert attack.code == QuicErrorCode.FRAME_ENCODING_ERROR


# Frames.


@pytest.mark.parametrize(
    "frame",
    [
        b"\x14\x01",  # DATA_BLOCKED
        numbers(0x05, 0, 0),  # STOP_SENDING
        ack_frame(0),
        numbers(0x16, 4),  # STREAMS_BLOCKED
        b"\x1a" + bytes(8),  # PATH_CHALLENGE
    ],
)
def test_frames_of_a_packet_are_bounded_by_what_they_cost(frame: bytes) -> None:
    attack = Attack()
    attack.send(fill(lambda n: frame))
    assert attack.code == ErrorCode.H3_EXCESSIVE_LOAD


@pytest.mark.parametrize(
    "payload",
    [
        b"\x01" * PACKET,
        bytes(PACKET),
        b"".join(numbers(0x04, 4 * n + 42, 0x100, 0) for n in range(110)),  # RESET_STREAM
        b"".join(numbers(0x31, 2) + b"\0x" for n in range(MAX_FRAMES)),  # DATAGRAM
    ],
)
def test_what_an_honest_packet_can_have_is_taken(payload: bytes) -> None:
    attack = Attack()
    attack.send(payload)
    assert attack.code is None


def test_connection_ids_are_issued_once_a_packet() -> None:
    attack = Attack()
    issued = attack.wire.server.engine._quic._host_cid_seq
    # The second half of them has never been seen by the client.
    retire = b"".join(numbers(0x19, n) for n in range(1, 2 * issued - 2))
    attack.send(retire)
    assert attack.code == QuicErrorCode.PROTOCOL_VIOLATION


@both_roles
@pytest.mark.parametrize("payload", [b"\x40", b"\x3f", b"\x06\x00\x41", b"\x0f\x02"])
def test_a_malformed_frame_ends_the_connection(role: str, payload: bytes) -> None:
    attack = Attack(role)
    data = packet(attack.raw.quic._quic, bytes(8) + payload)
    end = attack.wire.server_end if role == "client" else attack.wire.client_end
    end.receive(
        data, CLIENT if role == "client" else SERVER, attack.wire.now, int(attack.wire.now * 1e9)
    )
    assert attack.code == QuicErrorCode.FRAME_ENCODING_ERROR


# What is kept, of all connections together.


def kept(wire: Wire, raws: list[Raw], size: int) -> None:
    for raw in raws:
        raw.open(stream_header(0, uni=True) + bytes(size), uni=True)
    wire.run()


def test_the_connection_that_keeps_most_makes_room() -> None:
    windows = Windows(connection=1 << 20, stream=256 << 10)
    wire = Wire(raw_client=True, windows=windows, max_buffered=300 << 10)
    first = wire.raw
    raws = [first]
    recorders: list[Recorder] = [wire.raw_session()[1]]
    for _ in range(2):
        one = Raw()
        wire.client_end.connect(SERVER, identity(), one.attach, wire.now)
        wire.run()
        one.send_settings()
        one.request()
        wire.run()
        raws.append(one)
        handler = wire.server.sessions[-1].handler
        assert isinstance(handler, Recorder)
        recorders.append(handler)
    for recorder in recorders:
        recorder.holding = True
    kept(wire, raws, 60 << 10)
    assert [raw.closed for raw in raws] == [None] * 3
    kept(wire, raws[1:2], 200 << 10)
    assert raws[1].closed is not None
    assert raws[1].closed.code == ErrorCode.H3_EXCESSIVE_LOAD
    assert (raws[0].closed, raws[2].closed) == (None, None)
    assert wire.server_end.counters.buffers_exceeded == 1
    # The others go on.
    kept(wire, raws[:1], 60 << 10)
    assert raws[0].closed is None


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(numbers(FrameType.HEADERS, 16 << 10) + bytes(16_000), id="field section"),
        pytest.param(
            encode_headers(CONNECT)
            + numbers(FrameType.DATA, 1 << 20, CapsuleType.DATAGRAM, 60_000)
            + bytes(59_000),
            id="capsule",
        ),
    ],
)
def test_what_has_begun_of_requests_counts(begun: bytes) -> None:
    wire = Wire(raw_client=True, max_buffered=100 << 10)
    wire.raw.send_settings()
    for _ in range(8):
        wire.raw.open(begun)
        wire.run()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == ErrorCode.H3_EXCESSIVE_LOAD
    assert wire.server_end.counters.buffers_exceeded == 1


def test_what_was_read_does_not_count() -> None:
    wire = Wire(raw_client=True, max_buffered=300 << 10)
    wire.raw_session()
    for _ in range(20):
        kept(wire, [wire.raw], 60 << 10)
    assert wire.raw.closed is None
    assert wire.server_end.counters.buffers_exceeded == 0


@pytest.mark.parametrize("is_v1", [True, False])
def test_parts_of_messages_count_as_kept(is_v1: bool) -> None:
    wire = Wire(raw_client=True)
    wire.server.decide = lambda session: session.accept(
        PingSession(session, MessageCounters(), 64 << 10, is_v1=is_v1)
    )
    wire.raw.send_settings()
    wire.raw.request()
    wire.run()
    connection = wire.server.connection
    message = b"ping" + bytes(50_000)
    streams = [wire.raw.open(stream_header(0, uni=True), uni=True) for _ in range(10)]
    for stream_id in streams:
        data = numbers(len(message)) * is_v1 + message
        wire.raw.send(stream_id, data[:40_000])
    wire.run()
    assert 400_000 <= connection.buffered_bytes() < 401_000
    for stream_id in streams[:9]:
        wire.raw.send(stream_id, data[40_000:], end=True)
    wire.raw.reset(streams[9])
    wire.run()
    assert connection.buffered_bytes() == 0


# Others.


class Clock:
    """Time that passes by itself, so much for each look."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def timed_wire() -> Wire:
    """A server to which each packet takes a fifth of a connection's share of time."""
    wire = Wire(raw_client=True)
    made = certificate()
    wire.server_end = AioquicEndpoint(
        EndpointConfig(certificate=made),
        lambda: None,
        wire.server.attach,
        clock=Clock(0.0004),
    )
    return wire


def test_a_connection_that_sends_much_waits_and_another_does_not() -> None:
    wire = timed_wire()
    busy, calm = Raw(), Raw()
    for raw in (busy, calm):
        wire.client_end.connect(SERVER, identity(), raw.attach, wire.now)
        wire.run()
        while wire.server_end.waiting_packets:
            wire.server_end.process_waiting()
            wire.run()
    flood, answer = b"\x01" * 20, wire.server.connections[-1]
    for n in range(2_000):
        wire.server_end.receive(packet(busy.quic._quic, flood), CLIENT, wire.now, n)
    assert wire.server_end.waiting_packets == 512
    assert wire.server_end.counters.throttled_packets == 2_000 - 512 - 5
    wire.server_end.receive(packet(calm.quic._quic, b"\x01"), CLIENT, wire.now, 77)
    assert answer.quic.arrival == 77
    moments = 0
    while wire.server_end.waiting_packets:
        wire.server_end.process_waiting()
        wire.server_end.transmit(wire.now)
        moments += 1
    assert moments > 100
    assert wire.server.connections[-2].quic.arrival == 516


def test_large_packets_do_not_wait() -> None:
    wire = timed_wire()
    busy = Raw()
    wire.client_end.connect(SERVER, identity(), busy.attach, wire.now)
    wire.run()
    while wire.server_end.waiting_packets:
        wire.server_end.process_waiting()
        wire.run()
    large = packet(busy.quic._quic, b"\x01" * 60_000)
    for n in range(20):
        wire.server_end.receive(large, CLIENT, wire.now, n)
    waiting = [wire.server_end.waiting_packets]
    assert wire.server_end.counters.throttled_packets > 10
    # Small ones still do.
    wire.server_end.receive(packet(busy.quic._quic, b"\x01"), CLIENT, wire.now, 77)
    waiting.append(wire.server_end.waiting_packets)
    assert waiting == [0, 1]
