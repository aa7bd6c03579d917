from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.apiserver import ApiServer
from tests.client.discovery.finding import Surroundings
from tests.client.nameserver import NameServer


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def around(names: NameServer, tmp_path: Path) -> Surroundings:
    return Surroundings(names, tmp_path)
