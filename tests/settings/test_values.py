from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.settings import (
    PingSettings,
    ProbeSettings,
    ServeSettings,
    SettingsError,
)
from tests.settings.parsing import SHA256, mistakes, ping


class TestURL:
    @pytest.mark.parametrize(
        ("given", "url"),
        [
            ("localhost", "https://localhost:4433/ping"),
            ("localhost:5000", "https://localhost:5000/ping"),
            ("localhost/echo", "https://localhost:4433/echo"),
            ("127.0.0.1:1", "https://127.0.0.1:1/ping"),
            ("::1", "https://[::1]:4433/ping"),
            ("[::1]", "https://[::1]:4433/ping"),
            ("[::1]:5000", "https://[::1]:5000/ping"),
            ("fe80::1%eth0", "https://[fe80::1%eth0]:4433/ping"),
            ("https://[fe80::1%25eth0]:1/", "https://[fe80::1%eth0]:1/"),
            ("https://Host.Example", "https://host.example/"),
            ("HTTPS://host:4433", "https://host:4433/"),
            ("https://host/ping?a=1&b=%20", "https://host/ping?a=1&b=%20"),
            ("https://host/a?next=https://b/", "https://host/a?next=https://b/"),
            ("bücher.example", "https://xn--bcher-kva.example:4433/ping"),
            # UTS 46, as browsers: IDNA 2003 would look another name up, strasse.test.
            ("straße.test", "https://xn--strae-oqa.test:4433/ping"),
            ("https://ΒΌΛΟΣ.test:1/", "https://xn--nxasmq6b.test:1/"),
            ("\uff11\uff12\uff17.0.0.1", "https://127.0.0.1:4433/ping"),
            ("https://host/ü", "https://host/%C3%BC"),
        ],
    )
    def test_accepted(self, given: str, url: str) -> None:
        assert ping(given).targets == (url,)
        assert ping(url).targets == (url,)

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ("http://host/", "must begin with https://"),
            ("srv://_webtransport._udp.name", "only `probe` takes srv:// and endpointslice://"),
            ("https:host", "must begin with https://"),
            ("https://me:secret@host/", "must have no user name and password"),
            ("me@host", "must have no user name and password"),
            ("https://host/#top", "must have no fragment"),
            ("https://host/#", "must have no fragment"),
            ("host:0", "must have a port from 1 to 65535"),
            ("host:65536", "must have a port from 1 to 65535"),
            ("host:", "must have a port from 1 to 65535"),
            ("host:x", "must have a port from 1 to 65535"),
            ("https://[::1/", "brackets around an IPv6 address"),
            ("https://", "must have a host name or address"),
            ("https:///ping", "must have a host name or address"),
            ("a..b", "must have a host name or address"),
            ("x" * 20 + "." + "x" * 64, "must have a host name or address"),
            ("host\x00", "must be https://host"),
            ("℀.test", "a character that is equivalent to one of /?#@:"),
            ("אa.test", "must have a host name or address: Invalid direction"),
            ("https://host/?secret#secret", "must have no fragment"),
            ("http://host/?key=secret", "must begin with https://"),
            (",", "must not be empty"),
            ("", "must not be empty"),
        ],
    )
    def test_refused(self, given: str, reason: str) -> None:
        (mistake,) = mistakes(PingSettings, "--", given)
        assert mistake.startswith("TARGET ")
        assert reason in mistake
        assert "secret" not in mistake

    @given(st.text(max_size=40))
    def test_any_text_is_a_url_or_one_line(self, text: str) -> None:
        try:
            urls = ping("--", text).targets
        except SettingsError as error:
            (mistake,) = error.mistakes
            assert mistake.startswith("TARGET ")
            assert mistake.isprintable()
        else:
            assert urls
            assert all(url.isascii() and url.startswith("https://") for url in urls)


class TestSeveral:
    def test_urls_anywhere_among_the_options(self) -> None:
        settings = ping("a", "-c", "2", "b", "-q", "c,a")
        assert settings.targets == tuple(f"https://{host}:4433/ping" for host in "abc")
        assert (settings.count, settings.quiet) == (2, True)

    @pytest.mark.parametrize(
        ("given", "sources"),
        [
            ("a", ("https://a:4433/ping",)),
            ("https://a/x,b:1", ("https://a/x", "https://b:1/ping")),
            (
                "srv://_webtransport._udp.Example.org, endpointslice://ns/svc",
                ("srv://_webtransport._udp.example.org", "endpointslice://ns/svc"),
            ),
            ("endpointslice://ns/svc:admin/echo", ("endpointslice://ns/svc:admin/echo",)),
            ("srv://_a._udp.Straße.test/x?y", ("srv://_a._udp.xn--strae-oqa.test/x?y",)),
        ],
    )
    def test_sources_of_targets(self, given: str, sources: tuple[str, ...]) -> None:
        assert ProbeSettings.parse([given], {}).targets == sources
        assert ProbeSettings.parse([], {"PINGPONG_TARGETS": given}).targets == sources
        assert ProbeSettings.parse(sources, {}).targets == sources

    @pytest.mark.parametrize(
        "given",
        [
            *("srv://name", "srv://_x._tcp.name", "srv://", "srv://_x._udp.name?secret"),
            *("endpointslice://ns", "endpointslice:///s"),
        ],
    )
    def test_sources_that_are_none(self, given: str) -> None:
        (mistake,) = mistakes(ProbeSettings, given)
        assert f"must be {given.partition('://')[0]}://" in mistake
        assert "secret" not in mistake

    def test_modes_in_their_order_and_once(self) -> None:
        settings = ProbeSettings.parse(["h", "--mode=uni,datagram,uni"], {})
        assert settings.mode == ("uni", "datagram")

    def test_origins(self) -> None:
        settings = ServeSettings.parse(["--allowed-origins=https://A.example,http://b:1"], {})
        assert settings.allowed_origins == ("https://a.example", "http://b:1")
        for wrong in ("a.example", "https://a/path", "https://", "https://a:99999"):
            (mistake,) = mistakes(ServeSettings, f"--allowed-origins={wrong}")
            assert "must be origins" in mistake


class TestCertHash:
    @pytest.mark.parametrize(
        "text",
        [
            SHA256.hex(),
            SHA256.hex().upper(),
            SHA256.hex(":"),
            base64.b64encode(SHA256).decode(),
            base64.b64encode(SHA256).decode().rstrip("="),
            base64.urlsafe_b64encode(bytes([251]) * 32).decode(),
        ],
    )
    def test_accepted(self, text: str) -> None:
        assert ping("h", f"--cert-hash={text}").cert_hash in (SHA256, bytes([251]) * 32)

    @pytest.mark.parametrize("size", [0, 31, 33, 64])
    def test_refused(self, size: int) -> None:
        allowed = "64 hex digits, with or without colons, or 32 bytes in base64"
        sha = bytes(range(size))
        for text in ("zz", sha.hex(), base64.b64encode(sha).decode(), SHA256.hex() + "\u0663"):
            (mistake,) = mistakes(PingSettings, "h", f"--cert-hash={text}")
            assert mistake.startswith("--cert-hash ")
            assert mistake.endswith(f": must be a SHA-256: {allowed}")

    @given(st.binary(min_size=32, max_size=32))
    def test_any_hash_in_every_spelling(self, sha256: bytes) -> None:
        for text in (sha256.hex(), sha256.hex(":"), base64.b64encode(sha256).decode()):
            assert ping("h", f"--cert-hash={text}").cert_hash == sha256

    def test_bytes_are_taken_as_they_are_and_shown_as_hex(self) -> None:
        settings = PingSettings(targets=("h",), cert_hash=SHA256)
        assert settings.cert_hash == SHA256
        assert settings.masked()["cert_hash"] == SHA256.hex()
