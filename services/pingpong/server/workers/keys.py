"""What the workers of a server, and those that take its place after it, have to agree on."""

from __future__ import annotations

import socket

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ...settings import ServeSettings
from ...webtransport import SharedKeys
from ..tls.certificate import Certificate


def shared_keys(settings: ServeSettings, certificate: Certificate) -> SharedKeys:
    """Keys for a server with these settings.

    Where it can be known that another one takes its place on the same port of the same machine,
    with the same private key from a file, they are the same: that one's stateless resets then
    tell the clients at once that their connections are gone.
    """
    if settings.tls_key_file is None or not settings.bind_port:
        return SharedKeys()
    place = f"{socket.gethostname()} {settings.bind_host} {settings.bind_port}"
    secret = certificate.private_key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    return SharedKeys.derive(secret, place)
