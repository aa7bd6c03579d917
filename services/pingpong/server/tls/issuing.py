"""Decides what two Secrets should hold: an authority, and a certificate that it signs.

The authority is created once, renewed long before its end, and not replaced if it is damaged, because
clients trust it. The certificate's Secret is derived from it: any fault is repaired by a new
certificate. It also has `ca.crt`, the authorities for clients to trust.

Clients must trust a new authority before a server uses a certificate that it signed, and files reach
pods at different times. So a renewed authority is first published beside the old one, which stays
until it expires; it signs the certificate when that is due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ...webtransport.certificates import (
    Certificate,
    CertificateError,
    alternative_names,
    make_authority,
    make_certificate,
    parse_certificate,
)

AUTHORITY_VALID = timedelta(days=3650)
CERTIFICATE_VALID = timedelta(days=365)
RENEW_AUTHORITY = 2 * CERTIFICATE_VALID
"""Time before its end at which an authority is renewed: it outlives the certificates it signed."""

CERTIFICATE, KEY, TRUSTED = "tls.crt", "tls.key", "ca.crt"
"""Keys of the certificate's Secret."""
AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
"""Keys of the authority's Secret: the current authority first, then the older ones."""

Data = Mapping[str, bytes]
"""The data of a Secret."""


@dataclass(frozen=True)
class Kept:
    """The result for a Secret."""

    certificate: Certificate
    """The certificate, or the current authority, with the older ones as its chain."""
    data: Data | None = None
    """The data to write; None if the Secret is up to date."""
    reason: str = ""
    """Why a new certificate was made; empty if it was not."""


def keep_authority(held: Data, now: datetime) -> Kept:
    """Create the authority if there is none, and renew it in time.

    Raises:
        CertificateError: the data cannot be used.
    """
    if not any(held.get(key) for key in (AUTHORITY, AUTHORITY_KEY)):
        return _authority(make_authority(now, AUTHORITY_VALID), "there was none")
    current = parse_certificate(
        held.get(AUTHORITY, b""), held.get(AUTHORITY_KEY, b""), AUTHORITY, AUTHORITY_KEY
    )
    if not _is_authority(current.certificate):
        raise CertificateError(f"the certificate in {AUTHORITY} is not an authority")
    if now <= current.not_after - RENEW_AUTHORITY:
        return Kept(current)
    still_valid = tuple(each for each in _all_of(current) if now <= each.not_valid_after_utc)
    made = make_authority(now, AUTHORITY_VALID)
    return _authority(replace(made, chain=still_valid), "the one before ends in time")


def keep_certificate(
    held: Data, authority: Certificate, hosts: Sequence[str], now: datetime
) -> Kept:
    """Issue the certificate if there is no usable one, and renew it in time.

    `authority` is the result of `keep_authority`. As long as that is not published in the Secret, a
    usable certificate is kept, also if it is due.

    Raises:
        ValueError: a host is not a name or an address.
    """
    current: Certificate | None = None
    trusted = authority.pem()
    reason = "there was none"
    if any(held.get(key) for key in (CERTIFICATE, KEY)):
        try:
            current = parse_certificate(
                held.get(CERTIFICATE, b""), held.get(KEY, b""), CERTIFICATE, KEY
            )
            reason = _fault(current, authority, hosts, now)
            if not reason and held.get(TRUSTED) == trusted and current.is_due(now):
                reason = "less than a third of its life was left"
        except CertificateError as error:
            reason = str(error)
    if current is None or reason:
        current = make_certificate(hosts, now, CERTIFICATE_VALID, authority)
    data = {CERTIFICATE: current.pem(), KEY: current.key_pem(), TRUSTED: trusted}
    if not reason:
        data = {**data, CERTIFICATE: held[CERTIFICATE], KEY: held[KEY]}
    is_held = all(held.get(key) == value for key, value in data.items())
    return Kept(current, None if is_held else data, reason)


def _authority(made: Certificate, reason: str) -> Kept:
    return Kept(made, {AUTHORITY: made.pem(), AUTHORITY_KEY: made.key_pem()}, reason)


def _fault(
    current: Certificate, authority: Certificate, hosts: Sequence[str], now: datetime
) -> str:
    """Why a certificate cannot be used; empty if it can."""
    certificate = current.certificate
    if not any(_has_signed(each, certificate) for each in _all_of(authority)):
        return "another authority had signed it"
    if current.names != set(alternative_names(hosts)):
        return "its names were others"
    if not current.not_before <= now <= current.not_after:
        return "it was not valid"
    return ""


def _all_of(certificate: Certificate) -> tuple[x509.Certificate, ...]:
    return certificate.certificate, *certificate.chain


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return found.value.ca


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
