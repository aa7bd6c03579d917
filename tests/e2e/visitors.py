"""Clients of other releases, that ping the server of the release `pingpong`."""

from __future__ import annotations

from tests.e2e.conftest import Install
from tests.e2e.release import Release, Values


def visitor(install: Install, name: str, client: Values) -> Release:
    """One that trusts anybody; `client` are further values of it."""
    common: Values = {
        "targets": ["https://pingpong-server:4433/ping"],
        "settings": {"all": False},
        "tls": {"insecure": True},
    }
    return install({"server": {"enabled": False}, "client": {**common, **client}}, name=name)
