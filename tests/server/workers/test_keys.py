from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pingpong.server.workers.endpoint import shared_keys
from pingpong.webtransport.certificates import Certificate
from pingpong.webtransport.quic.connection_ids import SharedKeys
from tests.server.workers.groups import HOST, certificate, settings
from tests.support.certificates import Authority


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Settings of a server with files of its own, on a port of its own."""
    path = tmp_path / "pem"
    path.write_bytes(certificate().private_pem())
    return {"tls_cert_file": path, "tls_key_file": path, "bind_port": 4433}


def keys(given: dict[str, Any], shown: Certificate | None = None) -> SharedKeys:
    return shared_keys(settings(**given), shown or certificate())


def test_server_that_is_started_again_comes_to_the_same_keys(given: dict[str, Any]) -> None:
    assert keys(given) == keys(given)
    # Also where the certificate was renewed, for the same key.
    shown = certificate()
    renewed = Certificate(shown.certificate, (shown.certificate,), shown.private_key)
    assert keys(given, renewed) == keys(given)


@pytest.mark.parametrize(
    "changes",
    [
        {"bind_port": 4434},
        {"bind_host": "127.0.0.2"},
        {"bind_port": 0},
        {"tls_cert_file": None, "tls_key_file": None},
    ],
)
def test_another_server_has_others(given: dict[str, Any], changes: dict[str, Any]) -> None:
    one, other = keys(given), keys({**given, **changes})
    assert {one.retry, one.reset} & {other.retry, other.reset} == set()


def test_another_private_key_makes_others(given: dict[str, Any]) -> None:
    other = Authority().issue(HOST)
    assert keys(given, other) != keys(given)


def test_another_machine_makes_others(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods that share a certificate are no predecessors of each other."""
    here = keys(given)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-pod")
    assert keys(given) != here


@pytest.mark.parametrize("changes", [{"bind_port": 0}, {"tls_key_file": None}])
def test_keys_are_random_without_a_key_file_or_a_fixed_port(
    given: dict[str, Any], changes: dict[str, Any]
) -> None:
    if "tls_key_file" in changes:
        changes["tls_cert_file"] = None
    assert keys({**given, **changes}) != keys({**given, **changes})
