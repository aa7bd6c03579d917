"""Who gets a connection: versions, limits, Retry, certificates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicErrorCode, QuicPacketType, QuicProtocolVersion, pull_quic_header

from pingpong.webtransport.quic import endpoint as quic_endpoint
from pingpong.webtransport.quic.config import EndpointConfig, ServerIdentity
from pingpong.webtransport.quic.connection_ids import CONNECTION_ID_SIZE, SharedKeys
from pingpong.webtransport.quic.endpoint import for_client
from pingpong.webtransport.quic.retry import LIFETIME, RetryTokens
from tests.support.certificates import Authority
from tests.webtransport.raw import Raw, first_packet
from tests.webtransport.wire import CLIENT, SERVER, Wire, certificate, hand_over, identity

OTHER = ("198.51.100.9", 7)


def kind(packet: bytes) -> QuicPacketType:
    return pull_quic_header(Buffer(data=packet), host_cid_length=CONNECTION_ID_SIZE).packet_type


# Versions.


def test_unknown_version_is_answered_with_those_that_are_known() -> None:
    wire = Wire(connect=False)
    packet = first_packet()
    unknown = packet[:1] + b"\x1a\x2a\x3a\x4a" + packet[5:]
    (answer,) = hand_over(wire.server_end, unknown)
    header = pull_quic_header(Buffer(data=answer), host_cid_length=CONNECTION_ID_SIZE)
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert QuicProtocolVersion.VERSION_1 in header.supported_versions
    assert (header.destination_cid, header.source_cid) == (packet[15:23], packet[6:14])
    assert wire.server_end.counters.version_negotiations == 1
    assert len(wire.server_end) == 0


def test_version_negotiation_is_not_for_short_packets_nor_for_its_own_kind() -> None:
    wire = Wire(connect=False)
    packet = first_packet()
    unknown = packet[:1] + b"\x1a\x2a\x3a\x4a" + packet[5:]
    assert hand_over(wire.server_end, unknown[:1199]) == []
    # To answer one would let two servers talk for ever.
    negotiation = packet[:1] + bytes(4) + packet[5:]
    assert hand_over(wire.server_end, negotiation) == []
    assert wire.server_end.counters.version_negotiations == 0
    assert wire.server_end.counters.dropped_packets == 2


def test_client_without_a_common_version_gets_an_error() -> None:
    wire = Wire(raw_client=True, connect=False)
    wire.client_end.connect(SERVER, identity(), wire.raw.attach, wire.now)
    ((_, (packet,)),) = wire.client_end.transmit(wire.now)
    source = packet[15 : 15 + packet[14]]
    negotiation = (
        b"\x80\0\0\0\0" + bytes([len(source)]) + source + packet[5:14] + b"\x1a\x2a\x3a\x4a"
    )
    wire.client_end.receive(negotiation, SERVER, wire.now, 0)
    assert wire.raw.closed is not None
    assert not wire.raw.closed.timed_out
    assert not wire.raw.closed.by_peer


# Admission.


def test_address_is_validated_by_retry_above_the_limit_on_handshakes() -> None:
    wire = Wire(raw_client=True, connect=False, max_handshakes=1)
    assert hand_over(wire.server_end, first_packet(), OTHER)
    assert wire.server_end.unfinished_handshakes == 1
    wire.connect()
    counters = wire.server_end.counters
    assert (counters.retries_sent, counters.retries_invalid) == (1, 0)
    wire.raw_session()
    # Two of the three that it began: one never answered.
    assert (counters.connections, counters.handshakes) == (2, 1)
    wire.raw.quic.close(0x100)
    wire.run(3)
    assert len(wire.server_end) == 1
    wire.run(30)
    assert len(wire.server_end) == 0
    assert wire.server_end._routes == {}


def retry(wire: Wire) -> tuple[bytes, bytes, bytes]:
    """Have the server ask for a token: the token, its id for the client, the first packet."""
    packet = first_packet()
    (answer,) = hand_over(wire.server_end, packet)
    header = pull_quic_header(Buffer(data=answer), host_cid_length=CONNECTION_ID_SIZE)
    assert header.packet_type is QuicPacketType.RETRY
    return header.token, header.source_cid, packet


def with_token(packet: bytes, token: bytes, destination: bytes) -> bytes:
    """An Initial's header with another token and destination; its payload is of no account."""
    source = packet[14 : 15 + packet[14]]
    head = packet[:5] + bytes([len(destination)]) + destination + source
    body = (0x4000 | len(token)).to_bytes(2, "big") + token + b"\x44\x00" + bytes(0x400)
    return (head + body).ljust(1200, b"\0")


@pytest.mark.parametrize("what", ["valid", "expired", "address", "id"])
def test_retry_token_is_good_for_its_address_its_id_and_a_short_time(what: str) -> None:
    wire = Wire(connect=False, max_handshakes=0)
    token, destination, packet = retry(wire)
    address, now = CLIENT, 1_000.0
    if what == "expired":
        now += LIFETIME + 0.1
    elif what == "address":
        address = OTHER
    elif what == "id":
        destination = os.urandom(8)
    answers = hand_over(wire.server_end, with_token(packet, token, destination), address, now)
    if what == "valid":
        assert len(wire.server_end) == 1
        assert wire.server_end.counters.retries_invalid == 0
        return
    assert wire.server_end.counters.retries_invalid == 1
    assert len(wire.server_end) == 0
    (answer,) = answers
    assert kind(answer) is QuicPacketType.INITIAL
    assert len(answer) < 100


@pytest.mark.parametrize("what", ["foreign", "damaged", "truncated", "long"])
@pytest.mark.parametrize("busy", [False, True])
def test_token_that_is_of_no_retry_of_ours_says_nothing(what: str, busy: bool) -> None:
    """RFC 9000, section 8.1.3: as if there were none."""
    wire = Wire(connect=False, max_handshakes=0)
    token, destination, packet = retry(wire)
    token = {
        "foreign": os.urandom(len(token)),
        "damaged": token[:-1] + bytes((token[-1] ^ 1,)),
        "truncated": token[:5],
        "long": os.urandom(900),
    }[what]
    wire = Wire(connect=False, max_handshakes=0 if busy else 1)
    (answer,) = hand_over(wire.server_end, with_token(packet, token, destination)) or [b""]
    assert len(wire.server_end) == (not busy)
    assert wire.server_end.counters.retries_invalid == 0
    if busy:
        assert kind(answer) is QuicPacketType.RETRY
    else:
        assert not answer


@pytest.mark.parametrize("busy", [False, True])
def test_client_with_a_token_from_elsewhere_gets_a_connection(
    busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(raw_client=True, connect=False, max_handshakes=0 if busy else 1)

    def with_foreign_token(config: EndpointConfig, server: ServerIdentity) -> QuicConfiguration:
        configuration = for_client(config, server)
        configuration.token = b"what another server gave, in a NEW_TOKEN frame"
        return configuration

    monkeypatch.setattr(quic_endpoint, "for_client", with_foreign_token)
    wire.connect()
    wire.raw_session()
    assert wire.raw.closed is None
    counters = wire.server_end.counters
    assert (counters.handshakes, counters.retries_sent, counters.retries_invalid) == (1, busy, 0)


def test_client_hears_that_its_token_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(raw_client=True, connect=False, max_handshakes=0)
    monkeypatch.setattr(RetryTokens, "validate", fails)
    wire.connect()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == QuicErrorCode.INVALID_TOKEN
    assert wire.raw.closed.by_peer


def fails(*arguments: object) -> bytes:
    raise ValueError


def test_connection_above_the_limit_is_refused_at_once() -> None:
    wire = Wire(max_connections=1)
    refused = Raw()
    wire.client_end.connect(SERVER, identity(), refused.attach, wire.now)
    begun = wire.now
    wire.run(0.01)
    assert refused.closed is not None
    assert refused.closed.code == QuicErrorCode.CONNECTION_REFUSED
    assert not refused.closed.is_application
    assert refused.closed.by_peer
    assert wire.now - begun < 0.1
    assert wire.server_end.counters.refused_connections >= 1
    assert len(wire.server_end) == 1
    wire.client.connection.close()
    wire.run(1)
    again = Raw()
    wire.client_end.connect(SERVER, identity(), again.attach, wire.now)
    wire.run()
    assert again.closed is None
    assert wire.client_end.counters.handshake_failures == 1


@pytest.mark.parametrize("keys_differ", [False, True])
def test_retry_token_is_valid_for_all_workers_with_the_keys(keys_differ: bool) -> None:
    keys = SharedKeys()
    first = Wire(connect=False, max_handshakes=0, keys=keys)
    token, destination, packet = retry(first)
    second = Wire(connect=False, max_handshakes=0, keys=SharedKeys() if keys_differ else keys)
    hand_over(second.server_end, with_token(packet, token, destination))
    assert len(second.server_end) == (not keys_differ)
    assert second.server_end.counters.retries_sent == keys_differ


def test_unfinished_handshakes_are_given_up_long_before_the_idle_timeout() -> None:
    wire = Wire(connect=False, idle_timeout=60.0, handshake_timeout=2.0)
    for _ in range(3):
        hand_over(wire.server_end, first_packet(), OTHER, now=wire.now)
    assert len(wire.server_end) == wire.server_end.unfinished_handshakes == 3
    wire.run(1.9)
    assert len(wire.server_end) == 3
    wire.run(0.2)
    assert len(wire.server_end) == wire.server_end.unfinished_handshakes == 0
    counters = wire.server_end.counters
    assert (counters.handshake_failures, counters.handshake_timeouts) == (3, 3)
    assert wire.server_end._routes == {}
    assert wire.server_end.next_timer() is None


def test_client_that_goes_on_and_on_without_completing_is_given_up_too() -> None:
    wire = Wire(raw_client=True, connect=False, handshake_timeout=2.0)
    # The server's words don't arrive: the client repeats its first ones.
    wire.lose = lambda packet, to_server: not to_server
    wire.connect()
    wire.run(1.8)
    assert wire.server_end.unfinished_handshakes == 1
    wire.run(0.2)
    assert wire.server_end.counters.handshake_timeouts == 1
    assert wire.raw.closed is None


def test_handshake_that_is_complete_is_not_given_up() -> None:
    wire = Wire(idle_timeout=60.0, handshake_timeout=2.0)
    wire.session()
    wire.run(30)
    assert wire.server.closed is None
    assert wire.server_end.counters.handshake_failures == 0


def test_failed_handshake_is_no_timeout() -> None:
    wire = Wire(raw_client=True, connect=False)
    wire.client_end.connect(SERVER, identity(), wire.raw.attach, wire.now)
    wire.step()
    wire.raw.quic.close(0, "no more")
    wire.run(20)
    counters = wire.server_end.counters
    assert (counters.handshake_failures, counters.handshake_timeouts) == (1, 0)
    assert len(wire.server_end) == 0


def test_of_clients_that_are_where_they_say_the_oldest_makes_room() -> None:
    wire = Wire(connect=False, max_handshakes=0, max_validated_handshakes=2)
    retries = [retry(wire) for _ in range(4)]
    for number, (token, destination, packet) in enumerate(retries):
        hand_over(wire.server_end, with_token(packet, token, destination))
        assert wire.server_end.unfinished_handshakes == min(number + 1, 2)
        # Nothing is left of those that had to give way.
        assert len(wire.server_end) == min(number + 1, 2)
    assert wire.server_end.counters.refused_connections == 0
    assert wire.server_end.counters.handshake_failures == 2


def test_no_more_than_three_times_what_came_is_sent_before_the_address_is_proven() -> None:
    wire = Wire(connect=False)
    packet = first_packet()
    sent = sum(map(len, hand_over(wire.server_end, packet, OTHER, now=wire.now)))
    for _ in range(20):
        timer = wire.server_end.next_timer()
        if timer is None:
            break
        wire.now = max(wire.now, timer)
        wire.server_end.handle_timers(wire.now)
        for address, packets in wire.server_end.transmit(wire.now):
            assert address == OTHER
            sent += sum(map(len, packets))
    assert len(wire.server_end) == 0
    assert len(packet) < sent <= 3 * len(packet)


def test_flood_of_first_packets_costs_little_and_is_counted() -> None:
    wire = Wire(max_handshakes=3, handshake_timeout=2.0)
    session, _, _, peer = wire.pair()
    routes = len(wire.server_end._routes)
    packet = first_packet()
    for number in range(2_000):
        spoofed = packet[:6] + number.to_bytes(8, "big") + packet[14:]
        hand_over(wire.server_end, spoofed, (f"198.51.{number >> 8}.1", number), wire.now)
    end = wire.server_end
    # Nobody's handshake gets as far as a connection of them: their keys are other than the id's.
    assert end.unfinished_handshakes == 3
    assert len(end) == 4
    assert end.counters.retries_sent == 1_997
    assert len(end._routes) == routes + 3 * 2
    session.send_datagram(b"still here")
    wire.run()
    assert peer.datagrams == [b"still here"]
    wire.run(2.1)
    assert (len(end), len(end._routes)) == (1, routes)
    assert end.counters.handshake_timeouts == 3


def test_refusals_are_limited_in_their_rate() -> None:
    wire = Wire(max_connections=1)
    packet = first_packet()
    answers = 0
    for number in range(1_200):
        refused = packet[:6] + number.to_bytes(8, "big") + packet[14:]
        answers += len(hand_over(wire.server_end, refused, OTHER, wire.now))
    assert answers == 1_000
    assert wire.server_end.counters.refused_connections == 1_200
    assert len(hand_over(wire.server_end, packet, OTHER, wire.now + 0.01)) == 1


def test_client_without_h3_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(raw_client=True, connect=False)

    def other(config: EndpointConfig, server: ServerIdentity) -> QuicConfiguration:
        configuration = for_client(config, server)
        configuration.alpn_protocols = ["hq-interop"]
        return configuration

    monkeypatch.setattr(quic_endpoint, "for_client", other)
    wire.connect()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == 0x178  # no_application_protocol
    assert wire.server.closed is not None
    assert not wire.server.closed.by_peer


# Certificates.


def test_pinned_certificate_is_accepted_and_another_is_not() -> None:
    wire = Wire(connect=False)
    wire.connect(ServerIdentity("anything", certificate_hash=bytes(32)))
    assert wire.client.closed is not None
    assert wire.client.closed.code == QuicErrorCode.CRYPTO_ERROR + 42
    assert "SHA-256" in wire.client.closed.reason
    # Nothing that the wrong server said was heard, though its settings came with its first flight.
    assert not wire.client.ready
    assert wire.client.connection._remote_settings is None
    assert wire.client_end.counters.handshakes == 0
    assert wire.client_end.counters.handshake_failures == 1


def test_certificate_is_verified_against_a_ca_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    good.write_bytes(certificate().pem())
    bad.write_bytes(Authority().pem)
    for ca_file, name, reached in (
        (good, "localhost", True),
        (good, "example.org", False),
        (bad, "localhost", False),
        (None, "localhost", False),
    ):
        wire = Wire(connect=False)
        wire.connect(ServerIdentity(name, ca_file=None if ca_file is None else str(ca_file)))
        assert wire.client.ready == reached
        assert (wire.client.closed is None) == reached
    wire = Wire(connect=False)
    wire.connect(ServerIdentity("example.org", insecure=True))
    assert wire.client.ready


def test_new_certificate_is_for_new_handshakes() -> None:
    wire = Wire()
    made = Authority().issue("localhost")
    wire.server_end.use_certificate(made)
    new = Raw()
    wire.client_end.connect(
        SERVER, ServerIdentity("localhost", certificate_hash=made.sha256), new.attach, wire.now
    )
    wire.run()
    assert new.closed is None
    assert new.quic.peer_certificate == made.certificate
    assert wire.client.engine.peer_certificate == certificate().certificate
    assert wire.client.closed is None
