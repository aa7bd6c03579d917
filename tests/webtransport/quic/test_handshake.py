"""What replaces parts of aioquic's TLS does the same as aioquic's own."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from types import ModuleType

import pytest
from aioquic import tls
from aioquic.buffer import Buffer, BufferReadError  # type: ignore[attr-defined]
from aioquic.quic import connection, crypto
from aioquic.quic.packet import (
    QuicPreferredAddress,
    QuicProtocolVersion,
    QuicTransportParameters,
    QuicVersionInformation,
)

from pingpong.webtransport.quic import handshake
from tests.webtransport.wire import Wire

pytestmark = pytest.mark.aioquic


def original(name: str) -> ModuleType:
    """Another copy of a module of aioquic, without what we replace in it."""
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    copied = f"{name}_copied"
    spec = importlib.util.spec_from_file_location(copied, found.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[copied] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


TLS = original("aioquic.tls")
CRYPTO = original("aioquic.quic.crypto")
PACKET = original("aioquic.quic.packet")


@pytest.mark.parametrize("name", handshake.REPLACED)
def test_it_replaces_something_with_the_same_parameters(name: str) -> None:
    theirs = inspect.signature(getattr(TLS, name)).parameters
    ours = inspect.signature(handshake.REPLACED[name]).parameters
    assert list(ours) == list(theirs)
    assert getattr(tls, name) is handshake.REPLACED[name]


def hello(module: ModuleType) -> bytes:
    buffer = Buffer(capacity=4096)
    module.push_client_hello(
        buffer,
        module.ClientHello(
            random=bytes(32),
            legacy_session_id=b"session",
            cipher_suites=[0x1301, 0x1302],
            legacy_compression_methods=[0],
            alpn_protocols=["h3", "hq"],
            key_share=[(tls.Group.X25519, bytes(range(32)))],
            psk_key_exchange_modes=[1],
            server_name="localhost",
            signature_algorithms=[0x0403],
            supported_groups=[tls.Group.X25519],
            supported_versions=[0x0304],
            other_extensions=[(0x39, b"parameters")],
        ),
    )
    encoded: bytes = buffer.data
    return encoded


def test_messages_are_the_same_bytes() -> None:
    assert hello(tls) == hello(TLS)
    for module in (tls, TLS):
        read = vars(module.pull_client_hello(Buffer(data=hello(TLS))))
        assert read == vars(TLS.pull_client_hello(Buffer(data=hello(TLS))))


def test_truncated_and_overlong_blocks_are_refused_as_by_aioquic() -> None:
    whole = hello(TLS)
    for size in range(4, len(whole)):
        cut = whole[:1] + (size - 4).to_bytes(3) + whole[4:size]
        failures = []
        for module in (tls, TLS):
            with pytest.raises((module.Alert, BufferReadError)) as caught:
                module.pull_client_hello(Buffer(data=cut))
            failures.append((caught.type.__name__, str(caught.value)))
        assert failures[0] == failures[1]


def outcome(module: ModuleType, data: bytes) -> object:
    try:
        return vars(module.pull_client_hello(Buffer(data=data)))
    except (module.Alert, BufferReadError, AssertionError) as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("change", [1, 2, 0x7F, 0xFF])
def test_changed_bytes_are_read_or_refused_as_by_aioquic(change: int) -> None:
    whole = hello(TLS)
    for position in range(1, len(whole)):
        changed = bytearray(whole)
        changed[position] ^= change
        assert outcome(tls, bytes(changed)) == outcome(TLS, bytes(changed))


def test_a_chain_is_the_same_bytes() -> None:
    written = []
    for module in (tls, TLS):
        buffer = Buffer(capacity=4096)
        chain = [(bytes(1000), b""), (b"issuer", b"extension")]
        module.push_certificate(buffer, module.Certificate(b"context", chain))
        written.append(buffer.data)
    assert written[0] == written[1]
    assert vars(tls.pull_certificate(Buffer(data=written[0])))["certificates"] == chain


def test_a_message_is_hashed_when_it_is_complete() -> None:
    class Schedule:
        def __init__(self) -> None:
            self.hashed: list[bytes] = []

        def update_hash(self, data: bytes) -> None:
            self.hashed.append(data)

    for module in (tls, TLS):
        schedule, buffer = Schedule(), Buffer(capacity=64)
        buffer.push_bytes(b"before")
        with module.push_message(schedule, buffer):
            buffer.push_bytes(b"message")
        with pytest.raises(KeyError), module.push_message(schedule, buffer):
            raise KeyError
        assert schedule.hashed == [b"message"]


@pytest.mark.parametrize("size", [0, 1, 255])
def test_labels_are_the_same(size: int) -> None:
    for length in (12, 32, 48):
        value = os.urandom(size)
        ours = handshake.hkdf_label(b"quic key", value, length)
        assert ours == TLS.hkdf_label(b"quic key", value, length)


@pytest.mark.parametrize("suite", tls.CIPHER_SUITES)
@pytest.mark.parametrize("version", QuicProtocolVersion)
def test_keys_are_the_same(suite: tls.CipherSuite, version: int) -> None:
    secret = os.urandom(tls.cipher_suite_hash(suite).digest_size)
    ours, theirs = (
        derive(cipher_suite=suite, secret=secret, version=version)
        for derive in (handshake.derive_key_iv_hp, CRYPTO.derive_key_iv_hp)
    )
    assert ours == theirs
    assert crypto.derive_key_iv_hp is handshake.derive_key_iv_hp


@pytest.mark.parametrize(
    "parameters",
    [
        QuicTransportParameters(),
        QuicTransportParameters(
            original_destination_connection_id=b"original",
            max_idle_timeout=30_000,
            initial_max_data=1 << 24,
            ack_delay_exponent=0,
            disable_active_migration=True,
            version_information=QuicVersionInformation(1, [1, 0x6B3343CF]),
            quantum_readiness=bytes(1200),
        ),
        QuicTransportParameters(
            preferred_address=QuicPreferredAddress(("127.0.0.1", 1), None, b"id", bytes(16))
        ),
    ],
)
def test_transport_parameters_are_the_same(parameters: QuicTransportParameters) -> None:
    ours, theirs = Buffer(capacity=4096), Buffer(capacity=4096)
    vars(connection)["push_quic_transport_parameters"](ours, parameters)
    PACKET.push_quic_transport_parameters(theirs, parameters)
    assert ours.data == theirs.data


def test_keys_of_another_version_are_made_only_when_they_are_used() -> None:
    quic = Wire().server.engine._quic
    keys = quic._cryptos_initial
    # The handshake is over: an Initial packet of either version finds no keys.
    assert keys.keys() == set(QuicProtocolVersion) - {QuicProtocolVersion.NEGOTIATION}
    assert not any(pair.recv.is_valid() for pair in keys.values())
