"""The types of settings: they parse text, and their errors say what it must be."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

from pydantic import BeforeValidator, Field

from ..ping import HEADER_SIZE
from ..webtransport import (
    MASK,
    URL_SAFE,
    Url,
    ascii_host,
    is_ipv6,
    mask_url,
    printable,
    serialize_origin,
)

DEFAULT_PORT = 4433
DEFAULT_PATH = "/ping"
SRV = re.compile(
    r"srv://(?P<service>_[a-z0-9-]+\._udp)\.(?P<domain>[^/?#@:\s]+)(?P<path>/.*)?", re.IGNORECASE
)
"""Targets from DNS records of a service."""
ENDPOINT_SLICE = re.compile(
    r"(?i:endpointslice)://(?P<namespace>[a-z0-9-]{1,63})/(?P<service>[a-z0-9-]{1,63})"
    r"(:(?P<port>[a-z0-9-]{1,15}))?(?P<path>/.*)?"
)
"""Targets from the pods of a Service of Kubernetes."""
MAX_SIZE = 1_048_576

_MAX_QUOTED = 100


def not_empty(value: object) -> object:
    """Refuse the empty text.

    Raises:
        ValueError: it is empty.
    """
    if value == "":
        raise ValueError("must not be empty")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def read_url(value: object) -> object:
    """Read ``host``, ``host:port`` or an https URL, as a complete https URL.

    Raises:
        ValueError: it is not an https URL.
    """
    if not isinstance(value, str):
        return value
    if re.match(r"(srv|endpointslice)://", value, re.IGNORECASE):
        raise ValueError(
            "must be https://host[:port][/path] or host[:port]; only `probe` takes srv:// and"
            " endpointslice://"
        )
    if re.match(r"https?:|.*://", value, re.IGNORECASE):
        return str(Url.parse(value))
    host = f"[{value}]" if is_ipv6(value) else value
    return str(Url.parse(f"https://{host}", port=DEFAULT_PORT, path=DEFAULT_PATH))


def _read_name(name: str) -> str:
    try:
        return ascii_host(name)
    except ValueError as error:
        reason = printable(str(error))
        raise ValueError(f"must have a host name or address: {reason}") from None


def read_host(value: str) -> str:
    """Read a host as a certificate names it: an IP address, or a name that may begin with ``*.``.

    Raises:
        ValueError: it is neither.
    """
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        star = "*." if value.startswith("*.") else ""
        return star + _read_name(value.removeprefix(star))


def read_hash(value: object) -> object:
    """Read a SHA-256 from hex, with or without colons, or base64.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, str):
        return value
    digits = value.replace(":", "")
    if re.fullmatch(r"[0-9a-fA-F]{64}", digits):
        return bytes.fromhex(digits)
    try:
        decoded = base64.b64decode(
            value.translate(str.maketrans("-_", "+/")).rstrip("=") + "=", validate=True
        )
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise ValueError(
            "must be a SHA-256: 64 hex digits, with or without colons, or 32 bytes in base64"
        )
    return decoded


def read_secret_file(value: object) -> object:
    """Refuse a secret where the name of its file is expected.

    Raises:
        ValueError: the value is empty, or looks like a token or a key.
    """
    if looks_secret(not_empty(value)):
        raise ValueError("must be the name of a file; this looks like the secret itself")
    return value


def looks_secret(value: object) -> bool:
    """Whether a text looks like a token or a key, which must not be shown."""
    text = str(value).strip()
    if "PRIVATE KEY" in text or re.match(r"Bearer\s", text, re.IGNORECASE):
        return True
    is_token = re.fullmatch(r"[A-Za-z0-9_\-.=+~]{24,}", text) is not None
    is_name = "." in text and re.fullmatch(r"[a-z0-9.-]+", text) is not None
    return is_token and not is_name and not os.path.exists(text)  # a Path raises at a long one


def quoted(text: str) -> str:
    """A value for display: on one line, truncated, and without the secrets of a URL."""
    text = re.sub(r"[^/@]+@", f"{MASK}@", text)  # also where there is no scheme before it
    text = re.sub(r"\S+", lambda word: mask_url(word[0]), text)
    return shlex.quote(printable(text, _MAX_QUOTED))


T = TypeVar("T")


def comma_separated(read: Callable[[str], object]) -> Callable[[object], object]:
    """A reader of several values: text separated by commas or space, or a list of such texts.

    Order is kept; duplicates are removed.
    """

    def read_all(value: object) -> object:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            return value
        words = [word for text in texts for word in re.split(r"[,\s]+", str(text)) if word]
        values = []
        for word in words:
            try:
                values.append(read(word))
            except ValueError as error:
                which = f"{quoted(word)} " if len(words) > 1 else ""
                raise ValueError(f"{which}{error}") from None
        return tuple(dict.fromkeys(values))

    return read_all


def at_least_one(value: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse an empty tuple.

    Raises:
        ValueError: it is empty.
    """
    if not value:
        raise ValueError("must not be empty")
    return value


def read_source(value: object) -> object:
    """Read a source of targets: a URL, ``srv://name`` or ``endpointslice://ns/service``.

    Raises:
        ValueError: it is none of them.
    """
    if not isinstance(value, str):
        return value
    scheme, separator, rest = value.partition("://")
    scheme = scheme.lower()
    if not separator or scheme == "https":
        return read_url(value)
    if scheme == "srv":
        match = SRV.fullmatch(value)
        if match is None:
            raise ValueError(
                "must be srv://_service._udp.name, as in srv://_webtransport._udp.name"
            )
        service, domain = match["service"].lower(), _read_name(match["domain"])
        return f"srv://{service}.{domain}{quote(match['path'] or '', safe=URL_SAFE)}"
    if scheme == "endpointslice":
        if not ENDPOINT_SLICE.fullmatch(value):
            raise ValueError("must be endpointslice://namespace/service[:port][/path]")
        return f"endpointslice://{quote(rest, safe=URL_SAFE)}"
    raise ValueError("must be host[:port], or begin with https://, srv:// or endpointslice://")


def read_origin(value: object) -> object:
    """Read a browser's origin, ``https://host[:port]``, or ``*`` for any.

    Raises:
        ValueError: it is not an origin (RFC 6454, section 6.1).
    """
    if not isinstance(value, str) or value == "*":
        return value
    try:
        return serialize_origin(value)
    except ValueError:
        raise ValueError("must be origins, https://host[:port] without a path, or *") from None


Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
FilePath = Annotated[Path, BeforeValidator(not_empty)]
SecretFilePath = Annotated[Path, BeforeValidator(read_secret_file)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Literal["auto", "json", "console"]
Port = Annotated[int, Field(ge=0, le=65_535)]
PingSize = Annotated[int, Field(ge=HEADER_SIZE, le=MAX_SIZE)]

ENGINE_HELP = (
    "the implementation of QUIC: aioquic, quinn (built with make engine) or auto, which is quinn for"
    " clients where it is installed, and else aioquic"
)
LOG_LEVEL_HELP = "lowest level of events to log: debug, info, warning or error"
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
