"""Keys change in time, and nothing is lost by it (RFC 9001, section 6)."""

from __future__ import annotations

import os
from random import Random

import pytest
from aioquic import tls
from aioquic.quic.crypto import (  # type: ignore[attr-defined]
    CryptoContext,
    CryptoError,
    CryptoPair,
    next_key_phase,
)
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import CipherSuite
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong.webtransport.quic import keys as quic_keys
from pingpong.webtransport.quic.config import KeyLimits
from pingpong.webtransport.quic.keys import PacketKeys
from tests.webtransport.quic.plain import PlainPeer
from tests.webtransport.wire import CLIENT, Wire

LOW = KeyLimits(update_after=20, max_sent=60)
"""Without an update, the connection is closed before long."""


def ping_pong(wire: Wire, count: int) -> None:
    """Datagrams both ways, some time apart; all of them arrive."""
    session, recorder, peer_session, peer = wire.pair()
    for number in range(count):
        session.send_datagram(b"%d" % number)
        peer_session.send_datagram(b"%d" % number)
        wire.run(0.02)
    expected = [b"%d" % number for number in range(count)]
    assert recorder.datagrams == peer.datagrams == expected


@pytest.mark.parametrize("roles", [("client",), ("server",), ("client", "server")])
def test_keys_are_updated_before_their_limit(roles: tuple[str, ...]) -> None:
    wire = Wire(
        client_key_limits=LOW if "client" in roles else KeyLimits(),
        key_limits=LOW if "server" in roles else KeyLimits(),
    )
    ping_pong(wire, 400)
    assert wire.client.closed is wire.server.closed is None


def test_limits_are_well_below_what_the_ciphers_allow() -> None:
    limits = KeyLimits()
    assert limits.update_after <= 1 << 22
    for cipher, closes in (
        (CipherSuite.AES_128_GCM_SHA256, True),
        (CipherSuite.AES_256_GCM_SHA384, True),
        (CipherSuite.CHACHA20_POLY1305_SHA256, False),
    ):
        keys = PacketKeys(limits)
        for one in (keys.recv, keys.send):
            one.setup(cipher_suite=cipher, secret=bytes(48), version=1)
        # No update is possible: nothing was acknowledged.
        assert keys.review(limits.update_after, -1, 0.0, 1.0, confirmed=True) is None
        error = keys.review((1 << 23) - 5_000, -1, 0.0, 1.0, confirmed=True)
        assert (error == QuicErrorCode.AEAD_LIMIT_REACHED) == closes


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 32), late=st.sampled_from([0.1, 0.5]))
def test_reordering_across_updates_loses_nothing(seed: int, late: float) -> None:
    chance = Random(seed)
    limits = KeyLimits(update_after=20)
    wire = Wire(client_key_limits=limits, key_limits=limits)
    session, recorder, peer_session, peer = wire.pair()
    wire.run(1)
    held: list[tuple[int, bool, bytes]] = []
    turn = 0

    def network(packets: list[bytes], to_server: bool) -> list[bytes]:
        nonlocal turn
        turn += 1
        now = [packet for due, to, packet in held if to == to_server and due <= turn]
        held[:] = [each for each in held if each[1] != to_server or each[0] > turn]
        for packet in packets:
            if chance.random() < late:
                held.append((turn + chance.randint(1, 12), to_server, packet))
            else:
                now.append(packet)
        return now

    wire.network = network
    sent = [b"%d" % number for number in range(300)]
    for number, data in enumerate(sent):
        session.send_datagram(data)
        peer_session.send_datagram(data)
        wire.step()
        if number % 10 == 9:
            wire.run(0.03)
    wire.network = lambda packets, to_server: [
        *(packet for _, to, packet in held if to == to_server),
        *packets,
    ]
    wire.run(1)
    assert wire.client.closed is wire.server.closed is None
    assert set(recorder.datagrams) == set(peer.datagrams) == set(sent)


def test_packet_that_only_acknowledges_asks_for_an_acknowledgement_where_an_update_is_due() -> None:
    """Of those alone the peer says nothing: it would never be known to have the keys."""
    wire = Wire(key_limits=LOW)
    session, _, _, peer = wire.pair()
    for number in range(400):
        session.send_datagram(b"%d" % number)
        wire.run(0.02)
    assert len(peer.datagrams) == 400
    assert wire.server.closed is None


def test_connection_is_closed_where_no_update_is_possible() -> None:
    """The client's acknowledgements do not arrive."""
    wire = Wire(key_limits=LOW, idle_timeout=1_000.0)
    _, _, peer_session, _ = wire.pair()
    wire.lose = lambda packet, to_server: to_server
    sent = 0
    while wire.server.closed is None:
        peer_session.send_datagram(b"x")
        wire.run(0.02)
        sent += 1
    # Of the first keys it knew that the client has them.
    assert sent < 2 * 60
    assert wire.server.closed.code == QuicErrorCode.AEAD_LIMIT_REACHED
    assert not wire.server.closed.is_application
    assert wire.client.closed is not None
    assert wire.client.closed.code == QuicErrorCode.AEAD_LIMIT_REACHED


def test_packets_that_fail_authentication_are_bounded() -> None:
    wire = Wire(key_limits=KeyLimits(max_failed=100))
    session, _, _, peer = wire.pair()
    session.send_datagram(b"x")
    ((_, (packet,)),) = wire.client_end.transmit(wire.now)
    for _ in range(100):
        damaged = packet[:9] + os.urandom(len(packet) - 9)
        wire.server_end.receive(damaged, CLIENT, wire.now, 0)
    wire.server_end.receive(packet, CLIENT, wire.now, 0)
    wire.run(0.01)
    assert peer.datagrams == [b"x"]
    assert wire.server.closed is None
    wire.server_end.receive(packet[:-1] + bytes((packet[-1] ^ 1,)), CLIENT, wire.now, 0)
    wire.run(0.01)
    assert wire.server.closed is not None
    assert wire.server.closed.code == QuicErrorCode.AEAD_LIMIT_REACHED


def test_garbage_does_not_have_keys_made_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def count(keys: CryptoContext) -> CryptoContext:
        nonlocal made
        made += 1
        return next_key_phase(keys)

    monkeypatch.setattr(quic_keys, "next_key_phase", count)
    wire = Wire()
    session, _, _, _ = wire.pair()
    session.send_datagram(b"x")
    ((_, (packet,)),) = wire.client_end.transmit(wire.now)
    for _ in range(200):
        damaged = packet[:9] + os.urandom(len(packet) - 9)
        wire.server_end.receive(damaged, CLIENT, wire.now, 0)
    assert made == 1


def make_keys() -> tuple[PacketKeys, PacketKeys]:
    """Both sides' keys, of one connection."""
    ours, theirs = PacketKeys(KeyLimits()), PacketKeys(KeyLimits())
    for sender, receiver, secret in ((ours, theirs, bytes(32)), (theirs, ours, bytes(31) + b"x")):
        for one in (sender.send, receiver.recv):
            one.setup(cipher_suite=CipherSuite.AES_128_GCM_SHA256, secret=secret, version=1)
    return ours, theirs


def header(number: int, phase: int) -> bytes:
    return bytes((0x41 | phase << 2,)) + bytes(8) + number.to_bytes(2, "big")


def encrypt(keys: PacketKeys, number: int) -> bytes:
    return keys.encrypt_packet(header(number, keys.key_phase), b"data", number)


def test_old_keys_are_for_packets_before_all_of_the_new_ones() -> None:
    """RFC 9001, section 6.4: with higher numbers they are a violation."""
    ours, theirs = make_keys()
    packets = {number: encrypt(ours, number) for number in (5, 7, 9)}
    ours.update_key()
    assert ours.review(10, 5, 0.0, 0.0, confirmed=True) is None
    packets |= {number: encrypt(ours, number) for number in (10, 8)}
    for number in (5, 10, 8, 7):
        plain = theirs.decrypt_packet(packets[number], 9, number)
        assert plain == (header(number, number in (10, 8)), b"data", number)
    with pytest.raises(CryptoError):
        theirs.decrypt_packet(packets[9], 9, 9)


def test_next_update_waits_until_the_one_before_is_acknowledged() -> None:
    """That the peer has the keys is not enough: it may have changed to them by itself."""
    ours, theirs = make_keys()
    ours.update_key()
    assert ours.review(10, 5, 0.0, 0.0, confirmed=True) is None
    theirs.decrypt_packet(encrypt(ours, 10), 9, 10)
    ours.decrypt_packet(encrypt(theirs, 3), 9, 3)
    ours.update_key()
    phases = []
    for acknowledged, now in ((9, 1.0), (9, 9.0), (10, 10.0), (10, 10.2), (10, 10.3)):
        assert ours.review(11, acknowledged, now, 0.3, confirmed=True) is None
        phases.append(ours.key_phase)
    assert phases == [1, 1, 1, 1, 0]


def test_no_update_before_the_handshake_is_confirmed() -> None:
    ours, _ = make_keys()
    ours.update_key()
    assert ours.review(10, 5, 0.0, 0.0, confirmed=False) is None
    assert ours.key_phase == 0


# With aioquic's own.


def one_rtt(peer: PlainPeer) -> CryptoPair:
    """The peer's keys, as it has them."""
    return peer.quic._cryptos[tls.Epoch.ONE_RTT]


@pytest.mark.parametrize(
    "cipher",
    [
        CipherSuite.AES_128_GCM_SHA256,
        CipherSuite.AES_256_GCM_SHA384,
        CipherSuite.CHACHA20_POLY1305_SHA256,
    ],
)
@pytest.mark.parametrize("role", ["client", "server"])
def test_aioquic_follows_our_updates(role: str, cipher: CipherSuite) -> None:
    peer = PlainPeer(role, LOW, cipher)
    phases = set()
    for number in range(300):
        peer.raw.quic.send_datagram(b"%d" % number)
        peer.quic.send_datagram_frame(b"%d" % number)
        peer.run(0.02)
        phases.add(one_rtt(peer).key_phase)
    sent = [b"%d" % number for number in range(300)]
    assert peer.closed is None
    assert peer.raw.closed is None
    assert peer.raw.datagrams == peer.datagrams == sent
    assert phases == {0, 1}


@pytest.mark.parametrize("limits", [KeyLimits(), LOW])
@pytest.mark.parametrize("role", ["client", "server"])
def test_aioquics_updates_are_followed(role: str, limits: KeyLimits) -> None:
    peer = PlainPeer(role, limits)
    for number in range(300):
        if number % 15 == 14:
            peer.quic.request_key_update()
        peer.quic.send_datagram_frame(b"%d" % number)
        peer.run(0.02)
        peer.raw.quic.send_datagram(b"%d" % number)
        peer.run(0.02)
    assert peer.closed is None
    assert peer.raw.closed is None
    assert peer.raw.datagrams == peer.datagrams == [b"%d" % number for number in range(300)]


@pytest.mark.parametrize("role", ["client", "server"])
def test_packets_from_before_an_update_are_read_for_a_while(role: str) -> None:
    peer = PlainPeer(role)
    peer.run(1)
    early = []
    for data in (b"old", b"older than old keys"):
        peer.quic.send_datagram_frame(data)
        early += peer.take()
    peer.quic.request_key_update()
    peer.quic.send_datagram_frame(b"new")
    peer.receive(peer.take())
    peer.receive(early[:1])
    assert peer.raw.datagrams == [b"new", b"old"]
    # Three times the probe timeout later it is over with that.
    peer.run(2)
    peer.quic.send_datagram_frame(b"later")
    peer.run()
    peer.receive(early[1:])
    assert peer.raw.datagrams == [b"new", b"old", b"later"]
    assert peer.raw.closed is None


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("role", ["client", "server"])
def test_update_before_the_one_before_was_confirmed_ends_the_connection(
    role: str, between: bool
) -> None:
    """Whether or not there was time to send, nothing was sent."""
    peer = PlainPeer(role)
    peer.run(1)
    for number in range(2):
        if number and between:
            assert not peer.step()
        one_rtt(peer).update_key()
        peer.quic.send_datagram_frame(b"x")
        peer.receive(peer.take())
    peer.run(0.01)
    assert peer.raw.closed is not None
    assert peer.raw.closed.code == QuicErrorCode.KEY_UPDATE_ERROR
    assert not peer.raw.closed.is_application
    assert not peer.raw.closed.by_peer
