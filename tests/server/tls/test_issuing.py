from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from pingpong.server.tls.issuing import (
    AUTHORITY,
    AUTHORITY_KEY,
    CERTIFICATE,
    CERTIFICATE_VALID,
    KEY,
    RENEW_AUTHORITY,
    TRUSTED,
    Data,
    Kept,
    keep_authority,
    keep_certificate,
)
from pingpong.webtransport.certificates import Certificate, CertificateError, make_certificate

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTS = ["pingpong-server.testing.svc", "*.pingpong-server.testing.svc", "192.0.2.1", "2001:db8::1"]
DAY = timedelta(days=1)


def written(kept: Kept) -> Data:
    assert kept.data is not None
    return kept.data


def trusts(data: Data, host: str, now: datetime, trusted: bytes | None = None) -> bool:
    """Whether a client with these authorities verifies the certificate for a name."""
    store = Store(x509.load_pem_x509_certificates(data[TRUSTED] if trusted is None else trusted))
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(host))
    try:
        verifier.verify(x509.load_pem_x509_certificate(data[CERTIFICATE]), [])
    except x509.verification.VerificationError:
        return False
    return True


@pytest.fixture(scope="module")
def authority() -> Kept:
    return keep_authority({}, NOW)


@pytest.fixture(scope="module")
def issued(authority: Kept) -> Data:
    return written(keep_certificate({}, authority.certificate, HOSTS, NOW))


def again(issued: Data, authority: Certificate, now: datetime = NOW) -> Kept:
    return keep_certificate(issued, authority, HOSTS, now)


def test_the_first_time_both_are_made(authority: Kept, issued: Data) -> None:
    assert set(written(authority)) == {AUTHORITY, AUTHORITY_KEY}
    assert set(issued) == {CERTIFICATE, KEY, TRUSTED}
    assert issued[TRUSTED] == written(authority)[AUTHORITY]
    assert trusts(issued, "pingpong-server.testing.svc", NOW)
    assert trusts(issued, "10-0-0-1.pingpong-server.testing.svc", NOW)
    assert not trusts(issued, "other.testing.svc", NOW)
    assert not trusts(issued, HOSTS[0], NOW + CERTIFICATE_VALID + DAY)
    assert b"PRIVATE" not in issued[CERTIFICATE] + issued[TRUSTED]
    assert written(authority)[AUTHORITY_KEY] not in issued.values()


def test_an_authority_signs_certificates_and_no_authorities(authority: Kept) -> None:
    extensions = authority.certificate.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.path_length) == (True, 0)
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.digital_signature) == (True, False)


def test_the_second_time_nothing_changes(authority: Kept, issued: Data) -> None:
    kept = keep_authority(written(authority), NOW + DAY)
    assert (kept.data, kept.reason) == (None, "")
    assert kept.certificate == authority.certificate
    assert again(issued, kept.certificate, NOW + DAY).data is None


@pytest.mark.parametrize("hosts", [HOSTS[::-1], [*HOSTS, HOSTS[0]], [*HOSTS[:3], "2001:DB8:0::1"]])
def test_the_same_names_otherwise_written_change_nothing(
    authority: Kept, issued: Data, hosts: list[str]
) -> None:
    assert keep_certificate(issued, authority.certificate, hosts, NOW).data is None


@pytest.mark.parametrize("hosts", [HOSTS[1:], [*HOSTS, "more.example"], ["192.0.2.1"]])
def test_other_names_are_in_a_new_certificate_of_the_same_authority(
    authority: Kept, issued: Data, hosts: list[str]
) -> None:
    data = written(keep_certificate(issued, authority.certificate, hosts, NOW))
    assert data[TRUSTED] == issued[TRUSTED]
    assert data[KEY] != issued[KEY]
    assert trusts(data, "more.example", NOW) == ("more.example" in hosts)


def test_a_certificate_is_renewed_when_less_than_a_third_of_its_life_is_left(
    authority: Kept, issued: Data
) -> None:
    end = NOW + CERTIFICATE_VALID
    assert again(issued, authority.certificate, end - 123 * DAY).data is None
    kept = again(issued, authority.certificate, end - 121 * DAY)
    assert kept.certificate.not_after == end - 121 * DAY + CERTIFICATE_VALID
    assert "a third" in kept.reason
    assert written(kept)[TRUSTED] == issued[TRUSTED]
    # While clients do not know the authority yet, one that can be used stays.
    published = again({**issued, TRUSTED: b""}, authority.certificate, end - DAY)
    assert written(published) == issued


@pytest.mark.parametrize("when", [NOW - DAY, NOW + CERTIFICATE_VALID + DAY])
@pytest.mark.parametrize("published", [False, True])
def test_a_certificate_that_is_not_valid_is_replaced(
    authority: Kept, issued: Data, when: datetime, published: bool
) -> None:
    held = issued if published else {**issued, TRUSTED: b""}
    kept = again(held, authority.certificate, when)
    assert kept.certificate.warning(when) is None
    assert "not valid" in kept.reason


def test_a_renewed_authority_is_published_before_it_signs(authority: Kept, issued: Data) -> None:
    end = authority.certificate.not_after
    assert keep_authority(written(authority), end - RENEW_AUTHORITY).data is None
    now = end - RENEW_AUTHORITY + DAY
    last = written(keep_certificate({}, authority.certificate, HOSTS, now - 300 * DAY))
    renewed = keep_authority(written(authority), now)
    assert renewed.certificate.private_key is not authority.certificate.private_key

    # First clients are told of it; the server shows what they know already.
    published = again(last, renewed.certificate, now)
    assert published.reason == ""
    data = written(published)
    assert (data[CERTIFICATE], data[KEY]) == (last[CERTIFICATE], last[KEY])
    assert trusts(data, HOSTS[0], now)
    assert trusts(data, HOSTS[0], now, trusted=last[TRUSTED])

    # Then it signs. Who does not know it yet, has had a week.
    following = keep_authority(written(renewed), now + 7 * DAY)
    assert following.data is None
    assert following.certificate == renewed.certificate
    data = written(again(data, following.certificate, now + 7 * DAY))
    assert trusts(data, HOSTS[0], now + 7 * DAY)
    assert not trusts(data, HOSTS[0], now + 7 * DAY, trusted=last[TRUSTED])
    assert trusts(data, HOSTS[0], now + 7 * DAY, trusted=published.data[TRUSTED])  # type: ignore[index]


def test_an_authority_that_has_ended_is_not_trusted_any_more(authority: Kept) -> None:
    renewed = keep_authority(written(authority), authority.certificate.not_after + DAY)
    assert renewed.certificate.chain == ()
    data = written(keep_certificate({}, renewed.certificate, HOSTS, NOW + 4000 * DAY))
    assert len(x509.load_pem_x509_certificates(data[TRUSTED])) == 1


def test_a_certificate_never_outlives_its_authority(authority: Kept) -> None:
    now = authority.certificate.not_after - RENEW_AUTHORITY
    kept = keep_certificate({}, authority.certificate, HOSTS, now)
    assert kept.certificate.not_after < authority.certificate.not_after


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({CERTIFICATE: b"nonsense"}, "no certificate in tls.crt"),
        ({KEY: b""}, "no private key in tls.key"),
        ({KEY: make_certificate(["a"], NOW).key_pem()}, "does not belong to the certificate"),
        ({CERTIFICATE: b"", KEY: b""}, "there was none"),
        ({TRUSTED: b"other"}, ""),
        ({TRUSTED: b""}, ""),
    ],
    ids=["nonsense", "no key", "another key", "empty", "other authorities", "no authorities"],
)
def test_a_damaged_secret_is_put_right(
    authority: Kept, issued: Data, change: dict[str, bytes], reason: str
) -> None:
    kept = again({**issued, **change}, authority.certificate)
    assert reason in kept.reason
    data = written(kept)
    assert (data[CERTIFICATE] == issued[CERTIFICATE]) == (not reason)
    assert trusts(data, HOSTS[0], NOW)
    assert again(data, authority.certificate).data is None


def test_a_certificate_of_another_authority_is_replaced(issued: Data) -> None:
    other = keep_authority({}, NOW).certificate
    kept = again(issued, other)
    assert "another authority" in kept.reason
    assert trusts(written(kept), HOSTS[0], NOW)
    self_signed = make_certificate(HOSTS, NOW)
    kept = again({CERTIFICATE: self_signed.pem(), KEY: self_signed.key_pem()}, other)
    assert "another authority" in kept.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({AUTHORITY: b"nonsense"}, "no certificate in ca.crt"),
        ({AUTHORITY: b""}, "no certificate in ca.crt"),
        ({AUTHORITY_KEY: b""}, "no private key in ca.key"),
        ({AUTHORITY_KEY: make_certificate(["a"], NOW).key_pem()}, "does not belong"),
    ],
    ids=["nonsense", "no certificate", "no key", "another key"],
)
def test_a_damaged_authority_is_no_reason_to_make_another(
    authority: Kept, change: dict[str, bytes], said: str
) -> None:
    with pytest.raises(CertificateError, match=said):
        keep_authority({**written(authority), **change}, NOW)


def test_a_servers_certificate_is_no_authority() -> None:
    made = make_certificate(HOSTS, NOW)
    with pytest.raises(CertificateError, match="is not an authority"):
        keep_authority({AUTHORITY: made.pem(), AUTHORITY_KEY: made.key_pem()}, NOW)


def test_an_authority_of_another_kind_that_somebody_brought() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "brought")])
    brought = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + 2000 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    pem = brought.public_bytes(serialization.Encoding.PEM)
    kept = keep_authority(
        {AUTHORITY: pem, AUTHORITY_KEY: Certificate(brought, (), key).key_pem()}, NOW
    )
    assert kept.data is None
    data = written(keep_certificate({}, kept.certificate, HOSTS, NOW))
    assert data[TRUSTED] == pem
    leaf = x509.load_pem_x509_certificate(data[CERTIFICATE])
    leaf.verify_directly_issued_by(brought)
    assert leaf.fingerprint(hashes.SHA256()) == again(data, kept.certificate).certificate.sha256
