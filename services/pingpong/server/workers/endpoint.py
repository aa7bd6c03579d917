"""A worker's endpoint: its configuration, its keys, and errors of its socket."""

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
"""The factor for unfinished handshakes of clients with a validated address."""
_FEW_HANDSHAKES = 50
_MOST_HANDSHAKES = 512
"""Of all workers together, unless the settings have more: 46 MB. With more, a client has more time
to complete its handshake while others begin theirs, perhaps a thousand a second."""
_LEAST_BUFFERED = 16 << 20
_MOST_BUFFERED = 64 << 20
"""Bytes that the connections of a worker may buffer."""


def endpoint_config(
    settings: ServeSettings, certificate: Certificate, workers: int = 1
) -> EndpointConfig:
    """The configuration of a worker's QUIC endpoint; `settings` has the worker's share of limits.

    Each session needs a CONNECT stream besides its own streams. Unfinished handshakes count as
    connections: they may take half of these, or more by `max_handshakes`.
    """
    max_connections = settings.max_connections or MOST_CONNECTIONS
    return EndpointConfig(
        certificate=certificate,
        engine=settings.engine,
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

    A restarted server on the same port of the same machine, with the same private key file, gets
    the same keys. So its stateless resets end the connections of its predecessor at once.
    """
    if settings.tls_key_file is None or not settings.bind_port:
        return SharedKeys()
    purpose = f"{socket.gethostname()} {settings.bind_host} {settings.bind_port}"
    secret = certificate.private_key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    return SharedKeys.derive(secret, purpose)


def loopback(address: Address) -> list[tuple[int, Address]]:
    """The loopback addresses of a socket that is bound to `address`."""
    host, port = address[:2]
    if host == "::":
        return [(AF_INET6, ("::1", port, 0, 0)), (AF_INET, ("127.0.0.1", port))]
    if host == "0.0.0.0":
        return [(AF_INET, ("127.0.0.1", port))]
    return [(AF_INET6 if ":" in host else AF_INET, address)]


def listen_failure(settings: ServeSettings, error: OSError) -> str:
    """The text of a bind error, and what to try."""
    where = f"UDP port {settings.bind_port} of {settings.bind_host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another port with {named('bind_port')}, or 0 for any free port"
    if error.errno == errno.EACCES:
        return f"{where} is privileged: choose a port above 1023 with {named('bind_port')}"
    text = error.strerror or str(error)
    return f"cannot listen on {where}: {text}; see {named('bind_host')}, {named('bind_port')}"
