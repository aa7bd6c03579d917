from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pingpong.server.tls.certificate import Certificate, make_certificate


@pytest.fixture(scope="session")
def certificate() -> Certificate:
    return make_certificate(["localhost", "127.0.0.1"], datetime.datetime.now(datetime.UTC))


@pytest.fixture(scope="session")
def certificate_files(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.pem())
    key.write_bytes(
        certificate.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return cert, key
