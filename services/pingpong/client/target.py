"""Makes a target from a URL and the settings."""

from __future__ import annotations

import socket

from ..settings import PingSettings, ProbeSettings
from ..webtransport.asyncio import Target


def target_of(url: str, settings: PingSettings | ProbeSettings) -> Target:
    """The target of a URL. Raises `ValueError` if it is not an https URL."""
    family = socket.AF_UNSPEC
    if isinstance(settings, PingSettings):
        if settings.ipv4:
            family = socket.AF_INET
        elif settings.ipv6:
            family = socket.AF_INET6
    return Target.from_url(
        url,
        ca_file=None if settings.ca is None else str(settings.ca),
        certificate_hash=settings.cert_hash,
        insecure=settings.insecure,
        family=family,
    )
