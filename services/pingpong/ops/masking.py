"""Secrets kept out of logs and error texts: what looks like one is replaced by asterisks.

It is the last line of defence: whoever logs is not to name a secret in the first place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "***"

_SECRET_WORDS = frozenset(
    (
        *("authorization", "bearer", "cookie", "credential", "credentials", "jwt", "key"),
        *("passphrase", "passwd", "password", "secret", "token", "tokens"),
    )
)
_WORD = "authorization|cookie|passphrase|passwd|password|secret|token|(?:api|private)[_-]?key"

_PATTERNS = (
    # A private key in PEM, also where line ends are escaped, or its end was cut off.
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


def mask_text(text: str) -> str:
    """Replace what looks like a secret: keys in PEM, bearer tokens, passwords in URLs."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret: `token`, `api_key`; but not `token_file`."""
    return re.split(r"[\W_]", name.lower())[-1] in _SECRET_WORDS


def mask_values(values: Mapping[str, object]) -> dict[str, object]:
    """Replace the values of secret names, at any depth."""
    return {
        name: MASK
        if is_secret_name(name) and value is not None
        else mask_values(value)
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }
