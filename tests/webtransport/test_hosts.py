from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.asyncio import Target
from pingpong.webtransport.hosts import Url, ascii_host


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Host.Example", "host.example"),
        ("a_b.test.", "a_b.test."),
        # Another name than strasse.test, which IDNA 2003 would make of it.
        ("straße.test", "xn--strae-oqa.test"),
        ("STRAẞE.test", "xn--strae-oqa.test"),
        ("βόλος.test", "xn--nxasmm1c.test"),
        ("ΒΌΛΟΣ.test", "xn--nxasmq6b.test"),
        ("क्\u200dष.test", "xn--11b2ezcw70k.test"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("faß。de", "xn--fa-hia.de"),
        ("☃.test", "xn--n3h.test"),
        ("_sip.bücher.test", "_sip.xn--bcher-kva.test"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
        ("xn--strae-oqa.test", "xn--strae-oqa.test"),
        ("x\u00ady.test", "xy.test"),
    ],
)
def test_a_name_as_browsers_have_it(host: str, name: str) -> None:
    assert ascii_host(host) == name
    assert ascii_host(name) == name


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "letters, digits, hyphens and dots"),
        ("a..b", "1 to 63 between two dots"),
        ("ü..b", "1 to 63 between two dots"),
        ("x" * 64, "1 to 63 between two dots"),
        ("ü" * 63, "1 to 63 between two dots"),
        ("a." * 130, "at most 253 characters"),
        ("a/b", "letters, digits, hyphens and dots"),
        ("℀.test", "letters, digits, hyphens and dots"),
        ("a\u202eb.test", "U+202E"),
        ("a\u200db.test", "U+200D joins nothing"),
        ("\u0301a.test", "combining character"),
        ("אa.test", "direction"),
        ("xn--ü.test", "begins with xn-- but is not ASCII"),
        ("\udc80.test", "U+DC80"),
    ],
)
def test_what_is_no_name(host: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        ascii_host(host)


@given(st.text(max_size=80))
def test_any_text_is_a_name_in_ascii_or_none(text: str) -> None:
    try:
        name = ascii_host(text)
    except ValueError:
        return
    assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", name)
    assert ascii_host(name) == name


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("https://Host", "host", 443, "/"),
        ("https://ΟΔΟΣ:1/a?b=/c", "xn--pxavbq", 1, "/a?b=/c"),
        ("HTTPS://[::1]:1/", "::1", 1, "/"),
        ("https://[fe80::1%25eth0]", "fe80::1%eth0", 443, "/"),
        ("https://[fe80::1%eth0]:443/ü", "fe80::1%eth0", 443, "/%C3%BC"),
    ],
)
def test_a_url(text: str, host: str, port: int, path: str) -> None:
    url = Url.parse(text)
    assert (url.host, url.port, url.path) == (host, port, path)
    assert Url.parse(str(url)) == url


@given(st.text(max_size=60), st.sampled_from(["", "https://"]))
def test_any_text_is_a_url_or_none(text: str, begin: str) -> None:
    try:
        url = Url.parse(begin + text)
    except ValueError as error:
        reason = str(error)
    else:
        reason = "must be what it is"
        assert str(url).isascii()
        assert Url.parse(str(url)) == url
    assert reason.startswith("must ")
    assert reason.isprintable()


def test_a_target_has_one_name_for_lookup_tls_and_http() -> None:
    for target in (
        Target.from_url("https://Straße.test:4433/ping?key=s3cret"),
        Target("straße.test", 4433, "/ping?key=s3cret"),
    ):
        assert target.host == target.identity.server_name == "xn--strae-oqa.test"
        assert target.authority == "xn--strae-oqa.test:4433"
        assert target.path == "/ping?key=s3cret"
    with pytest.raises(ValueError, match=r"a\\u202eb\.test/' must be https://host"):
        Target.from_url("https://a\u202eb.test/")
    with pytest.raises(ValueError, match=r"^the URL 'http://\*\*\*@a/\?\*\*\*' must begin with"):
        Target.from_url("http://me:s3cret@a/?s3cret")
