"""Runs the tests of this folder on both QUIC engines, but those that are about one of them."""

from __future__ import annotations

import pytest

from pingpong.webtransport.quic import engines

ENGINES = ("aioquic", pytest.param("quinn", marks=pytest.mark.quinn))
OF_AIOQUIC = {
    "test_forgotten": "looks into the engine for what is left",
    "test_odd_certificates": "has aioquic's words for them",
    "test_silent_server": "its server is below the interface",
    "test_stderr": "starts processes of its own",
    "test_endpoint": "has an engine of its own",
}
"""Modules of tests that run on aioquic only, with the reason."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    only = metafunc.definition.get_closest_marker("aioquic")
    chosen = ENGINES if module not in OF_AIOQUIC and only is None else ("aioquic",)
    metafunc.parametrize("engine", chosen, indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The QUIC engine of all clients and servers of the test."""
    name: str = request.param
    if name == "quinn" and not engines.is_installed("quinn"):
        pytest.skip("the engine quinn is not installed: make engine")
    monkeypatch.setattr(engines, "automatic", lambda *, server: name)
    return name
