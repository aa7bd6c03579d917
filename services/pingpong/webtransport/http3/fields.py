"""The two structured fields of WebTransport: a String, and a List of Strings (RFC 9651).

Draft-16, section 3.3: `WT-Available-Protocols` is a List and `WT-Protocol` an Item, of Strings
only. A field with any other type is ignored, and so are parameters.
"""

from __future__ import annotations

import re

_STRING = r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"'
_TOKEN = r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*"
_BARE_ITEM = (
    rf"(?:{_STRING.replace('(', '(?:', 1)}|{_TOKEN}"
    r"|-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}|@-?[0-9]{1,15}"
    r"|:[A-Za-z0-9+/]*={0,2}:|\?[01]"
    r'|%"(?:[\x20-\x21\x23-\x24\x26-\x7e]|%[0-9a-f]{2})*")'
)
_PARAMETERS = rf"(?:;[ ]*[a-z*][a-z0-9_\-.*]*(?:={_BARE_ITEM})?)*"
_ITEM = re.compile(_STRING + _PARAMETERS)
_SEPARATOR = re.compile(r"[ \t]*,[ \t]*")


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def parse_strings(value: bytes) -> tuple[str, ...]:
    """Parse a List of Strings; empty if the field must be ignored."""
    text = value.decode("latin-1").strip(" ")
    strings: list[str] = []
    position = 0
    while match := _ITEM.match(text, position):
        strings.append(_unquote(match[1]))
        position = match.end()
        if position == len(text):
            return tuple(strings)
        separator = _SEPARATOR.match(text, position)
        if separator is None:
            break
        position = separator.end()
    return ()


def parse_string(value: bytes) -> str | None:
    """Parse an Item with a String; None if the field must be ignored."""
    match = _ITEM.fullmatch(value.decode("latin-1").strip(" "))
    return _unquote(match[1]) if match else None


def serialize_string(text: str) -> bytes:
    """Serialize a String.

    Raises `ValueError` for characters other than printable ASCII (RFC 9651, section 3.3.3).
    """
    if not all(" " <= character <= "~" for character in text):
        raise ValueError(f"a string of a structured field must be printable ASCII: {text!r}")
    return b'"' + re.sub(r'(["\\])', r"\\\1", text).encode() + b'"'


def serialize_strings(texts: tuple[str, ...]) -> bytes:
    """Serialize a List of Strings. Raises `ValueError` as `serialize_string` does."""
    return b", ".join(map(serialize_string, texts))
