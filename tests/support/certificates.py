"""Certificates for tests: of an authority, self-signed, odd ones, and how they come into files."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pingpong.webtransport.asyncio import EndpointConfig
from pingpong.webtransport.certificates import Certificate, make_certificate, parse_certificate

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@functools.cache
def self_signed(*hosts: str) -> Certificate:
    """As a server without files has it: one for each choice of hosts, since keys are slow."""
    return make_certificate(hosts or ("localhost", "127.0.0.1"), datetime.now(UTC))


@dataclass(frozen=True)
class Leaf(Certificate):
    """A certificate of an authority, and whom to trust for it."""

    authority_pem: bytes = field(repr=False)

    def config(self, **options: Any) -> EndpointConfig:
        """With which an endpoint shows it."""
        return EndpointConfig(
            certificate=self,
            **options,
        )

    def secret(self, authorities: bytes) -> dict[str, bytes]:
        """The data of a Secret of the type `kubernetes.io/tls`, with those to trust beside it."""
        return {"tls.crt": self.pem(), "tls.key": self.key_pem(), "ca.crt": authorities}


class Authority:
    """Issues certificates; `pem` is for those who trust it, also as a `file` in a folder."""

    def __init__(self, folder: Path | None = None, *, issuer: Authority | None = None) -> None:
        """An authority of its own, or one below `issuer`, which is the one to trust."""
        self._ca: trustme.CA = issuer._ca.create_child_ca() if issuer else trustme.CA()
        self.pem: bytes = issuer.pem if issuer else self._ca.cert_pem.bytes()
        if folder is not None:
            self.file = folder / "ca.pem"
            self.file.write_bytes(self.pem)

    def issue(self, *hosts: str, begins: timedelta = -HOUR, ends: timedelta = DAY) -> Leaf:
        """A certificate for names and addresses; its times are seen from now."""
        now = datetime.now(UTC)
        made = self._ca.issue_cert(*hosts, not_before=now + begins, not_after=now + ends)
        chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
        parsed = parse_certificate(chain, made.private_key_pem.bytes(), "chain", "key")
        return Leaf(parsed.certificate, parsed.chain, parsed.private_key, self.pem)

    def issue_odd(self, alternatives: x509.ExtensionType) -> Leaf:
        """A certificate with an extension in place of its alternative names."""
        plain = self.issue("localhost")
        builder = (
            x509.CertificateBuilder()
            .subject_name(plain.certificate.subject)
            .issuer_name(plain.certificate.issuer)
            .public_key(plain.certificate.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(plain.not_before)
            .not_valid_after(plain.not_after)
            .add_extension(alternatives, critical=False)
        )
        for each in plain.certificate.extensions:
            if each.oid not in (x509.SubjectAlternativeName.oid, alternatives.oid):
                builder = builder.add_extension(each.value, each.critical)
        key = load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        odd = builder.sign(key, hashes.SHA256())
        return Leaf(odd, (), plain.private_key, self.pem)


@dataclass(frozen=True)
class Pair:
    """A certificate's file and its key's, in a folder."""

    folder: Path

    @property
    def settings(self) -> dict[str, Path]:
        """With which a server has them."""
        return {"tls_cert_file": self.folder / "tls.crt", "tls_key_file": self.folder / "tls.key"}

    def write_in_place(self, certificate: Certificate) -> None:
        """As a shell's redirection does it: first one file, then the other."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "tls.crt").write_bytes(certificate.pem())
        (self.folder / "tls.key").write_bytes(certificate.key_pem())

    def rename_over(self, certificate: Certificate) -> None:
        """As a careful program does it: other files take the names."""
        for name, data in (("tls.crt", certificate.pem()), ("tls.key", certificate.key_pem())):
            new = self.folder / f"{name}.new"
            new.write_bytes(data)
            new.rename(self.folder / name)

    def swap_link(self, certificate: Certificate) -> None:
        """As kubelet does it with a Secret: the link `..data` leads to another folder."""
        self.folder.mkdir(exist_ok=True)
        version = self.folder / f"..{certificate.sha256.hex()[:12]}"
        Pair(version).write_in_place(certificate)
        new = self.folder / "..data_tmp"
        new.symlink_to(version.name)
        new.rename(self.folder / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
