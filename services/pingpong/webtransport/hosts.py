"""Hosts, https URLs and origins, in the form for DNS, TLS and HTTP."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import idna

from .text import printable

HTTPS_PORT = 443
URL_SAFE = "%/:@!$&'()*+,;=~?"
"""Characters that are not escaped in a path or a query; % begins an escape."""

_NO_HOST = "must have a host name or address"
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://(?:\[([0-9a-f:.]+)\]|([^\s/?#@:\[\]\\]+))(?::([0-9]{1,5}))?",
    re.IGNORECASE,
)
_DEFAULT_PORTS = {"http": 80, "https": HTTPS_PORT}
_MAX_NAME = 253
_MAX_LABEL = 63
_JOINERS = "\u200c\u200d"


def ascii_host(host: str) -> str:
    """A host's name in lower case, with ASCII labels (`xn--…`), as in browsers.

    UTS 46, section 4, non-transitional: `straße.test` is not `strasse.test`. ASCII labels are not
    changed.

    Raises `ValueError` if it is not a name; the text says why.
    """
    if not host.isascii():
        mapped = idna.uts46_remap(host, std3_rules=False)
        host = ".".join(map(_a_label, mapped.split(".")))
    host = host.lower()
    if not re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", host):
        raise ValueError("a name consists of letters, digits, hyphens and dots")
    name = host.removesuffix(".")
    if len(name) > _MAX_NAME or not all(0 < len(each) <= _MAX_LABEL for each in name.split(".")):
        raise ValueError(
            f"a name has at most {_MAX_NAME} characters, and 1 to {_MAX_LABEL} between two dots"
        )
    return host


@dataclass(frozen=True, slots=True)
class Url:
    """An https URL.

    `host` is an ASCII name, or an address; an IPv6 address has no brackets, but may have a zone.
    `path` begins with a slash and includes the query.
    """

    host: str
    port: int = HTTPS_PORT
    path: str = "/"

    @classmethod
    def parse(cls, text: str, *, port: int = HTTPS_PORT, path: str = "/") -> Url:
        """Read `https://host[:port][/path][?query]`; `port` and `path` are the defaults.

        Raises `ValueError`; its text says what the URL must be, without the URL itself.
        """
        if not text.isprintable() or " " in text:
            raise ValueError("must be https://host[:port][/path]")
        if not text.lower().startswith("https://"):
            raise ValueError("must begin with https:// (WebTransport is HTTP/3, never without TLS)")
        if "#" in text:
            raise ValueError("must have no fragment (nothing from # on)")
        try:
            parts = urlsplit(text)
            given = parts.port
        except ValueError as error:
            if "NFKC" in str(error):
                what = "it has a character that is equivalent to one of /?#@:"
                raise ValueError(f"{_NO_HOST}: {what}") from None
            raise ValueError(
                "must have a port from 1 to 65535, and brackets around an IPv6 address"
            ) from None
        if "@" in parts.netloc:
            raise ValueError("must have no user name and password (nothing before @)")
        if given == 0 or parts.netloc.endswith(":"):
            raise ValueError("must have a port from 1 to 65535")
        path = quote(parts.path or path, safe=URL_SAFE)
        if parts.query:
            path += f"?{quote(parts.query, safe=URL_SAFE)}"
        return cls(_read_host(parts.netloc), given or port, path)

    @property
    def authority(self) -> str:
        """The host, and the port if it is not the default."""
        host = bracketed(self.host)
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"https://{self.authority}{self.path}"


def bracketed(host: str) -> str:
    """A host as it is written before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address, with or without a zone."""
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _read_host(netloc: str) -> str:
    # Not `hostname` of `urlsplit`, which is converted to lower case by other rules than UTS 46.
    host = netloc[1:].partition("]")[0] if netloc[:1] == "[" else netloc.partition(":")[0]
    with_zone = host.replace("%25", "%", 1)  # in a URL, % begins an escape (RFC 6874)
    if is_ipv6(with_zone):
        return with_zone
    try:
        return ascii_host(host)
    except ValueError as error:
        raise ValueError(f"{_NO_HOST}: {printable(str(error))}") from None


def serialize_origin(text: str) -> str:
    """Normalize an origin (RFC 6454, section 6.2): equal origins become equal texts.

    Scheme and host are in lower case, a name in ASCII, an address in its shortest form, without the
    scheme's default port. Raises `ValueError` if it is not an origin; `null` is not accepted.
    """
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(f"not an origin: {text!r} (https://host or https://host:port, no path)")
    scheme, address, name, port_text = match.groups()
    scheme = scheme.lower()
    try:
        host = f"[{ipaddress.IPv6Address(address)}]" if address else _ascii_name(name)
    except ValueError:
        raise ValueError(f"not an origin: {text!r} (not a host name or an address)") from None
    if port_text is None or int(port_text) == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    if not 0 < int(port_text) < 65_536:
        raise ValueError(f"not an origin: {text!r} (a port is a number from 1 to 65535)")
    return f"{scheme}://{host}:{int(port_text)}"


def _ascii_name(name: str) -> str:
    return name.lower() if name.isascii() else ascii_host(name)


def _a_label(label: str) -> str:
    # Not `idna.alabel`, which implements IDNA 2008 and accepts fewer names than UTS 46.
    if label.isascii():
        return label
    if label.startswith("xn--"):
        raise ValueError(f"{label!r} begins with xn-- but is not ASCII")
    idna.check_initial_combiner(label)
    idna.check_bidi(label)
    for position, character in enumerate(label):
        if character in _JOINERS and not idna.valid_contextj(label, position):
            raise ValueError(f"U+{ord(character):04X} joins nothing in {label!r}")
    return f"xn--{label.encode('punycode').decode('ascii')}"
