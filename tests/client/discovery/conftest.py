from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pingpong.client.discovery.hosts import HostsFile, SystemLookups
from pingpong.client.discovery.resolver import Resolver
from tests.client.discovery.finding import Surroundings
from tests.support.kubernetes_api import ApiServer
from tests.support.nameserver import NameServer

MakeResolver = Callable[..., Resolver]


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """The API server of the cluster that this process finds."""
    with ApiServer() as server:
        server.make_found(monkeypatch, tmp_path)
        yield server


@pytest.fixture
def around(names: NameServer, tmp_path: Path) -> Surroundings:
    return Surroundings(names, tmp_path)


@pytest.fixture
def resolver_with(names: NameServer, tmp_path: Path) -> MakeResolver:
    """A resolver that knows this name server only; further lines for its resolv.conf."""

    def make(*lines: str) -> Resolver:
        return Resolver(
            resolv_conf=names.resolv_conf(tmp_path, *lines),
            port=names.port,
            hosts=HostsFile(tmp_path / "hosts"),
            system=SystemLookups(tmp_path / "nsswitch.conf"),
        )

    return make


@pytest.fixture
def resolver(resolver_with: MakeResolver) -> Resolver:
    return resolver_with()
