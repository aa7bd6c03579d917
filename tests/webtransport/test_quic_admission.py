"""Who gets a connection: versions, limits, Retry, certificates."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicErrorCode, QuicPacketType, QuicProtocolVersion, pull_quic_header

from pingpong.server.tls import make_certificate
from pingpong.webtransport.config import ServerIdentity
from pingpong.webtransport.quic_endpoint import (
    CONNECTION_ID_SIZE,
)
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


def test_client_that_finds_no_common_version_is_told() -> None:
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


@pytest.mark.parametrize("what", ["valid", "invalid", "truncated", "expired", "address", "id"])
def test_retry_token_is_good_for_its_address_id_and_half_a_minute(what: str) -> None:
    wire = Wire(connect=False, max_handshakes=0)
    token, destination, packet = retry(wire)
    address, now = CLIENT, 1_000.0
    if what == "invalid":
        token = os.urandom(len(token))
    elif what == "truncated":
        token = token[:5]
    elif what == "expired":
        now += 31
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


def test_client_hears_that_its_token_is_invalid() -> None:
    wire = Wire(raw_client=True, connect=False, max_handshakes=0)
    wire.server_end._retry.validate_token = fails  # type: ignore[method-assign]
    wire.connect()
    assert wire.raw.closed is not None
    assert wire.raw.closed.code == QuicErrorCode.INVALID_TOKEN
    assert wire.raw.closed.by_peer


def fails(**kwargs: object) -> bytes:
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


def test_unfinished_handshakes_are_given_up() -> None:
    wire = Wire(connect=False, idle_timeout=2.0)
    for _ in range(3):
        hand_over(wire.server_end, first_packet(), OTHER)
    wire.client_end.transmit(wire.now)
    assert len(wire.server_end) == wire.server_end.unfinished_handshakes == 3
    wire.lose = lambda packet, to_server: not to_server
    wire.run(30)
    assert len(wire.server_end) == wire.server_end.unfinished_handshakes == 0
    assert wire.server_end.counters.handshake_failures == 3
    assert wire.server_end._routes == {}
    assert wire.server_end._timer_owners == {}


def test_client_without_h3_is_refused() -> None:
    wire = Wire(raw_client=True, connect=False)
    configure = wire.client_end._configuration

    def other(*, is_client: bool) -> QuicConfiguration:
        configuration = configure(is_client=is_client)
        configuration.alpn_protocols = ["hq-interop"]
        return configuration

    wire.client_end._configuration = other  # type: ignore[method-assign]
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
    now = datetime.datetime.now(datetime.UTC)
    bad.write_bytes(make_certificate(["localhost"], now).pem())
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
    with pytest.raises(OSError, match="nowhere"):
        wire.connect(ServerIdentity("localhost", ca_file="nowhere"))
    assert len(wire.client_end) == 0
    wire.connect(ServerIdentity("example.org", insecure=True))
    assert wire.client.ready


def test_new_certificate_is_for_new_handshakes() -> None:
    wire = Wire()
    made = make_certificate(["localhost"], datetime.datetime.now(datetime.UTC))
    wire.server_end.use_certificate(made.certificate, made.chain, made.private_key)
    new = Raw()
    wire.client_end.connect(
        SERVER, ServerIdentity("localhost", certificate_hash=made.sha256), new.attach, wire.now
    )
    wire.run()
    assert new.closed is None
    assert new.quic.peer_certificate == made.certificate
    assert wire.client.engine.peer_certificate == certificate().certificate
    assert wire.client.closed is None
