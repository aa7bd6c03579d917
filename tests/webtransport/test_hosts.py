from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.asyncio import Target
from pingpong.webtransport.hosts import ascii_host, host_of


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
        ("xn--ü.test", "begins like a label of ASCII"),
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
    ("authority", "host"),
    [
        ("Host", "Host"),
        ("ΟΔΟΣ:1", "ΟΔΟΣ"),
        ("[::1]:1", "::1"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("a@b:1", "b"),
        ("", ""),
    ],
)
def test_the_host_of_an_authority(authority: str, host: str) -> None:
    assert host_of(authority) == host


def test_a_target_has_one_name_for_lookup_tls_and_http() -> None:
    for target in (
        Target.from_url("https://Straße.test:4433/ping?key=s3cret"),
        Target("straße.test", 4433, "/ping?key=s3cret"),
    ):
        assert target.host == target.identity.server_name == "xn--strae-oqa.test"
        assert target.authority == "xn--strae-oqa.test:4433"
        assert target.path == "/ping?key=s3cret"
    with pytest.raises(ValueError, match=r"U\+202E"):
        Target.from_url("https://a\u202eb.test/")
    with pytest.raises(ValueError, match=r"for https URLs: 'http://\*\*\*@a/\?\*\*\*'"):
        Target.from_url("http://me:s3cret@a/?s3cret")
