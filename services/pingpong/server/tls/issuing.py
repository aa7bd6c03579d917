"""What two Secrets are to hold, given what they hold: an authority, and a certificate that it signs.

The authority's Secret is the source: it is made once, renewed long before its end, and never
replaced where it is damaged, since clients trust it. The certificate's Secret follows from it:
whatever is wrong with that is put right by a new certificate. It also has `ca.crt`, what clients are
to trust.

A client has to trust a new authority before a server shows a certificate that it has signed, and
files reach pods at different times. So a renewed authority is published first, beside the one
before, which stays until its end; a certificate is signed by the new one when its own time comes.
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
"""An authority is renewed with so much left: it outlives each certificate that it has signed."""

CERTIFICATE, KEY, TRUSTED = "tls.crt", "tls.key", "ca.crt"
"""Keys of the certificate's Secret."""
AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
"""Keys of the authority's Secret: the one that signs first, then those before it."""

Data = Mapping[str, bytes]
"""What a Secret holds, by key."""


@dataclass(frozen=True)
class Kept:
    """What a Secret is to hold from now on."""

    certificate: Certificate
    """The certificate; of authorities the one that signs, with those before it as its chain."""
    data: Data | None = None
    """What to write; None: the Secret is as it should be."""
    reason: str = ""
    """Why another certificate was made; empty where it was not."""


def keep_authority(held: Data, now: datetime) -> Kept:
    """Make the authority where there is none, and renew it in time.

    Raises:
        CertificateError: what is held cannot be used.
    """
    if not any(held.get(key) for key in (AUTHORITY, AUTHORITY_KEY)):
        return _authority(make_authority(now, AUTHORITY_VALID), "there was none")
    current = parse_certificate(
        held.get(AUTHORITY, b""), held.get(AUTHORITY_KEY, b""), AUTHORITY, AUTHORITY_KEY
    )
    if not _is_authority(current.certificate):
        raise CertificateError(f"the certificate in {AUTHORITY} is no authority's")
    if now <= current.not_after - RENEW_AUTHORITY:
        return Kept(current)
    still_valid = tuple(each for each in _all_of(current) if now <= each.not_valid_after_utc)
    made = make_authority(now, AUTHORITY_VALID)
    return _authority(replace(made, chain=still_valid), "the one before ends in time")


def keep_certificate(
    held: Data, authority: Certificate, hosts: Sequence[str], now: datetime
) -> Kept:
    """Issue the certificate where there is none that can be used, and renew it in time.

    `authority` is as `keep_authority` has it. Until it is published in the Secret, a certificate
    that can be used stays, however soon it ends.

    Raises:
        ValueError: one of the hosts is neither a name nor an address.
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
    """Why a certificate cannot be used; empty where it can."""
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
