from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.telemetry.redaction import (
    MASK,
    MAX_SHOWN,
    is_secret_name,
    redact,
    redact_values,
    shown,
)

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIAbcdef\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc123def", "Authorization: Bearer ***"),
        ("bearer  abc-1._~+/=23", "bearer  ***"),
        ("b'Basic dXNlcjpwYXNz'", "b'Basic ***'"),
        (f"no such token: {JWT}!", "no such token: ***!"),
        (f"key {PEM} end", "key *** end"),
        (json.dumps({"file": PEM}), '{"file": "***"}'),
        (PEM[:50], "***"),
        ("https://user:pass@host/ping", "https://***@host/ping"),
        ("https://host:4433/ping?x=abc", "https://host:4433/ping?***"),
        ("https://host/?abc: no address", "https://host/?***: no address"),
        ("for /ping?key=abc&x=abc, and", "for /ping?***, and"),
        ("url=https://host/a/b?abc#abc", "url=https://host/a/b?***#***"),
        ("['https://a/?abc', 'https://b/#abc']", "['https://a/?***', 'https://b/#***']"),
        ('{"url": "https://a/?abc", "x": 1}', '{"url": "https://a/?***", "x": 1}'),
        ("https://user:pass@host/?abc)", "https://***@host/?***)"),
        ("token=abc123&x=1", "token=***&x=1"),
        ("PASSWORD=hunter22", "PASSWORD=***"),
        ('{"token": "abc123", "port": 1}', '{"token": "***", "port": 1}'),
        ("{'token': b'abc123'}", "{'token': b'***'}"),
        (json.dumps({"message": '{"password": "abc123"}'}), None),
    ],
)
def test_a_secret_in_a_text_is_masked(text: str, masked: str | None) -> None:
    result = redact(text)
    if masked is not None:
        assert result == masked
    for secret in ("abc", "dXNl", "MHcC", "eyJ", "pass@", "hunter"):
        assert secret not in result
    assert redact(result) == result


@pytest.mark.parametrize(
    "text",
    [
        "PINGPONG_AUTH=token (--auth token) needs PINGPONG_TOKEN_FILE (--token-file)",
        "the token is not valid: expired",
        "mail a@b.example",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        '{"auth": "token", "port": 4433}',
        "the bearer of this",
        "is the path right? pingpong answers on /ping?",
        "host:4433/echo#2 and ns/svc#2",
        "and/or?)",
        "what?yes",
        "tls_key_file=/etc/tls/key.pem token_file=/etc/token",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_any_text_can_be_masked(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "name", ["token", "Token", "authorization", "api_key", "private-key", "x.password", "tokens"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["token_file", "tls_key_file", "keys_read", "target", "event", ""])
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


def test_values_are_masked_by_their_names_at_any_depth() -> None:
    values = {
        "target": "a",
        "token": "short",
        "key": b"\x00",
        "password": None,
        "headers": {"authorization": "x", "origin": "https://a"},
    }
    assert redact_values(values) == {
        "target": "a",
        "token": MASK,
        "key": MASK,
        "password": None,
        "headers": {"authorization": MASK, "origin": "https://a"},
    }


@pytest.mark.parametrize("piece", ["/", "a/", "?", "/?", "://", "#", "'", "/?'", "@/", "x"])
def test_a_long_text_costs_no_more_than_its_length(piece: str) -> None:
    def seconds(count: int) -> float:
        began = time.thread_time()
        redact(piece * count)
        return time.thread_time() - began

    # Of what grows with the square, ten times as much would take a hundred times as long.
    assert seconds(30_000) < 40 * max(seconds(3000), 0.001)


def test_what_is_shown_is_masked_and_printable_at_any_depth() -> None:
    assert shown(
        {
            "urls": ("https://a/?s3cret", "b\x1b[2J"),
            "deep": [{"text": "x\u202e"}],
            "port": 1,
            "no": None,
        }
    ) == {
        "urls": ["https://a/?***", r"b\x1b[2J"],
        "deep": [{"text": r"x\u202e"}],
        "port": 1,
        "no": None,
    }
    assert len(shown("\x1b" * 1_000_000)) <= MAX_SHOWN
    # Masked before it is cut: a secret is not cut out of what it would be known by.
    assert "abc" not in shown(f"{'x' * (MAX_SHOWN - 5)} Bearer abcdefgh")
