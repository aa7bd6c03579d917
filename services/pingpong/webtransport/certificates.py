"""Parses and makes certificates with their keys, and certificate authorities.

Browsers accept a self-signed certificate by its SHA-256 if it is ECDSA and valid for at most two
weeks (W3C WebTransport, section "Custom certificate verification"). Nothing here reads a file or a
clock.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import WebTransportError
from .hosts import ascii_host

__all__ = [
    "Certificate",
    "CertificateError",
    "PrivateKey",
    "alternative_names",
    "make_authority",
    "make_certificate",
    "parse_certificate",
    "unreadable",
]

PrivateKey: TypeAlias = (
    ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | rsa.RSAPrivateKey
)

BACKDATED = timedelta(hours=1)  # for clients whose clock is behind
VALID = timedelta(days=13)
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


class CertificateError(WebTransportError):
    """A certificate or key that cannot be used; the text is one line that says what to do."""


@dataclass(frozen=True)
class Certificate:
    """A certificate, the certificates between it and its authority, and its private key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = field(repr=False, compare=False)

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of the certificate's DER encoding, as ``serverCertificateHashes`` has it."""
        return self.certificate.fingerprint(hashes.SHA256())

    @property
    def fingerprint(self) -> str:
        """The SHA-256 as text: upper-case hex with colons, as OpenSSL prints it."""
        return self.sha256.hex(":").upper()

    @property
    def not_before(self) -> datetime:
        """The start of its validity, with a time zone."""
        return self.certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """The end of its validity, with a time zone."""
        return self.certificate.not_valid_after_utc

    @property
    def names(self) -> set[x509.GeneralName]:
        """Its subject alternative names."""
        kind = x509.SubjectAlternativeName
        try:
            return set(self.certificate.extensions.get_extension_for_class(kind).value)
        except (x509.ExtensionNotFound, ValueError):
            return set()

    def is_due(self, now: datetime) -> bool:
        """Whether to replace it: less than a third of its validity is left.

        Also before its start, if the clock was wrong when it was made.
        """
        start, end = self.not_before, self.not_after
        return not start <= now <= end - (end - start) / 3

    def warning(self, now: datetime) -> str | None:
        """Why it is not valid at ``now`` (with a time zone), and what to do; None if it is."""
        if now > self.not_after:
            return (
                f"the certificate expired at {self.not_after.isoformat()}: clients that verify it"
                " will refuse it; renew it"
            )
        if now < self.not_before:
            return (
                f"the certificate is not valid before {self.not_before.isoformat()}: clients that"
                " verify it will refuse it; check this machine's clock"
            )
        return None

    def pem(self) -> bytes:
        """The certificate and its chain in PEM, without the key."""
        encoding = serialization.Encoding.PEM
        return b"".join(cert.public_bytes(encoding) for cert in (self.certificate, *self.chain))

    def key_pem(self) -> bytes:
        """The private key in PEM: a secret."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def private_pem(self) -> bytes:
        """The certificate, its chain and its key in PEM: a secret.

        `parse_certificate` reads it, passed as both files.
        """
        return self.pem() + self.key_pem()


def make_certificate(
    hosts: Sequence[str],
    now: datetime,
    valid: timedelta = VALID,
    authority: Certificate | None = None,
) -> Certificate:
    """Make an ECDSA P-256 certificate for names and addresses, self-signed or by an authority.

    It is valid from an hour before ``now`` (with a time zone) until ``valid`` after it. Browsers
    accept a certificate by its hash only when that is 14 days altogether or less.

    Raises:
        ValueError: no hosts, or one that is not a name or an address; a time without a zone.
    """
    if not hosts:
        raise ValueError("a certificate needs at least one host")
    names = x509.SubjectAlternativeName(alternative_names(hosts))
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder("pingpong", key, authority, now, valid)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return _sign(builder, key, authority)


def make_authority(now: datetime, valid: timedelta) -> Certificate:
    """Make a certificate authority that signs server certificates, and no other authorities.

    It is valid from an hour before ``now`` until ``valid`` after it.

    Raises:
        ValueError: a time without a zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    # Each authority has its own name, so that clients can trust the old and the new one.
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    builder = (
        _builder(f"pingpong authority {digest[:4].hex()}", key, None, now, valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return _sign(builder, key, None)


def _builder(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: Certificate | None,
    now: datetime,
    valid: timedelta,
) -> x509.CertificateBuilder:
    if now.tzinfo is None:
        raise ValueError("the time needs a time zone")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer: PrivateKey = key if authority is None else authority.private_key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**(dict.fromkeys(names, False) | allowed))


def _sign(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    authority: Certificate | None,
) -> Certificate:
    signer = key if authority is None else authority.private_key
    # The hash is part of these two signature schemes.
    has_hash = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return Certificate(builder.sign(signer, None if has_hash else hashes.SHA256()), (), key)


def unreadable(error: OSError, cert_file: Path, key_file: Path) -> CertificateError:
    """The error for a file that cannot be read: which one, and why."""
    what, file = (
        ("key", key_file) if error.filename == str(key_file) else ("certificate", cert_file)
    )
    reason = (error.strerror or str(error)).lower()
    return CertificateError(
        f"cannot read the {what} file {file}: {reason}; check its path and permissions"
    )


def parse_certificate(
    cert_data: bytes, key_data: bytes, cert_file: Path | str, key_file: Path | str
) -> Certificate:
    """Parse the content of two files; their names are for errors.

    Raises:
        CertificateError: there is no certificate or no key, or they do not belong together.
    """
    certificate, *chain = _parse_certificates(cert_data, cert_file)
    key = _parse_key(key_data, key_file)
    wanted = _public_bytes(key.public_key())
    if _public_bytes(certificate.public_key()) != wanted:
        if any(_public_bytes(other.public_key()) == wanted for other in chain):
            raise CertificateError(
                f"the key in {key_file} belongs to a later certificate of {cert_file}: put the"
                " server's own certificate first, then its chain"
            )
        raise CertificateError(
            f"the key in {key_file} does not belong to the certificate in {cert_file}: give the"
            " key that the certificate was issued for"
        )
    return Certificate(certificate, tuple(chain), key)


def alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """The subject alternative names of hosts, without duplicates.

    Raises:
        ValueError: a host is not a name or an address.
    """
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            star = "*." if host.startswith("*.") else ""
        try:
            names.append(x509.DNSName(star + ascii_host(host.removeprefix(star))))
        except ValueError:
            raise ValueError(f"not a host name or an address: {host!r}") from None
    return names


def _parse_certificates(data: bytes, file: Path | str) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in data:
        advice = "give a PEM file (-----BEGIN CERTIFICATE-----)"
        if _PRIVATE_KEY.search(data):
            advice = "it holds a private key; are the certificate and key files swapped?"
        raise CertificateError(f"no certificate in {file}: {advice}")
    try:
        certificates = x509.load_pem_x509_certificates(data)
        for certificate in certificates:
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise CertificateError(
            f"the certificate in {file} cannot be read: it is damaged or of an unknown kind; get it"
            " again from its issuer"
        ) from None
    return certificates


def _parse_key(data: bytes, file: Path | str) -> PrivateKey:
    block = _PRIVATE_KEY.search(data)
    if block is None:
        raise CertificateError(
            f"no private key in {file}: give a PEM file with a block named PRIVATE KEY"
        )
    try:
        # Validating an RSA key takes a quarter of a second, in which no ping is answered. A
        # signature tests it instead.
        key = serialization.load_pem_private_key(
            block[0] + b"\n", password=None, unsafe_skip_rsa_key_validation=True
        )
        if isinstance(key, rsa.RSAPrivateKey):
            _try_out(key)
    except TypeError:
        raise CertificateError(
            f"the key in {file} is encrypted: decrypt it (openssl pkey -in {file} -out ...) and"
            " protect the file instead"
        ) from None
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise CertificateError(
            f"the key in {file} cannot be read: it is damaged or of an unknown kind; give the key"
            " that the certificate was issued for"
        ) from None
    if not isinstance(key, PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey)
        and not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    ):
        raise CertificateError(
            f"the key in {file} is of a kind that cannot be used for TLS 1.3 here: use ECDSA P-256"
            " or P-384, Ed25519, Ed448 or RSA"
        )
    return key


def _try_out(key: rsa.RSAPrivateKey) -> None:
    """Sign something. Raises `ValueError` or `InvalidSignature` if the key is damaged."""
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    signature = key.sign(b"pingpong", scheme, hashes.SHA256())
    key.public_key().verify(signature, b"pingpong", scheme, hashes.SHA256())


def _public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
