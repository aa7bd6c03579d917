from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.http3.fields import (
    parse_string,
    parse_strings,
    serialize_string,
    serialize_strings,
)

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)

# RFC 9651, section 3.1.2 and 3.3: parameters of every type, well-formed.
PARAMETERS = [
    ";a",
    ";a;b",
    ";a=1",
    ";a=-1",
    ";a=999999999999999",
    ";a=4.5",
    ";a=-0.1",
    ";a=123456789012.123",
    ';a="text"',
    ';a="a \\" and a \\\\"',
    ';a=""',
    ";a=token",
    ";a=*to/k:en!#$%&'*+-.^_`|~",
    ";a=:cHJldGVuZCB0aGlz:",
    ";a=::",
    ";a=?0",
    ";a=?1",
    ";a=@1659578233",
    ";a=@-62135596800",
    ';a=%"This is intended for display to %c3%bcsers."',
    ";  a=1;   b",
    ";*key-with_every.char*0=1",
    ";a=1;a=2",
]
# What the grammar does not have, each wrong in one place.
MALFORMED_PARAMETERS = [
    ";",
    ";A=1",
    ";1=1",
    ";a=",
    "; =1",
    " ;a",
    ";\ta",
    ";a =1",
    ";a= 1",
    ";a=1234567890123456",
    ";a=1234567890123.1",
    ";a=1.",
    ";a=1.2345",
    ";a=.5",
    ";a=--1",
    ";a=+1",
    ";a=?2",
    ";a=?",
    ";a=:!:",
    ";a=:cHJl",
    ";a=@",
    ";a=@1.5",
    ';a=%"%C3"',
    ';a=%"%4"',
    ';a="',
    ';a="\\x"',
    ";a=ü",
    ";a=²",
    ";a=(1)",
]


class TestString:
    @pytest.mark.parametrize(
        ("value", "string"),
        [
            (b'"pingpong.v1"', "pingpong.v1"),
            (b'""', ""),
            (b'  "a"  ', "a"),
            (b'"a \\"quoted\\" one"', 'a "quoted" one'),
            (b'"back\\\\slash"', "back\\slash"),
            (b'" !#~[]^"', " !#~[]^"),
            (b'"a, b"', "a, b"),
        ],
    )
    def test_well_formed(self, value: bytes, string: str) -> None:
        assert parse_string(value) == string
        assert parse_strings(value) == (string,)

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b'"',
            b'"a',
            b'a"',
            b"'a'",
            b'"a"b',
            b'"a" b',
            b'"a\\"',
            b'"\\a"',
            b'"\x7f"',
            b'"\x1f"',
            b'"\t"',
            b'"\xc3\xa9"',
            b'"\xe9"',
            b'\t"a"',
            b'"a"\t',
            b'"a"\n',
        ],
    )
    def test_malformed(self, value: bytes) -> None:
        assert parse_string(value) is None
        assert parse_strings(value) == ()

    # Well-formed items of all the other types: the whole field is to be ignored.
    @pytest.mark.parametrize(
        "value",
        [
            b"token", b"1", b"1.5", b":aGk=:", b"?1", b"@1", b'%"a"', b"()", b'("a")', b'("a" "b")',
        ],
    )  # fmt: skip
    def test_another_type(self, value: bytes) -> None:
        assert parse_string(value) is None
        assert parse_strings(value) == ()
        assert parse_strings(b'"a", ' + value) == ()
        assert parse_strings(value + b', "a"') == ()

    def test_an_item_is_one(self) -> None:
        assert parse_string(b'"a", "b"') is None

    @given(PRINTABLE)
    def test_round_trip(self, text: str) -> None:
        assert parse_string(serialize_string(text)) == text

    def test_on_the_wire(self) -> None:
        assert serialize_string('say "hi" \\o/') == rb'"say \"hi\" \\o/"'

    @pytest.mark.parametrize("text", ["é", "\n", "\0", "\x7f", "a\tb", "€", "\udc80"])
    def test_what_a_string_cannot_hold(self, text: str) -> None:
        with pytest.raises(ValueError, match="printable ASCII"):
            serialize_string(text)
        with pytest.raises(ValueError, match="printable ASCII"):
            serialize_strings(("fine", text))


class TestParameters:
    @pytest.mark.parametrize("parameters", PARAMETERS)
    def test_they_mean_nothing(self, parameters: str) -> None:
        text = parameters.encode()
        assert parse_string(b'"a"' + text) == "a"
        assert parse_strings(b'"a"' + text + b' , "b"' + text) == ("a", "b")

    @pytest.mark.parametrize("parameters", MALFORMED_PARAMETERS)
    def test_but_they_must_be_well_formed(self, parameters: str) -> None:
        text = parameters.encode("latin-1")
        assert parse_string(b'"a"' + text) is None
        assert parse_strings(b'"a"' + text + b', "b"') == ()
        assert parse_strings(b'"b", "a"' + text) == ()


class TestList:
    @pytest.mark.parametrize(
        "value", [b'"a","b"', b'"a" ,"b"', b'"a"\t, \t"b"', b'  "a", "b"  ', b'"a";q=1,"b";x=y']
    )
    def test_separators(self, value: bytes) -> None:
        assert parse_strings(value) == ("a", "b")

    @pytest.mark.parametrize(
        "value", [b'"a",', b',"a"', b'"a",,"b"', b'"a";"b"', b'"a" "b"', b",", b'"a", ', b'"a"\xa0']
    )
    def test_malformed(self, value: bytes) -> None:
        assert parse_strings(value) == ()

    def test_an_empty_list_has_no_members(self) -> None:
        assert parse_strings(b"") == parse_strings(b"   ") == ()

    def test_order_and_repetition_are_kept(self) -> None:
        assert parse_strings(b'"b", "a", "b"') == ("b", "a", "b")

    @given(st.lists(PRINTABLE, min_size=1, max_size=5))
    def test_round_trip(self, texts: list[str]) -> None:
        assert parse_strings(serialize_strings(tuple(texts))) == tuple(texts)

    @given(st.binary(max_size=40) | st.text('";,=a1 \\?:%@.-', max_size=40).map(str.encode))
    def test_anything_is_parsed_or_ignored(self, value: bytes) -> None:
        strings = parse_strings(value)
        single = parse_string(value)
        assert single is None or strings == (single,)
        if strings:
            assert parse_strings(serialize_strings(strings)) == strings

    def test_a_long_malformed_list_takes_no_time(self) -> None:
        # Backtracking over the parameters would take longer than anybody waits.
        assert parse_strings(b'"a"' + b";a=1" * 3000 + b"!") == ()
        assert parse_strings(b'"' + b"\\\\" * 8000) == ()
