"""Masks secrets in logs, pages and error texts with asterisks.

It is the last line of defence: code should not log secrets at all. `shown` also makes texts
printable; it is applied once, when a text is output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..webtransport import MASK as MASK
from ..webtransport import mask_url, printable

MAX_SHOWN = 4096
"""Maximum characters of a text in a log or on a page; longer ones are truncated."""

_SECRET_WORDS = frozenset(
    (
        *("authorization", "bearer", "cookie", "credential", "credentials", "jwt", "key"),
        *("passphrase", "passwd", "password", "secret", "token", "tokens"),
    )
)
_WORD = "authorization|cookie|passphrase|passwd|password|secret|token|(?:api|private)[_-]?key"

_PATTERNS = (
    # A private key in PEM, also with escaped line ends, or truncated.
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL),
        MASK,
    ),
    # The credentials of an Authorization header (RFC 6750, RFC 7617).
    (re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1\2{MASK}"),
    # A JSON Web Token, as service accounts have.
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), MASK),
    # A URL's user name and password.
    (re.compile(r"://[^/\s@\"']+@"), f"://{MASK}@"),
    # password=…, and "password": "…" in a text of JSON or of Python, escaped or not.
    (
        re.compile(
            rf"\b({_WORD})(=|\\?[\"']\s*:\s*b?\\?[\"'])(?!\*)[^\s\"'&,;}}\\]+", re.IGNORECASE
        ),
        rf"\1\2{MASK}",
    ),
)

# A word up to its first ? or #, and the rest: a URL or path with its query or fragment. It matches
# at the start of a word only, so a long word is scanned once.
_QUERY = re.compile(r"""(?<![^\s"<>])([^\s"<>?#]*+)([?#][^\s"<>\\]+)""")
_PLAIN = re.compile(r"[\w./-]*")
"""A fast path: most values are words that no pattern matches, except for JSON Web Tokens."""
_NOT_OF_A_URL = "',.:;)]}"
"""Punctuation that does not belong to a URL at the end of it."""


def redact(text: str) -> str:
    """Mask secrets in a text: PEM keys, bearer tokens, passwords, and queries of URLs."""
    if _PLAIN.fullmatch(text) and "eyJ" not in text:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return _QUERY.sub(_mask_query, text)


def _mask_query(match: re.Match[str]) -> str:
    before, found = match.groups()
    # A # without a scheme is part of a target's label.
    if "/" not in before or (found[0] == "#" and "://" not in before):
        return match[0]
    query = found.rstrip(_NOT_OF_A_URL)
    return f"{mask_url(before + query)}{found[len(query) :]}" if query[1:] else match[0]


def shown(value: Any, limit: int | None = MAX_SHOWN) -> Any:
    """A value for output: all texts in it, at any depth, are redacted and printable."""
    if isinstance(value, str):
        return printable(redact(value), limit)
    if isinstance(value, Mapping):
        return {name: shown(each, limit) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [shown(each, limit) for each in value]
    return value


def is_secret_name(name: str) -> bool:
    """Whether a value with this name is a secret: `token`, `api_key`, but not `token_file`."""
    return re.split(r"[\W_]", name.lower())[-1] in _SECRET_WORDS


def redact_values(values: Mapping[str, object]) -> dict[str, object]:
    """Mask the values of secret names, at any depth."""
    return {
        name: MASK
        if is_secret_name(name) and value is not None
        else redact_values(value)
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }
