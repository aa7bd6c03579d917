"""What aioquic is made with, for connections in either role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aioquic.quic.configuration import QuicConfiguration

from .config import EndpointConfig, ServerIdentity
from .connection_ids import CONNECTION_ID_SIZE

_VERIFY_NOTHING = 0  # `ssl.CERT_NONE`, without the module


def for_client(config: EndpointConfig, identity: ServerIdentity) -> QuicConfiguration:
    """A client that insists on `identity`. Raises `OSError` where the CA file is unreadable."""
    configuration = _for_any(config, is_client=True)
    configuration.server_name = identity.server_name
    if identity.insecure or identity.certificate_hash is not None:
        configuration.verify_mode = _VERIFY_NOTHING
    elif identity.ca_file is not None or identity.ca_path is not None:
        if identity.ca_file is not None:
            with open(identity.ca_file, "rb"):
                pass  # Here and now, where it can be said; not in the midst of a handshake.
        configuration.load_verify_locations(cafile=identity.ca_file, capath=identity.ca_path)
    return configuration


def for_server(
    config: EndpointConfig, certificate: Any, chain: Sequence[Any], private_key: Any
) -> QuicConfiguration:
    """A server that shows a certificate, of the cryptography package."""
    configuration = _for_any(config, is_client=False)
    configuration.certificate = certificate
    configuration.certificate_chain = list(chain)
    configuration.private_key = private_key
    return configuration


def _for_any(config: EndpointConfig, *, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=["h3"],
        connection_id_length=CONNECTION_ID_SIZE,
        idle_timeout=config.idle_timeout,
        is_client=is_client,
        max_data=config.windows.connection,
        max_stream_data=config.windows.stream,
        max_datagram_frame_size=65_535,
    )
