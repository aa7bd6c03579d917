"""Targets, and the lookup of their addresses."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..hosts import HTTPS_PORT, Url, ascii_host
from ..quic.config import ServerIdentity
from ..quic.engine import Address
from ..text import mask_url, printable
from .failures import Cause, ConnectError

RESOLUTION_DELAY = 0.5
"""Seconds after which a lookup of both families also asks for each family alone.

RFC 8305, section 3: a name server that drops queries for one family does not delay the other.
"""

_AddressInfo: TypeAlias = tuple[Any, Any, int, str, Address]
"""A result of `socket.getaddrinfo`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to, and which certificates to trust.

    `host` is an address or a name; a name that is not in ASCII is mapped by `hosts.ascii_host`,
    which raises `ValueError` if it cannot be. `ca_file` is a PEM file of authorities to trust instead
    of the system's. `certificate_hash` is the SHA-256, 32 bytes, of the only certificate to accept,
    by any issuer. `family` is the only socket address family to use.
    """

    host: str
    port: int = HTTPS_PORT
    path: str = "/"
    ca_file: str | None = None
    certificate_hash: bytes | None = None
    insecure: bool = False
    family: int = socket.AF_UNSPEC

    def __post_init__(self) -> None:
        # Python's lookups and TLS would map it by other rules.
        if not self.host.isascii():
            object.__setattr__(self, "host", ascii_host(self.host))

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        certificate_hash: bytes | str | None = None,
        insecure: bool = False,
        family: int = socket.AF_UNSPEC,
    ) -> Target:
        """Read `https://host[:port][/path][?query]`.

        `certificate_hash` may also be text: 64 hex digits, with or without colons. Raises
        `ValueError` for a URL that is not https or a hash that is not a SHA-256, and `TypeError`
        for arguments of other types.
        """
        if not isinstance(url, str):
            raise TypeError(f"url must be text (https://host[:port][/path]), not {_kind(url)}")
        try:
            read = Url.parse(url)
        except ValueError as error:
            raise ValueError(f"the URL '{printable(mask_url(url))}' {error}") from None
        return cls(
            read.host,
            read.port,
            read.path,
            ca_file=None if ca_file is None else file_name(ca_file, "ca_file"),
            certificate_hash=None if certificate_hash is None else _read_hash(certificate_hash),
            insecure=insecure,
            family=family,
        )

    @property
    def authority(self) -> str:
        """The `:authority` of a request, without the default port."""
        return Url(self._name, self.port).authority

    @property
    def _name(self) -> str:
        """The server's name, without an address's zone and the dot at the end of an absolute name:
        these are for lookups only."""
        return self.host.partition("%")[0].removesuffix(".")

    @property
    def identity(self) -> ServerIdentity:
        """What the engine verifies; by default with the system's authorities."""
        ca_file, ca_path = self.ca_file, None
        if ca_file is None:
            system = ssl.get_default_verify_paths()
            ca_file, ca_path = system.cafile, system.capath
        return ServerIdentity(
            self._name,
            ca_file=ca_file,
            ca_path=ca_path,
            certificate_hash=self.certificate_hash,
            insecure=self.insecure,
        )


def file_name(name: str | os.PathLike[str], argument: str) -> str:
    """The name of a PEM file. Raises `TypeError` for other types, such as the file's content."""
    path = os.fspath(name) if isinstance(name, str | os.PathLike) else name
    if not isinstance(path, str):
        raise TypeError(
            f"{argument} must be the name of a PEM file (str or Path), not {_kind(path)}"
        )
    return path


def _read_hash(value: bytes | str) -> bytes:
    if isinstance(value, str):
        try:
            value = bytes.fromhex(value.replace(":", ""))
        except ValueError:
            value = b""
    elif not isinstance(value, bytes):
        raise TypeError(f"certificate_hash must be bytes or hex digits, not {_kind(value)}")
    if len(value) != 32:
        raise ValueError("certificate_hash must be a SHA-256: 32 bytes, or 64 hex digits")
    return value


def _kind(value: object) -> str:
    return type(value).__name__


async def resolve(target: Target, timeout: float | None = None) -> list[tuple[int, Address]]:
    """All addresses of a target, alternating between families, the system's first choice first.

    Raises `ConnectError` with `Cause.NAME`, also after `timeout` seconds.
    """
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            found = await _look_up(target)
    except (OSError, UnicodeError) as error:
        if limit.expired():
            text = f"no address for {target.host} within {timeout:g} s"
            raise ConnectError(Cause.NAME, text) from None
        text = getattr(error, "strerror", None) or str(error)
        raise ConnectError(Cause.NAME, f"no address for {target.host}: {text}") from error
    unique = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    first = unique[0][0]
    preferred = [entry for entry in unique if entry[0] == first]
    others = [entry for entry in unique if entry[0] != first]
    pairs = itertools.zip_longest(preferred, others)
    return [entry for pair in pairs for entry in pair if entry is not None]


async def _look_up(target: Target) -> list[_AddressInfo]:
    """Ask the system; if that takes long, also for each family alone."""
    both = _begin_lookup(target, target.family)
    lookups = {both}
    try:
        await asyncio.wait(lookups, timeout=RESOLUTION_DELAY)
        if not both.done() and target.family == socket.AF_UNSPEC:
            lookups |= {_begin_lookup(target, one) for one in (socket.AF_INET, socket.AF_INET6)}
        waiting = lookups
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for lookup in done:
                if lookup.exception() is None:
                    return lookup.result()
            if both in done:
                break
        return both.result()
    finally:
        for lookup in lookups:
            if not lookup.cancel():
                lookup.exception()
        # An exception keeps this frame and its variables alive.
        done = waiting = set()
        del both, lookup, lookups


def _begin_lookup(target: Target, family: int) -> asyncio.Future[list[_AddressInfo]]:
    """Ask the system, in a daemon thread, so that the program can exit."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[_AddressInfo]] = loop.create_future()
    arguments = (target, family, loop, answer)
    threading.Thread(target=_ask, args=arguments, name="getaddrinfo", daemon=True).start()
    return answer


def _ask(
    target: Target,
    family: int,
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[list[_AddressInfo]],
) -> None:
    found: list[_AddressInfo] = []
    failure = None
    try:
        found = socket.getaddrinfo(target.host, target.port, family=family, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        failure = error.with_traceback(None)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_settle, answer, found, failure)


def _settle(
    answer: asyncio.Future[list[_AddressInfo]],
    found: list[_AddressInfo],
    failure: Exception | None,
) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(found)
    else:
        answer.set_exception(failure)
