"""A certificate authority, and what it issues: what people put into Secrets, or cert-manager does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BACKDATED = timedelta(minutes=5)
_DIGITAL_SIGNATURE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its chain and its key, in PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    not_after: float
    """Seconds since 1970, as metrics have it."""

    def secret(self, authorities: bytes) -> dict[str, bytes]:
        """The data of a Secret of the type `kubernetes.io/tls`, with those to trust beside it."""
        return {"tls.crt": self.chain, "tls.key": self.key, "ca.crt": authorities}


class Authority:
    """Issues certificates; `pem` is for those who trust it."""

    def __init__(self, name: str, *, issuer: Authority | None = None) -> None:
        """An authority of its own, or one that `issuer` vouches for."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        above = issuer or self
        made = (
            above._builder(self._name, self._key, timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(above._key, hashes.SHA256())
        )
        self.pem = made.public_bytes(Encoding.PEM)
        # The certificates between a leaf and the one that is trusted.
        self._between: bytes = b"" if issuer is None else self.pem + issuer._between

    def issue(
        self, names: Sequence[str], addresses: Sequence[str] = (), *, days: float = 30
    ) -> Issued:
        """A server's certificate for DNS names and IP addresses, with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([])
        made = (
            self._builder(subject, key, timedelta(days=days))
            .add_extension(
                x509.SubjectAlternativeName(_alternative_names(names, addresses)), critical=True
            )
            .add_extension(_DIGITAL_SIGNATURE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            chain=made.public_bytes(Encoding.PEM) + self._between,
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            not_after=made.not_valid_after_utc.timestamp(),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        public = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + valid)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )


def _alternative_names(names: Iterable[str], addresses: Iterable[str]) -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(name) for name in names),
        *(x509.IPAddress(ip_address(address)) for address in addresses),
    ]
