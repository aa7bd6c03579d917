from __future__ import annotations

from pathlib import Path

import pytest

from pingpong.webtransport.certificates import Certificate
from tests.support.certificates import self_signed


@pytest.fixture(scope="session")
def certificate() -> Certificate:
    return self_signed()


@pytest.fixture(scope="session")
def certificate_files(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.pem())
    key.write_bytes(certificate.key_pem())
    return cert, key
