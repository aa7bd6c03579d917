"""Packets and connections: routing, admission, addresses, timers, the end."""

from __future__ import annotations

import os
from random import Random

import pytest
from aioquic.quic.packet import QuicErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong.webtransport.errors import ErrorCode
from pingpong.webtransport.session import Session
from tests.webtransport.raw import Raw, first_packet
from tests.webtransport.wire import CLIENT, SERVER, Wire, hand_over, identity

OTHER = ("198.51.100.9", 7)


# Routing.


def test_packets_find_their_connection_by_its_ids() -> None:
    wire = Wire()
    one, other = Raw(), Raw()
    wire.client_end.connect(SERVER, identity(), one.attach, wire.now)
    wire.client_end.connect(SERVER, identity(), other.attach, wire.now)
    wire.run()
    assert len(wire.server_end) == len(wire.client_end) == 3
    assert wire.server_end.unfinished_handshakes == 0
    for raw in (one, other):
        raw.send_settings()
    wire.run()
    first, second, third = wire.server.connections
    assert [connection._remote_settings is not None for connection in (first, second, third)] == [
        True
    ] * 3
    one.quic.close(0x100)
    wire.run()
    assert (first.closed, third.closed) == (None, None)
    assert second.closed is not None
    assert wire.server_end.counters.connections == 3
    assert wire.server_end.counters.handshakes == 3


def test_all_ids_that_the_peer_was_given_lead_to_the_connection() -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    for number in range(10):
        wire.client.engine._quic.change_connection_id()
        session.send_datagram(b"%d" % number)
        wire.run()
    assert len(peer.datagrams) == 10
    ids = wire.server.engine.connection_ids
    assert len(ids) == 8
    assert set(wire.server_end._routes) == {*ids, wire.server.engine.first_route}
    # A retired one is nobody's.
    assert wire.server_end.counters.dropped_packets == 0


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x40",
        b"\x40" + bytes(20),
        b"\x00" + bytes(30),
        b"\x80",
        b"\xc0\x00\x00\x00\x01",
        b"\xc0\x00\x00\x00\x01\x08" + bytes(3),
        b"\xff" * 1200,
        b"\xe0\x00\x00\x00\x01\x08" + os.urandom(8) + b"\x00\x40\x50" + bytes(1200),
        b"\xc0\x00\x00\x00\x01\x15" + bytes(1200),
    ],
)
def test_garbage_is_dropped_and_counted(packet: bytes) -> None:
    wire = Wire()
    for end in (wire.server_end, wire.client_end):
        before = end.counters.dropped_packets
        assert hand_over(end, packet, now=wire.now) == []
        assert end.counters.dropped_packets - before == bool(packet)
        assert len(end) == 1


@given(packet=st.binary(max_size=100), fill=st.sampled_from([0, 1200]))
def test_any_packet_is_answered_or_dropped(packet: bytes, fill: int) -> None:
    wire = Wire(connect=False)
    hand_over(wire.server_end, packet + bytes(fill))
    assert len(wire.server_end) <= 1


def test_first_packet_that_is_too_short_or_addressed_too_shortly_is_dropped() -> None:
    wire = Wire(connect=False)
    packet = first_packet()
    assert hand_over(wire.server_end, packet[:1199]) == []
    # Seven bytes of connection id, where eight are the least (RFC 9000, section 7.2).
    short = packet[:5] + b"\x07" + packet[7:14] + packet[14:] + b"\0"
    assert len(short) == 1200
    assert hand_over(wire.server_end, short) == []
    assert hand_over(wire.server_end, packet[:5] + b"\x00" + packet[14:] + bytes(8)) == []
    assert len(wire.server_end) == 0
    assert wire.server_end._routes == {}
    assert wire.server_end.counters.dropped_packets == 3


def test_first_packet_twice_is_one_connection() -> None:
    wire = Wire(connect=False)
    packet = first_packet()
    assert hand_over(wire.server_end, packet)
    hand_over(wire.server_end, packet)
    assert len(wire.server_end) == wire.server_end.counters.connections == 1


def test_endpoint_without_a_certificate_accepts_no_connection() -> None:
    wire = Wire(connect=False)
    assert hand_over(wire.client_end, first_packet()) == []
    assert wire.client_end.counters.dropped_packets == 1


# Addresses.


def test_client_that_changes_its_address_keeps_its_connection() -> None:
    wire = Wire()
    session, recorder, peer_session, peer = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"before ")
    wire.run()
    assert wire.server.engine.address == CLIENT
    wire.client_address = OTHER
    session.send_datagram(b"from elsewhere")
    stream.send(b"and after")
    wire.run(1)
    assert wire.server.engine.address == OTHER
    assert peer.datagrams == [b"from elsewhere"]
    assert peer.data == {stream.id: b"before and after"}
    peer_session.send_datagram(b"answer")
    to = {address for address, _ in wire.server_end.transmit(wire.now)}
    assert to == {OTHER}
    assert wire.server_end.counters.connections == 1


def test_answers_are_grouped_by_address() -> None:
    wire = Wire()
    other = Raw()
    wire.client_end.connect(SERVER, identity(), other.attach, wire.now)
    wire.run()
    first, second = (connection.quic for connection in wire.server.connections)
    for engine in (first, second):
        stream_id = engine.open_stream(b"x", True)
        engine.send_stream(stream_id, bytes(5_000))
    groups = wire.server_end.transmit(wire.now)
    assert len(groups) == 2
    assert all(address == CLIENT for address, _ in groups)
    assert all(len(packets) > 2 for _, packets in groups)


# Timers.


def test_idle_timeout_is_reported_as_one() -> None:
    wire = Wire(idle_timeout=5.0)
    begun = wire.now
    wire.lose = lambda packet, to_server: True
    while wire.server.closed is None:
        wire.run(0.1)
    assert 4.9 < wire.now - begun < 5.3
    for side in (wire.client, wire.server):
        assert side.closed is not None
        assert side.closed.timed_out
        assert not side.closed.by_peer
    assert len(wire.server_end) == len(wire.client_end) == 0


def test_timeout_is_not_what_a_peer_says() -> None:
    wire = Wire(raw_client=True)
    wire.raw.quic._quic.close(QuicErrorCode.INTERNAL_ERROR, 0, "Idle timeout")
    wire.raw.quic._request_transmit()
    wire.run(0.01)
    assert wire.server.closed is not None
    assert wire.server.closed.by_peer
    assert not wire.server.closed.timed_out


def test_peers_close_is_reported_at_once_and_absorbed_for_a_while() -> None:
    wire = Wire()
    wire.client.connection.close(ErrorCode.H3_NO_ERROR, "bye")
    wire.step()
    assert wire.server.closed is not None
    assert wire.server.closed.by_peer
    assert wire.server.closed.is_application
    assert len(wire.server_end) == 1
    wire.run(3)
    assert len(wire.server_end) == len(wire.client_end) == 0
    assert wire.server_end._routes == wire.client_end._routes == {}


def test_lost_close_is_said_again_when_the_peer_goes_on() -> None:
    wire = Wire()
    session, _, peer_session, _ = wire.pair()
    wire.lose = lambda packet, to_server: True
    wire.client.connection.close(ErrorCode.H3_NO_ERROR, "bye")
    wire.step()
    wire.lose = lambda packet, to_server: False
    peer_session.send_datagram(b"are you there")
    wire.run(0.01)
    assert wire.server.closed is not None
    assert wire.server.closed.reason == "bye"
    assert session is not None


def test_close_is_said_again_ever_more_rarely() -> None:
    wire = Wire()
    _, _, peer_session, _ = wire.pair()
    wire.lose = lambda packet, to_server: True
    wire.client.connection.close()
    wire.step()
    answers = []
    for _ in range(20):
        wire.now += 0.001
        peer_session.send_datagram(b"x")
        ((_, packets),) = wire.server_end.transmit(wire.now)
        for packet in packets:
            answers.append(len(hand_over(wire.client_end, packet, SERVER, wire.now)))
    assert [number for number, count in enumerate(answers, 1) if count] == [1, 2, 4, 8, 16]


def echo(session: Session, data: bytes, arrival: int) -> None:
    session.send_datagram(data)


def test_pings_fire_few_timers_and_take_two_packets_each() -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    wire.run(1)
    peer.datagram_received = echo  # type: ignore[method-assign]
    wire.packets = fired = 0
    wire.latency = 0.00005
    for _ in range(500):
        session.send_datagram(b"ping")
        wire.step()
        wire.step()
        for end in (wire.client_end, wire.server_end):
            timer = end.next_timer()
            if timer is not None and timer <= wire.now:
                fired += 1
                end.handle_timers(wire.now)
    # A ping and its pong, each with the acknowledgement of what came before.
    assert 1000 <= wire.packets <= 1010
    # At most one in a millisecond, that finds nothing due, however many pings there are in it.
    assert fired <= 60


def test_lonely_ping_takes_three_packets() -> None:
    wire = Wire()
    session, _, _, peer = wire.pair()
    wire.run(1)
    peer.datagram_received = echo  # type: ignore[method-assign]
    wire.packets = wire.timers_fired = 0
    for _ in range(20):
        session.send_datagram(b"ping")
        wire.run(1)
    # The client's acknowledgement of the pong is the third.
    assert wire.packets <= 20 * 3 + 4
    assert wire.timers_fired <= 20 * 4


def test_stream_answer_carries_the_acknowledgement() -> None:
    wire = Wire()
    session, recorder, _, peer = wire.pair()
    stream = session.open_stream(recorder)
    stream.send(b"ping")
    wire.run(1)
    wire.packets = 0
    for number in range(50):
        stream.send(b"ping")
        wire.step()
        peer.opened[0].send(b"pong")
        wire.step()
        assert len(recorder.data[stream.id]) == 4 * (number + 1)
    assert wire.packets == 100


def test_timer_that_is_early_acknowledges_all_the_same() -> None:
    wire = Wire()
    session, _, _, _ = wire.pair()
    wire.run(1)
    session.send_datagram(b"x")
    wire.step()
    assert wire.server_end.transmit(wire.now) == []
    due = wire.server_end.next_timer()
    assert due is not None
    assert due == pytest.approx(wire.now + 0.001)
    wire.server_end.handle_timers(due - 0.0004)
    groups = wire.server_end.transmit(due - 0.0004)
    assert len(groups) == 1


def test_wake_is_called_for_data_queued_outside_of_receive() -> None:
    wire = Wire()
    session, _, peer_session, _ = wire.pair()
    wire.run(1)
    before = wire.woken
    session.send_datagram(b"1")
    session.send_datagram(b"2")
    assert wire.woken == before + 1
    wire.client_end.transmit(wire.now)
    session.send_datagram(b"3")
    assert wire.woken == before + 2
    # What comes of a packet or a timer is transmitted by whoever handed it over.
    ((_, packets),) = wire.client_end.transmit(wire.now)
    wire.server_end.receive(packets[0], CLIENT, wire.now, 0)
    peer_session.send_datagram(b"answer")
    assert wire.woken == before + 2


# Faults.


def test_fault_of_a_handler_stops_no_other_connection() -> None:
    wire = Wire()
    wire.pair()
    faulty = Raw()
    wire.client_end.connect(SERVER, identity(), faulty.attach, wire.now)
    wire.run()

    def fault(*args: object) -> None:
        raise RuntimeError

    good, bad = (connection.quic for connection in wire.server.connections)
    assert bad is not good
    raw_events = Raw()
    raw_events.stream_writable = fault  # type: ignore[assignment, method-assign]
    bad.events = raw_events  # type: ignore[attr-defined]
    stream_id = bad.open_stream(b"x", True)
    bad.notify_writable(stream_id, 0)
    with pytest.raises(RuntimeError):
        wire.run()
    woken = wire.woken
    wire.run()
    assert woken
    assert faulty.closed is not None
    assert faulty.closed.code == ErrorCode.H3_INTERNAL_ERROR
    assert raw_events.closed is not None
    assert wire.server.connections[0].closed is None


def test_fault_of_the_engine_ends_its_connection() -> None:
    wire = Wire()
    session, _, _, _ = wire.pair()

    def fault(*args: object) -> None:
        raise ZeroDivisionError

    wire.server.engine._quic.receive_datagram = fault  # type: ignore[assignment, method-assign]
    session.send_datagram(b"x")
    with pytest.raises(ZeroDivisionError):
        wire.step()
    wire.run()
    assert wire.server.closed is not None
    assert wire.client.closed is not None
    assert wire.client.closed.code == ErrorCode.H3_INTERNAL_ERROR


# A bad network.

PATIENCE = 2_000
"""Half seconds of the wire's clock: a few losses in a row, and the engine's probes are minutes apart."""


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from([0.0, 0.1, 0.25]),
    twice=st.sampled_from([0.0, 0.3]),
    late=st.sampled_from([0.0, 0.3]),
    size=st.sampled_from([0, 10, 5_000, 30_000]),
)
def test_loss_reordering_and_duplication_break_neither_delivery_nor_state(
    seed: int, loss: float, twice: float, late: float, size: int
) -> None:
    chance = Random(seed)
    wire = Wire(idle_timeout=300.0)
    held: list[tuple[bool, bytes]] = []

    def network(packets: list[bytes], to_server: bool) -> list[bytes]:
        out = [packet for to, packet in held if to == to_server]
        held[:] = [(to, packet) for to, packet in held if to != to_server]
        for packet in packets:
            if chance.random() < loss:
                continue
            if chance.random() < late:
                held.append((to_server, packet))
            else:
                out += [packet] * (1 + (chance.random() < twice))
        return out

    wire.network = network
    session, recorder = wire.session()
    for _ in range(PATIENCE):
        if recorder.established:
            break
        wire.run(0.5)
    peer = wire.server.sessions[0]
    data = bytes(chance.randrange(256) for _ in range(100)) * (size // 100)
    streams = [session.open_stream(recorder, unidirectional=bool(n & 1)) for n in range(4)]
    for stream in streams:
        stream.send(data, True)
    told = peer.handler
    for _ in range(PATIENCE):
        if len(told.ended) == 4:  # type: ignore[attr-defined]
            break
        wire.run(0.5)
    assert told.data == dict.fromkeys((s.id for s in streams), data)  # type: ignore[attr-defined]
    session.close(1, "done")
    for _ in range(PATIENCE):
        if told.closed is not None:  # type: ignore[attr-defined]
            break
        wire.run(0.5)
    wire.network = lambda packets, to_server: packets
    wire.run(30)
    assert recorder.closed is not None
    wire.client.assert_nothing_left()
    wire.server.assert_nothing_left()
    assert wire.client.errors == wire.server.errors == []


def test_what_comes_after_the_end_begins_nothing() -> None:
    wire = Wire()
    wire.server_end.close()
    assert hand_over(wire.server_end, first_packet()) == []
    assert len(wire.server_end) == 0
