"""A peer that knows nothing of a connection any more says so (RFC 9000, section 10.3)."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from aioquic.quic.packet import QuicErrorCode

from pingpong.webtransport.quic.config import EndpointConfig
from pingpong.webtransport.quic.connection_ids import ConnectionIds, SharedKeys
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from pingpong.webtransport.quic.engine import RESET_REASON
from pingpong.webtransport.quic.stateless import MAX_RESET_SIZE, MIN_RESET_SIZE, TokenBucket
from tests.webtransport.raw import Raw
from tests.webtransport.wire import CLIENT, SERVER, Wire, certificate, hand_over, identity

OTHER = ("198.51.100.9", 7)


def server(keys: SharedKeys) -> AioquicEndpoint:
    """One that was started anew."""
    made = certificate()
    config = EndpointConfig(certificate=made, keys=keys, idle_timeout=60)
    return AioquicEndpoint(config, lambda: None, Raw().attach)


def restart(wire: Wire, keys: SharedKeys) -> None:
    wire.server_end = server(keys)


def short_packet(size: int, connection_id: bytes = b"whatever") -> bytes:
    return (b"\x41" + connection_id).ljust(size, b"x")


def test_client_of_a_restarted_server_is_reset_at_once() -> None:
    keys = SharedKeys()
    wire = Wire(keys=keys, idle_timeout=60)
    session, recorder, _, _ = wire.pair()
    wire.run(1)
    restart(wire, keys)
    session.send_datagram(b"anybody there?")
    wire.run(0.01)
    closed = wire.client.closed
    assert closed is not None
    assert (closed.code, closed.reason) == (QuicErrorCode.INTERNAL_ERROR, RESET_REASON)
    assert closed.by_peer
    assert not closed.is_application
    assert not closed.timed_out
    assert recorder.closed is not None
    assert (wire.server_end.counters.resets_sent, wire.client_end.counters.resets_received) == (
        1,
        1,
    )
    # It drains, and is forgotten, and says nothing meanwhile.
    assert wire.client_end.transmit(wire.now) == []
    wire.run(5)
    assert len(wire.client_end) == 0
    assert wire.client_end._reset_tokens == {}
    assert wire.client_end._routes == {}


def test_reset_of_one_who_has_not_the_keys_is_no_reset() -> None:
    wire = Wire(idle_timeout=60)
    session, _, _, _ = wire.pair()
    restart(wire, SharedKeys())
    session.send_datagram(b"anybody there?")
    wire.run(1)
    assert wire.client.closed is None
    assert wire.server_end.counters.resets_sent > 1
    assert wire.client_end.counters.resets_received == 0
    assert wire.client_end.counters.dropped_packets == wire.server_end.counters.resets_sent


def test_token_goes_with_the_connection_id_that_is_in_use() -> None:
    keys = SharedKeys()
    wire = Wire(keys=keys, idle_timeout=60)
    session, _, _, _ = wire.pair()
    quic = wire.client.engine._quic
    before = wire.client.engine.reset_token
    quic.change_connection_id()
    session.send_datagram(b"x")
    wire.run()
    ids = ConnectionIds(keys.reset)
    assert wire.client.engine.reset_token == ids.reset_token(quic._peer_cid.cid) != before
    assert set(wire.client_end._reset_tokens) == {wire.client.engine.reset_token}
    # One for the id that is no more is not listened to (section 10.3.1).
    hand_over(wire.client_end, short_packet(30) + before, SERVER, wire.now)
    assert wire.client.closed is None
    restart(wire, keys)
    session.send_datagram(b"x")
    wire.run(0.01)
    assert wire.client.closed is not None


def test_server_hears_the_reset_of_a_client_as_well() -> None:
    wire = Wire(raw_client=True)
    wire.raw_session()
    quic = wire.server.engine._quic
    assert wire.server_end._reset_tokens == {}, "a client's first id has no token"
    quic.change_connection_id()
    wire.server.engine.ping()
    wire.run()
    token = wire.server.engine.reset_token
    assert token == ConnectionIds(wire.client_end._config.keys.reset).reset_token(
        quic._peer_cid.cid
    )
    hand_over(wire.server_end, short_packet(30) + token, now=wire.now)
    assert wire.server.closed is not None
    assert wire.server.closed.reason == RESET_REASON


@pytest.mark.parametrize("head", [0x40, 0x00, 0xC0, 0x80])
def test_token_counts_whatever_the_packet_looks_like(head: int) -> None:
    wire = Wire()
    reset = bytes((head,)) + os.urandom(10) + wire.client.engine.reset_token
    hand_over(wire.client_end, reset, SERVER, wire.now)
    assert wire.client.closed is not None


def test_token_counts_not_from_elsewhere_nor_in_the_midst_nor_in_too_small_a_packet() -> None:
    wire = Wire()
    token = wire.client.engine.reset_token
    for packet, address in (
        (short_packet(30) + token, OTHER),
        (short_packet(30) + token + b"x", SERVER),
        (b"\x40" * (MIN_RESET_SIZE - 17) + token, SERVER),
        (token, SERVER),
    ):
        hand_over(wire.client_end, packet, address, wire.now)
        assert wire.client.closed is None
    assert wire.client_end.counters.resets_received == 0
    assert wire.client_end.counters.dropped_packets == 4


def test_second_reset_changes_nothing() -> None:
    wire = Wire()
    token = wire.client.engine.reset_token
    wire.client.connection.close()
    closed = wire.client.closed
    hand_over(wire.client_end, short_packet(30) + token, SERVER, wire.now)
    assert wire.client.closed is closed
    wire.run(5)
    assert len(wire.client_end) == 0


def test_token_that_another_peer_claims_stays_with_whose_it_is() -> None:
    wire = Wire(raw_client=True)
    other = Raw()
    wire.client_end.connect(SERVER, identity(), other.attach, wire.now)
    wire.run()
    first, second = wire.server_end._connections
    end = wire.server_end
    second.reset_token = b"t" * 16
    end.reset_token_changed(second, b"")
    first.reset_token = b"t" * 16
    end.reset_token_changed(first, b"")
    second.reset_token = b"u" * 16
    end.reset_token_changed(second, b"t" * 16)
    assert end._reset_tokens == {b"t" * 16: first, b"u" * 16: second}


# What is sent.


@pytest.mark.parametrize("size", [0, 1, 8, 20, 21, 22, 30, 43, 44, 100, 1200])
def test_reset_is_smaller_than_what_it_answers_and_looks_like_any_packet(size: int) -> None:
    keys = SharedKeys()
    end = server(keys)
    answers = hand_over(end, short_packet(size)[:size])
    if size <= MIN_RESET_SIZE:
        assert answers == []
        assert end.counters.dropped_packets == bool(size)
        return
    (reset,) = answers
    assert MIN_RESET_SIZE <= len(reset) < size
    assert len(reset) <= MAX_RESET_SIZE
    assert reset[0] & 0xC0 == 0x40
    assert reset.endswith(ConnectionIds(keys.reset).reset_token(b"whatever"))
    (again,) = hand_over(end, short_packet(size))
    assert again[:-16] != reset[:-16]


def test_two_that_know_nothing_of_each_other_come_to_an_end() -> None:
    ends = [server(SharedKeys()), server(SharedKeys())]
    packets = [short_packet(1200)]
    answered = 0
    while packets:
        packets = hand_over(ends[answered % 2], packets[0])
        answered += 1
    assert answered < MAX_RESET_SIZE


def test_resets_are_limited_in_their_rate() -> None:
    end = server(SharedKeys())
    sent = sum(len(hand_over(end, short_packet(50))) for _ in range(1_500))
    assert sent == end.counters.resets_sent == 1_000
    assert end.counters.dropped_packets == 500
    assert len(hand_over(end, short_packet(50), now=1_000.1)) == 1


def test_client_sends_no_stateless_resets() -> None:
    wire = Wire()
    assert hand_over(wire.client_end, short_packet(50), SERVER, wire.now) == []
    assert wire.client_end.counters.resets_sent == 0


@pytest.mark.parametrize("packet", [b"\x01" * 50, b"\xc1" * 50, b"\x81" * 1300])
def test_what_is_no_short_packet_is_not_reset(packet: bytes) -> None:
    end = server(SharedKeys())
    assert hand_over(end, packet, CLIENT) == []


def test_connection_that_was_given_up_is_reset_when_the_client_comes_back() -> None:
    """The same process; and no reset while it knows the connection."""
    wire = Wire(idle_timeout=5)
    session, _, _, _ = wire.pair()
    wire.server.engine._quic.give_up(wire.now)
    wire.server.engine._report()
    wire.server_end.request_transmit(wire.server.engine)
    wire.server_end.transmit(wire.now)
    assert len(wire.server_end) == 0
    assert wire.server_end.counters.resets_sent == 0
    session.send_datagram(b"x")
    wire.run(0.01)
    assert wire.client.closed is not None
    assert wire.client.closed.reason == RESET_REASON


def test_keys_of_a_configuration_are_its_own_unless_shared() -> None:
    config = EndpointConfig()
    assert config.keys != EndpointConfig().keys
    assert replace(config, idle_timeout=1).keys == config.keys


# The rate.


def test_bucket_is_a_seconds_worth_and_grows_again() -> None:
    bucket = TokenBucket(10)
    assert [bucket.take(5.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not bucket.take(5.05)
    assert bucket.take(5.15)
    assert not bucket.take(5.15)
    assert [bucket.take(100.0) for _ in range(11)] == [True] * 10 + [False]
    # A packet that was handed over is older than the one before; nothing is won by that.
    assert not bucket.take(99.0)
    assert not bucket.take(100.0)
