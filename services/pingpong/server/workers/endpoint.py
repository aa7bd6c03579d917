"""A worker's endpoint: how the settings configure it, its keys, and why it cannot be had."""

from __future__ import annotations

import errno
import socket
from socket import AF_INET, AF_INET6

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ...settings import ServeSettings
from ...settings.command_line import named
from ...webtransport import Address, SharedKeys, Windows
from ...webtransport.asyncio import EndpointConfig
from ...webtransport.certificates import Certificate
from ..resources import BUFFERED, MOST_CONNECTIONS

_VALIDATED = 2
"""Times as many handshakes may be unfinished where the client has proved its address."""
_FEW_HANDSHAKES = 50
_MOST_HANDSHAKES = 512
"""Of all workers together, unless the settings ask for more: 46 MB. The more there are, the longer
a client has for its handshake while others begin theirs, a thousand a second perhaps."""
_LEAST_BUFFERED = 16 << 20
_MOST_BUFFERED = 64 << 20
"""Bytes that a worker's connections keep at most, of messages and of answers."""


def endpoint_config(
    settings: ServeSettings, certificate: Certificate, workers: int = 1
) -> EndpointConfig:
    """The configuration of a worker's QUIC endpoint; `settings` has that worker's share of limits.

    Each session takes a stream beside those that it opens, its CONNECT stream. Unfinished
    handshakes count as connections: they take half of these, or what `max_handshakes` asks for.
    """
    max_connections = settings.max_connections or MOST_CONNECTIONS
    return EndpointConfig(
        certificate=certificate,
        idle_timeout=settings.idle_timeout,
        max_connections=max_connections,
        max_handshakes=settings.max_handshakes,
        max_validated_handshakes=max(
            _FEW_HANDSHAKES,
            _VALIDATED * settings.max_handshakes,
            min(_MOST_HANDSHAKES // workers, max_connections // 2),
        ),
        max_buffered=min(_MOST_BUFFERED, max(_LEAST_BUFFERED, max_connections * BUFFERED)),
        windows=Windows(
            streams_bidi=settings.max_streams + settings.max_sessions,
            streams_uni=settings.max_streams + 8,
        ),
    )


def shared_keys(settings: ServeSettings, certificate: Certificate) -> SharedKeys:
    """Keys for a server with these settings.

    A server that succeeds this one on the same port of the same machine, with the same private
    key from a file, gets the same keys: its stateless resets then end the clients' connections
    to this one at once.
    """
    if settings.tls_key_file is None or not settings.bind_port:
        return SharedKeys()
    purpose = f"{socket.gethostname()} {settings.bind_host} {settings.bind_port}"
    secret = certificate.private_key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    return SharedKeys.derive(secret, purpose)


def loopback(address: Address) -> list[tuple[int, Address]]:
    """Where this machine reaches a socket that is bound to `address`."""
    host, port = address[:2]
    if host == "::":
        return [(AF_INET6, ("::1", port, 0, 0)), (AF_INET, ("127.0.0.1", port))]
    if host == "0.0.0.0":
        return [(AF_INET, ("127.0.0.1", port))]
    return [(AF_INET6 if ":" in host else AF_INET, address)]


def listen_failure(settings: ServeSettings, error: OSError) -> str:
    """Why the port cannot be had, and what to do."""
    where = f"UDP port {settings.bind_port} of {settings.bind_host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another with {named('bind_port')}, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{where} needs more rights: choose one above 1023 with {named('bind_port')}"
    text = error.strerror or str(error)
    return f"cannot listen on {where}: {text}; see {named('bind_host')}, {named('bind_port')}"
