from __future__ import annotations

import hashlib
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pingpong.server.tls.keeper import CertificateFiles
from pingpong.webtransport.certificates import (
    Certificate,
    CertificateError,
    make_certificate,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ENCRYPTIONS = {
    "pkcs8": serialization.PrivateFormat.PKCS8,
    "traditional": serialization.PrivateFormat.TraditionalOpenSSL,
}


def key_pem(
    key: PrivateKeyTypes,
    format: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, format, encryption or serialization.NoEncryption()
    )


def issue(
    key: ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    signs = (
        None
        if isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
        else hashes.SHA256()
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, signs)
    )


@pytest.fixture(scope="module")
def made() -> Certificate:
    return make_certificate(["localhost", "::1"], NOW)


@pytest.fixture
def cert_file(tmp_path: Path, made: Certificate) -> Path:
    file = tmp_path / "tls.crt"
    file.write_bytes(made.pem())
    return file


@pytest.fixture
def key_file(tmp_path: Path, made: Certificate) -> Path:
    file = tmp_path / "tls.key"
    file.write_bytes(key_pem(made.private_key))
    return file


def loaded_from(cert_file: Path, key_file: Path) -> Certificate:
    return CertificateFiles(cert_file, key_file, NOW).certificate


def refused(cert_file: Path, key_file: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        loaded_from(cert_file, key_file)
    text = str(caught.value)
    assert "\n" not in text
    return text


class TestMade:
    def test_what_browsers_ask_for_to_accept_it_by_its_hash(self, made: Certificate) -> None:
        assert isinstance(made.private_key, ec.EllipticCurvePrivateKey)
        assert isinstance(made.private_key.curve, ec.SECP256R1)
        assert made.not_after - made.not_before <= timedelta(days=14)
        assert made.certificate.version is x509.Version.v3

    def test_validity_counts_from_the_time_given(self) -> None:
        cert = make_certificate(["localhost"], NOW)
        assert cert.not_before == NOW - timedelta(hours=1)
        assert cert.not_after == NOW + timedelta(days=13)
        elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
        cert = make_certificate(["localhost"], elsewhere, valid=timedelta(days=2))
        assert cert.not_after == NOW + timedelta(days=2)

    def test_names_and_addresses(self) -> None:
        hosts = ["localhost", "*.pingpong.svc", "bücher.example", "127.0.0.1", "::1", "localhost"]
        cert = make_certificate(hosts, NOW).certificate
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [
            "localhost",
            "*.pingpong.svc",
            "xn--bcher-kva.example",
        ]
        assert names.get_values_for_type(x509.IPAddress) == [
            ipaddress.ip_address("127.0.0.1"),
            ipaddress.ip_address("::1"),
        ]

    def test_is_for_servers_and_no_authority(self, made: Certificate) -> None:
        extensions = made.certificate.extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    def test_each_is_another(self) -> None:
        first, second = make_certificate(["a"], NOW), make_certificate(["a"], NOW)
        assert first.sha256 != second.sha256
        assert first.certificate.serial_number != second.certificate.serial_number

    @pytest.mark.parametrize("host", ["", "[::1]", "a b", "a..b", "https://a", "x" * 64])
    def test_refuses_what_is_no_host(self, host: str) -> None:
        with pytest.raises(ValueError, match="host"):
            make_certificate(["localhost", host], NOW)

    def test_refuses_no_hosts_and_a_time_without_zone(self) -> None:
        with pytest.raises(ValueError, match="at least one host"):
            make_certificate([], NOW)
        with pytest.raises(ValueError, match="time zone"):
            make_certificate(["a"], NOW.replace(tzinfo=None))

    @pytest.mark.parametrize(
        ("name", "accepted"), [("localhost", True), ("::1", True), ("example.com", False)]
    )
    def test_a_tls_client_that_trusts_it_accepts_it(
        self, name: str, accepted: bool, tmp_path: Path
    ) -> None:
        made = make_certificate(["localhost", "::1"], datetime.now(UTC))
        both = tmp_path / "both.pem"
        both.write_bytes(made.pem() + key_pem(made.private_key))
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(both)
        client_context = ssl.create_default_context(cadata=made.pem().decode())
        client_context.verify_flags |= ssl.VERIFY_X509_STRICT
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_context.wrap_bio(to_server, to_client, server_side=True)
        client = client_context.wrap_bio(to_client, to_server, server_hostname=name)

        def handshake() -> None:
            for _ in range(4):
                for side in (client, server):
                    try:
                        side.do_handshake()
                    except ssl.SSLWantReadError:
                        continue

        if accepted:
            handshake()
            assert client.getpeercert(binary_form=True) is not None
            assert client.version() == "TLSv1.3"
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                handshake()


class TestCertificate:
    def test_hash_is_of_the_der_encoding(self, made: Certificate) -> None:
        der = made.certificate.public_bytes(serialization.Encoding.DER)
        assert made.sha256 == hashlib.sha256(der).digest()
        assert made.fingerprint.count(":") == 31
        assert bytes.fromhex(made.fingerprint.replace(":", "")) == made.sha256
        assert made.fingerprint == made.fingerprint.upper()

    def test_pem_has_the_chain_and_never_the_key(self, made: Certificate) -> None:
        other = make_certificate(["other"], NOW).certificate
        pem = Certificate(made.certificate, (other,), made.private_key).pem()
        assert x509.load_pem_x509_certificates(pem) == [made.certificate, other]
        assert b"PRIVATE" not in pem

    def test_the_key_is_not_shown(self, made: Certificate) -> None:
        assert "private_key" not in repr(made)

    def test_warnings(self, made: Certificate) -> None:
        assert made.warning(NOW) is None
        assert made.warning(made.not_after) is None
        expired = made.warning(made.not_after + timedelta(seconds=1))
        assert expired is not None
        assert "expired at 2026-03-14T12:00:00+00:00" in expired
        early = made.warning(made.not_before - timedelta(seconds=1))
        assert early is not None
        assert "not valid before 2026-03-01T11:00:00+00:00" in early


class TestLoaded:
    def test_round_trip(self, made: Certificate, cert_file: Path, key_file: Path) -> None:
        loaded = loaded_from(cert_file, key_file)
        assert loaded.certificate == made.certificate
        assert loaded.chain == ()
        assert loaded.sha256 == made.sha256

    def test_chain(self, made: Certificate, cert_file: Path, key_file: Path) -> None:
        other = make_certificate(["other"], NOW)
        cert_file.write_bytes(made.pem() + other.pem())
        loaded = loaded_from(cert_file, key_file)
        assert (loaded.certificate, loaded.chain) == (made.certificate, (other.certificate,))

    def test_one_file_with_both_in_any_order(self, made: Certificate, tmp_path: Path) -> None:
        file = tmp_path / "both.pem"
        for content in (
            made.pem() + key_pem(made.private_key),
            b"a comment\n" + key_pem(made.private_key) + made.pem(),
        ):
            file.write_bytes(content)
            assert loaded_from(file, file).sha256 == made.sha256

    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP384R1()),
            ed25519.Ed25519PrivateKey.generate(),
            ed448.Ed448PrivateKey.generate(),
            rsa.generate_private_key(65537, 2048),
        ],
        ids=lambda key: type(key).__name__,
    )
    def test_kinds_of_keys(
        self,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
        cert_file: Path,
        key_file: Path,
    ) -> None:
        cert_file.write_bytes(issue(key).public_bytes(serialization.Encoding.PEM))
        formats = [serialization.PrivateFormat.PKCS8]
        if isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            formats.append(serialization.PrivateFormat.TraditionalOpenSSL)
        for format in formats:
            key_file.write_bytes(key_pem(key, format))
            loaded = loaded_from(cert_file, key_file)
            assert loaded.private_key.public_key() == key.public_key()

    def test_a_key_behind_its_curve_parameters(
        self, made: Certificate, cert_file: Path, key_file: Path
    ) -> None:
        parameters = (
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        )
        traditional = serialization.PrivateFormat.TraditionalOpenSSL
        key_file.write_bytes(parameters + key_pem(made.private_key, traditional))
        assert loaded_from(cert_file, key_file).sha256 == made.sha256

    def test_missing_file(self, cert_file: Path, key_file: Path, tmp_path: Path) -> None:
        none = tmp_path / "none"
        text = refused(none, key_file)
        assert text.startswith(f"cannot read the certificate file {none}: no such file")
        assert "check its path" in text
        assert refused(cert_file, none).startswith(f"cannot read the key file {none}: no such file")
        assert "is not a regular file" in refused(tmp_path, key_file)

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x82\x00\xff"])
    def test_nothing_in_it(self, content: bytes, cert_file: Path, key_file: Path) -> None:
        good = key_file.read_bytes()
        key_file.write_bytes(content)
        assert refused(cert_file, key_file).startswith(f"no private key in {key_file}: give a PEM")
        key_file.write_bytes(good)
        cert_file.write_bytes(content)
        assert refused(cert_file, key_file).startswith(f"no certificate in {cert_file}: give a PEM")

    def test_swapped_files(self, cert_file: Path, key_file: Path) -> None:
        assert "swapped?" in refused(key_file, cert_file)

    def test_damaged(self, cert_file: Path, key_file: Path) -> None:
        for file in (cert_file, key_file):
            good = file.read_bytes()
            lines = good.splitlines(keepends=True)
            for bad in (
                [lines[0], lines[-1]],
                [*lines[:1], *lines[2:]],
                [lines[0], b"!?\n", lines[-1]],
            ):
                file.write_bytes(b"".join(bad))
                assert f"{file} cannot be read: it is damaged" in refused(cert_file, key_file)
            file.write_bytes(good)

    def test_damaged_rsa_key(self, cert_file: Path, key_file: Path) -> None:
        """One that is well-formed, but whose numbers don't fit each other."""
        good = rsa.generate_private_key(65537, 2048)
        cert_file.write_bytes(issue(good).public_bytes(serialization.Encoding.PEM))
        numbers = good.private_numbers()
        bad = rsa.RSAPrivateNumbers(
            p=numbers.p,
            q=numbers.q,
            d=numbers.d + 2,
            dmp1=numbers.dmp1 + 2,
            dmq1=numbers.dmq1,
            iqmp=numbers.iqmp,
            public_numbers=numbers.public_numbers,
        )
        key_file.write_bytes(key_pem(bad.private_key(unsafe_skip_rsa_key_validation=True)))
        assert f"{key_file} cannot be read: it is damaged" in refused(cert_file, key_file)

    @pytest.mark.parametrize("format", ENCRYPTIONS)
    def test_encrypted_key(
        self, format: str, made: Certificate, cert_file: Path, key_file: Path
    ) -> None:
        encryption = serialization.BestAvailableEncryption(b"secret")
        key_file.write_bytes(key_pem(made.private_key, ENCRYPTIONS[format], encryption))
        text = refused(cert_file, key_file)
        assert text.startswith(f"the key in {key_file} is encrypted: decrypt it")

    @pytest.mark.parametrize(
        "key",
        [dsa.generate_private_key(1024), ec.generate_private_key(ec.SECP521R1())],
        ids=["dsa", "p521"],
    )
    def test_key_of_an_unusable_kind(
        self, key: PrivateKeyTypes, cert_file: Path, key_file: Path
    ) -> None:
        key_file.write_bytes(key_pem(key))
        assert "use ECDSA P-256" in refused(cert_file, key_file)

    def test_key_of_another_certificate(self, cert_file: Path, key_file: Path) -> None:
        other = make_certificate(["other"], NOW)
        key_file.write_bytes(key_pem(other.private_key))
        text = refused(cert_file, key_file)
        assert text.startswith(
            f"the key in {key_file} does not belong to the certificate in {cert_file}"
        )

    def test_chain_in_the_wrong_order(
        self, made: Certificate, cert_file: Path, key_file: Path
    ) -> None:
        cert_file.write_bytes(make_certificate(["ca"], NOW).pem() + made.pem())
        assert "put the server's own certificate first" in refused(cert_file, key_file)

    def test_expired_loads(self, cert_file: Path, key_file: Path) -> None:
        past = make_certificate(["a"], NOW - timedelta(days=100))
        cert_file.write_bytes(past.pem())
        key_file.write_bytes(key_pem(past.private_key))
        assert loaded_from(cert_file, key_file).warning(NOW) is not None
