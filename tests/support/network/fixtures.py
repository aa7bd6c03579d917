from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.network.link import Link
from tests.support.network.namespaces import sweep, unavailable


@pytest.fixture(scope="session")
def network() -> None:
    """The test is skipped where no network namespaces can be had."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    sweep()


@pytest.fixture
def link(request: pytest.FixtureRequest, network: None) -> Iterator[Link]:
    """Two hosts and what is between them, with the options that the test is parametrized with."""
    with Link(**getattr(request, "param", {})) as link:
        yield link
