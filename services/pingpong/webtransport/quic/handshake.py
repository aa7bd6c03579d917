"""Replaces parts of aioquic's TLS with ones that do the same in less time.

A handshake calls them some hundred times. A test compares them with aioquic's own.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic import connection, crypto, packet
from aioquic.quic.packet import (
    PARAMS,
    QuicProtocolVersion,
    QuicTransportParameters,
    QuicVersionInformation,
)
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from .. import varint

_CERTIFICATE = bytes((tls.HandshakeType.CERTIFICATE,))
_NONCE_SIZE = 12
_push_parameters = packet.push_quic_transport_parameters


class PulledBlock:
    """A block that begins with its length, in `capacity` bytes; to be read completely."""

    __slots__ = ("_buffer", "_end", "_size")

    def __init__(self, buf: Buffer, capacity: int) -> None:
        self._buffer = buf
        self._size = int.from_bytes(buf.pull_bytes(capacity))
        self._end = buf.tell() + self._size

    def __enter__(self) -> int:
        return self._size

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        if error is None and self._buffer.tell() != self._end:
            raise tls.AlertDecodeError("extra bytes at the end of a block")


class PushedBlock:
    """A block that begins with its length, in `capacity` bytes, which is written at its end."""

    __slots__ = ("_buffer", "_capacity", "_start")

    def __init__(self, buf: Buffer, capacity: int) -> None:
        self._buffer = buf
        self._capacity = capacity
        self._start = buf.tell() + capacity
        buf.seek(self._start)

    def __enter__(self) -> None:
        pass

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        if error is None:
            buffer, capacity = self._buffer, self._capacity
            end = buffer.tell()
            buffer.seek(self._start - capacity)
            buffer.push_bytes((end - self._start).to_bytes(capacity))
            buffer.seek(end)


def push_extension(buf: Buffer, extension_type: int) -> PushedBlock:
    """An extension (RFC 8446, section 4.2)."""
    buf.push_uint16(extension_type)
    return PushedBlock(buf, 2)


class PushedMessage:
    """A message, whose bytes are added to the hash of the handshake at its end."""

    __slots__ = ("_buffer", "_schedule", "_start")

    def __init__(self, key_schedule: tls.KeySchedule | tls.KeyScheduleProxy, buf: Buffer) -> None:
        self._schedule = key_schedule
        self._buffer = buf
        self._start = buf.tell()

    def __enter__(self) -> None:
        pass

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        if error is None:
            buffer = self._buffer
            self._schedule.update_hash(buffer.data_slice(self._start, buffer.tell()))


def pull_opaque(buf: Buffer, capacity: int) -> bytes:
    """Read bytes after their length."""
    value: bytes = buf.pull_bytes(int.from_bytes(buf.pull_bytes(capacity)))
    return value


def push_opaque(buf: Buffer, capacity: int, value: bytes) -> None:
    """Write bytes after their length."""
    buf.push_bytes(len(value).to_bytes(capacity) + value)


def pull_list(buf: Buffer, capacity: int, func: Callable[[], Any]) -> list[Any]:
    """Read items after their length in bytes, each with `func`. Most are numbers, read at once."""
    size = int.from_bytes(buf.pull_bytes(capacity))
    if func == buf.pull_uint16 and not size & 1:
        return list(struct.unpack(f">{size >> 1}H", buf.pull_bytes(size)))
    items = []
    end = buf.tell() + size
    while buf.tell() < end:
        try:
            items.append(func())
        except tls.SkipItem:
            pass
    if buf.tell() != end:
        raise tls.AlertDecodeError("extra bytes at the end of a block")
    return items


def push_certificate(buf: Buffer, certificate: tls.Certificate) -> None:
    """Write a Certificate message (RFC 8446, section 4.4.2)."""
    context = certificate.request_context
    entries = b"".join(
        len(data).to_bytes(3) + data + len(extensions).to_bytes(2) + extensions
        for data, extensions in certificate.certificates
    )
    body = len(context).to_bytes(1) + context + len(entries).to_bytes(3) + entries
    buf.push_bytes(_CERTIFICATE + len(body).to_bytes(3) + body)


def hkdf_label(label: bytes, hash_value: bytes, length: int) -> bytes:
    """HkdfLabel (RFC 8446, section 7.1)."""
    return _label(label, length, len(hash_value)) + hash_value


@functools.lru_cache(maxsize=64)  # of TLS and QUIC: there are some twenty
def _label(label: bytes, length: int, hash_size: int) -> bytes:
    name = b"tls13 " + label
    return b"".join((length.to_bytes(2), bytes((len(name),)), name, bytes((hash_size,))))


def derive_key_iv_hp(
    *, cipher_suite: tls.CipherSuite, secret: bytes, version: int
) -> tuple[bytes, bytes, bytes]:
    """The keys of packets (RFC 9001, section 5.1): of the AEAD, its nonces, and the header.

    None is longer than the hash, so each is one HMAC with the same key (RFC 5869, section 2.3).
    """
    algorithm, size, (key, iv, header) = _packet_labels(cipher_suite, version)
    first = HMAC(secret, algorithm)
    second, third = first.copy(), first.copy()
    first.update(key)
    second.update(iv)
    third.update(header)
    return first.finalize()[:size], second.finalize()[:_NONCE_SIZE], third.finalize()[:size]


@functools.lru_cache(maxsize=16)  # three cipher suites, two versions
def _packet_labels(
    cipher_suite: tls.CipherSuite, version: int
) -> tuple[HashAlgorithm, int, tuple[bytes, bytes, bytes]]:
    """The hash, the size of keys, and what is hashed for each of them."""
    size = 16 if cipher_suite is tls.CipherSuite.AES_128_GCM_SHA256 else 32
    prefix = b"quicv2 " if version == QuicProtocolVersion.VERSION_2 else b"quic "
    key, iv, header = (
        hkdf_label(prefix + name, b"", length) + b"\1"
        for name, length in ((b"key", size), (b"iv", _NONCE_SIZE), (b"hp", size))
    )
    return tls.cipher_suite_hash(cipher_suite), size, (key, iv, header)


def push_parameters(buf: Buffer, params: QuicTransportParameters) -> None:
    """Write transport parameters (RFC 9000, section 18), without a buffer of 64 KiB for each."""
    if params.preferred_address is not None:
        _push_parameters(buf, params)
        return
    encoded = b""
    for identifier, (name, kind) in PARAMS.items():
        value = getattr(params, name)
        if value is None or value is False:
            continue
        if kind is int:
            encoded += _integer(identifier, value)
            continue
        if kind is QuicVersionInformation:
            versions = (value.chosen_version, *value.available_versions)
            value = b"".join(version.to_bytes(4) for version in versions)
        elif kind is not bytes:
            value = b""
        encoded += varint.encode(identifier) + varint.encode(len(value)) + value
    buf.push_bytes(encoded)


@functools.lru_cache(maxsize=64)  # limits and timeouts, the same for all connections of an endpoint
def _integer(identifier: int, value: int) -> bytes:
    encoded = varint.encode(value)
    return varint.encode(identifier) + varint.encode(len(encoded)) + encoded


def replace() -> None:
    """Have aioquic use them."""
    vars(tls).update(REPLACED)
    crypto.derive_key_iv_hp = derive_key_iv_hp
    vars(connection)["push_quic_transport_parameters"] = push_parameters
    # It is called for each connection and type of frame, with five different texts.
    connection.EPOCHS = functools.lru_cache(maxsize=16)(connection.EPOCHS)


REPLACED: dict[str, Callable[..., Any]] = {
    "hkdf_label": hkdf_label,
    "pull_block": PulledBlock,
    "pull_list": pull_list,
    "pull_opaque": pull_opaque,
    "push_certificate": push_certificate,
    "push_block": PushedBlock,
    "push_extension": push_extension,
    "push_message": PushedMessage,
    "push_opaque": push_opaque,
}
