"""A certificate authority, what it issues, and the ways in which that comes into files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pingpong.server.tls.certificate import Certificate

_HOUR = timedelta(hours=1)


class Authority:
    """Issues certificates, which a client trusts that was given `file`."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        made = (
            self._builder(self._name, self._key, _HOUR, 24 * _HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(made.public_bytes(Encoding.PEM))

    def issue(
        self, *hosts: str, since: timedelta = _HOUR, until: timedelta = 24 * _HOUR
    ) -> Certificate:
        """A certificate for names and addresses, valid since so long ago until so far ahead."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        made = (
            self._builder(name, key, since, until)
            .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(made, (), key)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        since: timedelta,
        until: timedelta,
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - since)
            .not_valid_after(now + until)
        )


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def private_key(certificate: Certificate) -> bytes:
    """The key's PEM."""
    return certificate.private_pem().removeprefix(certificate.pem())


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
        (self.folder / "tls.key").write_bytes(private_key(certificate))

    def rename_over(self, certificate: Certificate) -> None:
        """As a careful program does it: other files take the names."""
        for name, data in (("tls.crt", certificate.pem()), ("tls.key", private_key(certificate))):
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
