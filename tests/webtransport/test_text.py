from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.text import mask_url, printable

ANY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\x1b\x07\x9b\r\n\0\u202e\u2066\u200b\u2028\ud800\udc80\u0301\u20dd\ufe0f é…\\"
        ),
    )
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("an answer", "an answer"),
        ("grüße, 你好, é, हिन्दी", "grüße, 你好, é, हिन्दी"),
        (r"a\x1b of its own", r"a\x1b of its own"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\n64 bytes", r"a\r\n64 bytes"),
        ("\u202egnp.exe\u2066\u200f", r"\u202egnp.exe\u2066\u200f"),
        ("a\u200bb\ufeff\xad", r"a\u200bb\ufeff\xad"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\ud83d\udc80", r"\ud83d\udc80"),
        ("\U000e0041\U0001d159", r"\U000e0041\U0001d159"),
        ("\u3164\u2800\u115f\ufe0f", r"\u3164\u2800\u115f\ufe0f"),
        ("e\u0301\u0302\u0303\u0304", "e\u0301\u0302" + r"\u0303\u0304"),
        ("\u0301a", r"\u0301a"),
        (" \u20dd", r" \u20dd"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfea\x80", r"\xff\xfea\x80"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
    ],
)
def test_what_is_shown(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


@given(st.one_of(ANY, st.binary()), st.one_of(st.integers(1, 40), st.none()))
def test_it_is_printable_short_and_stays_as_it_is(text: str | bytes, limit: int | None) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert limit is None or len(shown) <= limit
    assert printable(shown, limit) == shown
    shown.encode()
    marks = 0
    for character in f" {shown}":
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        assert marks <= 2
    assert not unicodedata.category(shown[:1] or " ").startswith("M")


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"])))
def test_what_is_printable_is_not_touched(text: str) -> None:
    assert printable(text, None) == text


@given(ANY, st.integers(1, 40))
def test_a_text_that_is_cut_says_so_and_cuts_no_escape(text: str, limit: int) -> None:
    shown, whole = printable(text, limit), printable(text, None)
    if len(whole) <= limit:
        assert shown == whole
    else:
        assert shown.endswith("…")
        kept = shown[:-1]
        # It is the beginning of the text: of some number of its characters.
        assert kept in {printable(text[:size], None) for size in range(limit + 1)}


def test_what_is_far_too_long_costs_no_more_than_what_is_shown() -> None:
    class Counted(str):
        seen = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            for character in super().__iter__():
                Counted.seen += 1
                yield character

    assert printable(Counted("\x1b" * 1_000_000)).endswith("…")
    assert Counted.seen < 300


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host:4433/ping", "https://host:4433/ping"),
        ("https://host/?key=s3cret&x=1", "https://host/?***"),
        ("https://host?s3cret", "https://host?***"),
        ("https://me:s3cret@host/a@b", "https://***@host/a@b"),
        ("https://me:s3cret@host", "https://***@host"),
        ("https://host/#s3cret", "https://host/#***"),
        ("https://host/?s3cret#s3cret", "https://host/?***#***"),
        ("https://host/a?next=https://b/?s3cret", "https://host/a?***"),
        ("/ping?s3cret", "/ping?***"),
        ("/a@b", "/a@b"),
        ("srv://_a._udp.b/ping?s3cret", "srv://_a._udp.b/ping?***"),
        ("https://[fe80::1%eth0]:1/", "https://[fe80::1%eth0]:1/"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert mask_url(url) == shown
    assert mask_url(shown) == shown
