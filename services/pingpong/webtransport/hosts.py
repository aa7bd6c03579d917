"""Host names in the form that DNS, TLS and HTTP have them in."""

from __future__ import annotations

import re

import idna

_MAX_NAME = 253
_MAX_LABEL = 63
_JOINERS = "\u200c\u200d"


def ascii_host(host: str) -> str:
    """A host's name in lower case, its labels in ASCII (`xn--…`), as browsers have it.

    UTS 46, section 4, non-transitional: `straße.test` is another name than `strasse.test`. Labels
    of ASCII are taken as they are.

    Raises `ValueError` where it can be no name; the text says what is wrong with it.
    """
    if not host.isascii():
        mapped = idna.uts46_remap(host, std3_rules=False)
        host = ".".join(map(_a_label, mapped.split(".")))
    host = host.lower()
    if not re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", host):
        raise ValueError("a name has letters, digits, hyphens and dots")
    name = host.removesuffix(".")
    if len(name) > _MAX_NAME or not all(0 < len(each) <= _MAX_LABEL for each in name.split(".")):
        raise ValueError(
            f"a name has at most {_MAX_NAME} characters, and 1 to {_MAX_LABEL} between two dots"
        )
    return host


def host_of(authority: str) -> str:
    """The host in a URL's authority, without brackets.

    As it is written: `urlsplit` would put it into lower case by other rules than UTS 46 has.
    """
    rest = authority.rpartition("@")[2]
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest.partition(":")[0]


def _a_label(label: str) -> str:
    # Not `idna.alabel`: it goes by IDNA 2008, which knows fewer names than UTS 46.
    if label.isascii():
        return label
    if label.startswith("xn--"):
        raise ValueError(f"{label!r} begins like a label of ASCII, and is none")
    idna.check_initial_combiner(label)
    idna.check_bidi(label)
    for position, character in enumerate(label):
        if character in _JOINERS and not idna.valid_contextj(label, position):
            raise ValueError(f"U+{ord(character):04X} joins nothing in {label!r}")
    return f"xn--{label.encode('punycode').decode('ascii')}"
