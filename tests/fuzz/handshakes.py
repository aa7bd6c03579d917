"""TLS messages and transport parameters of a hostile peer, each input a connection of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from aioquic import tls
from aioquic.buffer import BufferReadError, BufferWriteError  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.crypto import CryptoPair
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pingpong.webtransport import varint
from pingpong.webtransport.quic.aioquic import HookedConnection
from pingpong.webtransport.quic.config import Engine, Windows
from pingpong.webtransport.quic.connection_ids import ConnectionIds
from tests.fuzz.arena import HOSTILE, Arena, Finding
from tests.fuzz.source import Source
from tests.webtransport.wire import certificate

_FORGET_EVERY = 64
"""Inputs after which time passes, until nothing of them may be left."""
_WHOLE_EVERY = 64
"""Acceptable transport parameters are tried in a whole connection once in so many."""
_INTEGERS = (*range(0x03, 0x0C), 0x01, 0x0E, 0x20)
_EMPTY = (0x0C, 0x1D, 0x17F7586D2CB571)


# Transport parameters.


def parameters(source: Source, own_id: bytes, original_id: bytes | None) -> bytes:
    """Transport parameters of a client, or (with `original_id`) of a server."""
    chosen: list[tuple[int, bytes]] = [
        (0x0F, own_id),
        (0x04, varint.encode(1 << 20)),
        (0x05, varint.encode(1 << 18)),
        (0x06, varint.encode(1 << 18)),
        (0x07, varint.encode(1 << 18)),
        (0x08, varint.encode(100)),
        (0x09, varint.encode(100)),
        (0x20, varint.encode(65_535)),
        (0x1D, b""),
    ]
    if original_id is not None:
        chosen.append((0x00, original_id))
    for _ in range(source.below(6)):
        kind = source.pick((*_INTEGERS, *_INTEGERS, *_EMPTY, 0x00, 0x02, 0x0D, 0x10, 0x11))
        if kind in _INTEGERS:
            value = source.varint()
        elif kind in _EMPTY:
            value = b"x" if source.error(8) else b""
        elif kind == 0x0D:
            value = source.take(24).ljust(24, b"\1") + b"\x08" + bytes(24)
        elif kind == 0x11:
            value = b"\0\0\0\1" * (1 + source.below(3))
        else:
            value = source.take(20)
        if source.error(16):
            value += source.take(4)
        chosen = [one for one in chosen if one[0] != kind or source.chance(16)]
        chosen.insert(source.below(len(chosen) + 1), (kind, value))
    data = b"".join(
        source.varint(kind) + source.varint(len(value)) + value for kind, value in chosen
    )
    return source.damaged(data) if source.error(12) else data


@functools.cache
def _configuration(is_client: bool) -> QuicConfiguration:
    made = certificate()
    return QuicConfiguration(
        alpn_protocols=["h3"],
        connection_id_length=8,
        is_client=is_client,
        certificate=None if is_client else made.certificate,
        private_key=None if is_client else made.private_key,
        max_datagram_frame_size=65_535,
    )


class Parameters:
    """Transport parameters to a client or a server, `role`: read, and sometimes lived with."""

    def __init__(self, role: str, engine: Engine = "aioquic") -> None:
        self.role = role
        self.engine: Engine = engine
        self.history: list[bytes] = []
        self._ids = ConnectionIds(bytes(32))
        self._accepted = 0

    def reset(self) -> None:
        """Nothing is kept between inputs."""

    def run(self, data: bytes) -> None:
        self.history = [data]
        if self.engine != "aioquic":
            self.live(data)
            return
        is_client = self.role == "client"
        kwargs = {} if is_client else {"original_destination_connection_id": bytes(8)}
        quic = HookedConnection(_configuration(is_client), Windows(), self._ids, **kwargs)
        quic._remote_initial_source_connection_id = b"\1" * 8
        original = quic._original_destination_connection_id if is_client else None
        # What the version information is compared with, at the beginning of a connection.
        quic._crypto_packet_version = 1
        quic._peer_cid.sequence_number = 0
        try:
            quic._parse_transport_parameters(parameters(Source(data), b"\1" * 8, original))
        except (QuicConnectionError, BufferReadError):
            return
        self._accepted += 1
        if self._accepted % _WHOLE_EVERY == 0 or data[:1] == b"\xff":
            self.live(data)

    def live(self, data: bytes) -> None:
        """A whole connection with a peer of these parameters."""
        arena = Arena(self.role, self.engine)

        def serialize(quic: HookedConnection) -> bytes:
            if quic._is_client == (self.role == "client"):
                return genuine(quic)
            original = None if quic._is_client else quic._original_destination_connection_id
            return parameters(Source(data), quic._local_initial_source_connection_id, original)

        genuine = HookedConnection._serialize_transport_parameters
        with patch.object(HookedConnection, "_serialize_transport_parameters", serialize):
            try:
                hostile = arena.open()
            except AssertionError as error:
                if isinstance(error, Finding):
                    raise
                hostile = None  # No session comes of it: which is for the victim to decide.
            except BufferWriteError:
                return  # There is no room for them in a handshake message.
        for _ in range(30):
            if hostile is not None and arena.closed is None:
                arena.receive(hostile.packet(b"\x01" + hostile.honest_ack()))
                if arena.client is not None:
                    arena.client.try_to_ping("datagram")
            sent = arena.transmit()
            if hostile is not None:
                hostile.take(sent.get(HOSTILE, []))
            arena.pass_time(0.2)
        arena.check_others()
        arena.forget()


# A ClientHello.

_RANDOM = bytes(range(32))


@functools.cache
def _keys() -> dict[int, bytes]:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {
        0x001D: x25519.X25519PrivateKey.generate().public_key().public_bytes_raw(),
        0x0017: point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    }


def _block(data: bytes, size: int) -> bytes:
    return (len(data) & ((1 << 8 * size) - 1)).to_bytes(size, "big") + data


def _u16s(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def client_hello(source: Source, own_id: bytes) -> bytes:
    """A ClientHello of TLS 1.3 with some changes, as bytes of the CRYPTO stream."""

    def some(values: list[int]) -> list[int]:
        return (
            values if not source.error(8) else [source.below(1 << 16), *values][: source.below(4)]
        )

    shares = b""
    for group, key in _keys().items():
        if source.chance(3):
            continue
        if source.error(8):
            key = source.pick(
                (bytes(len(key)), b"\xff" * len(key), key[:-1], b"", b"\4" + bytes(64))
            )
        shares += _u16s([group]) + _block(key, 2)
    name = b"localhost"
    if source.chance(4):
        name = source.pick((b"127.0.0.1", b"a" * 255, b"a\0b", b"xn--", b"", b"\xff\xfe"))
    protocols = [b"h3"]
    if source.error(8):
        protocols = source.pick(([b"h2", b"h3"], [b"\xff"], [b""], [b"x" * 255], []))
    identity = _block(source.take(40), 2) + bytes(4)
    extensions: list[tuple[int, bytes]] = [
        (0, _block(b"\0" + _block(name, 2), 2)),
        (10, _block(_u16s(some([0x001D, 0x0017])), 2)),
        (13, _block(_u16s(some([0x0403, 0x0804, 0x0807])), 2)),
        (16, _block(b"".join(_block(one, 1) for one in protocols), 2)),
        (43, _block(_u16s(some([0x0304])), 1)),
        (45, _block(bytes((source.pick((1, 1, 0)),)), 1)),
        (51, _block(shares, 2)),
        (0x39, parameters(source, own_id, None)),
    ]
    for _ in range(source.below(4) if source.error(2) else 0):
        at = source.below(len(extensions) + 1)
        kind = source.byte() % 5
        if kind == 0:
            extensions.insert(
                at, (source.pick((42, 44, 0x15, 57, source.below(1 << 16))), source.take(20))
            )
        elif kind == 1:
            del extensions[at : at + 1]
        elif kind == 2 and at < len(extensions):
            extensions[at] = (extensions[at][0], source.damaged(extensions[at][1]))
        elif kind == 3:
            extensions = extensions[at:] + extensions[:at]
        else:
            extensions.append((41, _block(identity, 2) + _block(_block(source.take(48), 1), 2)))
    body = (
        (source.pick((b"\3\4", b"\0\0")) if source.error(16) else b"\3\3")
        + _RANDOM
        + _block(source.take(33) if source.error(16) else b"", 1)
        + _block(_u16s(some([0x1301, 0x1302, 0x1303])), 2)
        + (source.pick((b"\0", b"\2\1\0")) if source.error(16) else b"\1\0")
        + _block(b"".join(_u16s([kind]) + _block(data, 2) for kind, data in extensions), 2)
    )
    if source.error(8):
        body = source.damaged(body)
    kind = source.pick((2, 11, 20, 24, 0)) if source.error(16) else 1
    message = bytes((kind,)) + _block(body, 3)
    if source.chance(16):
        message += message if source.chance(2) else source.take(40)
    return message


class _Fresh:
    """Base of targets of which each input makes a connection."""

    def __init__(self, role: str, engine: Engine = "aioquic") -> None:
        self.role = role
        self.engine: Engine = engine
        self.history: list[bytes] = []
        self._arena: Arena | None = None
        self._count = 0

    @property
    def cpu(self) -> int:
        """Nanoseconds that the victim has worked."""
        return 0 if self._arena is None else self._arena.cpu

    def reset(self) -> None:
        """Begin again, with another victim."""
        self._arena = None

    def run(self, data: bytes) -> None:
        """Have one connection, which ends however it ends."""
        self.history = [data]
        if self._arena is None:
            self._arena = Arena(self.role, self.engine)
        self.attack(self._arena, Source(data))
        self._count += 1
        if self._count % _FORGET_EVERY == 0:
            self._arena.forget()
            self._arena.check_others()

    def attack(self, arena: Arena, source: Source) -> None:
        raise NotImplementedError


class Hello(_Fresh):
    """A ClientHello in Initial packets."""

    def __init__(self, engine: Engine = "aioquic") -> None:
        super().__init__("server", engine)

    def attack(self, arena: Arena, source: Source) -> None:
        dcid = self._count.to_bytes(8, "big")
        crypto = CryptoPair()
        crypto.setup_initial(cid=dcid, is_client=True, version=1)
        message = client_hello(source, b"\2" * 8)
        position = number = 0
        while position < len(message) and number < 16:
            size = 1 + source.below(1_000) if source.chance(8) else 1_100
            piece = message[position : position + size]
            frame = b"\6" + varint.encode(position) + varint.encode(len(piece)) + piece
            position += size
            arena.receive(_initial(crypto, dcid, b"\2" * 8, frame, number))
            number += 1
        arena.transmit()
        arena.pass_time(0.01)


def _initial(crypto: CryptoPair, dcid: bytes, scid: bytes, frames: bytes, number: int) -> bytes:
    head = b"\xc1\0\0\0\1" + _block(dcid, 1) + _block(scid, 1) + b"\0"
    room = 1200 - len(head) - 2 - 2 - 16
    frames = frames.ljust(room, b"\0")
    length = (0x4000 | 2 + len(frames) + 16).to_bytes(2, "big")
    return bytes(crypto.encrypt_packet(head + length + number.to_bytes(2, "big"), frames, number))


# What a server answers.


class Flight(_Fresh):
    """The handshake messages of a hostile server, changed on their way to the client.

    Or, with role `server`, those of a hostile client, Finished and what may follow.
    """

    def attack(self, arena: Arena, source: Source) -> None:
        with _changed(source, is_client=self.role == "server"):
            arena.begin()
            arena.settle(evil=True)
        arena.pass_time(0.01)
        arena.transmit()
        arena.close()
        arena.client = None


@contextmanager
def _changed(source: Source, *, is_client: bool) -> Iterator[None]:
    """Handshake messages of endpoints in a role are changed before they are sent."""
    genuine = HookedConnection._push_crypto_data

    def push(quic: HookedConnection) -> None:
        if quic._is_client == is_client:
            for epoch, buffer in quic._crypto_buffers.items():
                data = buffer.data
                if data:
                    quic._crypto_streams[epoch].sender.write(changed_messages(source, data))
                    buffer.seek(0)
        genuine(quic)

    with patch.object(HookedConnection, "_push_crypto_data", push):
        yield


def changed_messages(source: Source, data: bytes) -> bytes:
    """Handshake messages with a change in one, or of their order."""
    messages = []
    while len(data) >= 4:
        end = 4 + int.from_bytes(data[1:4], "big")
        messages.append((data[0], data[4:end]))
        data = data[end:]
    at = source.below(len(messages) + 1)
    kind = source.byte() % 8
    if kind < 4 and at < len(messages):
        name, body = messages[at]
        if kind < 3:
            changed = bytearray(body)
            for _ in range(1 + source.below(3) if body else 0):
                changed[source.below(len(body))] = source.byte()
            body = bytes(changed)
        else:
            body = source.damaged(body)
        messages[at] = (name, body)
    elif kind == 4:
        del messages[at : at + 1]
    elif kind == 5:
        messages.insert(at, (source.pick(list(tls.HandshakeType)), source.take(64)))
    elif kind == 6:
        messages = messages[at:] + messages[:at]
    return b"".join(bytes((name,)) + _block(body, 3) for name, body in messages)
