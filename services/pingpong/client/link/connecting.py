"""Makes links: looks a name up, connects, shows the token, and opens a session."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from ...ping import PROTOCOL
from ...settings import PingSettings
from ...settings.files import WatchedFile
from ...webtransport import Address, Headers, StateError, Windows
from ...webtransport.asyncio import (
    Cause,
    ConnectError,
    EndpointConfig,
    Target,
    establish,
    open_connection,
    resolve,
)
from .advice import advice
from .link import Link, LinkOwner
from .presence import IDLE_TIMEOUT

_ANSWER_STREAMS = 1024
"""Streams that a server may have open for its answers (mode uni)."""
_TOKEN = re.compile(rb"[\x21-\x7e]+")


class LinkError(Exception):
    """No link could be made: `str()` says why, `advice` what to try; both for people."""

    def __init__(self, cause: str, advice: str = "") -> None:
        super().__init__(cause)
        self.advice = advice

    @property
    def text(self) -> str:
        """All of it, as one line."""
        return f"{self} ({self.advice})" if self.advice else str(self)


def target_of(url: str, settings: PingSettings) -> Target:
    """Where a URL points to, and what the settings insist on there."""
    family = socket.AF_UNSPEC
    if settings.ipv4:
        family = socket.AF_INET
    elif settings.ipv6:
        family = socket.AF_INET6
    return Target.from_url(
        url,
        ca_file=None if settings.ca_file is None else str(settings.ca_file),
        certificate_hash=settings.cert_hash,
        insecure=settings.insecure,
        family=family,
    )


def check_ca_file(settings: PingSettings) -> str | None:
    """What is wrong with the file of authorities, if there is one; a sentence for people."""
    file = settings.ca_file
    if file is None:
        return None
    try:
        x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        return f"cannot read the file {file}: {(error.strerror or str(error)).lower()} (--ca)"
    except ValueError:
        return f"no certificate of an authority, in PEM, can be read in {file} (--ca)"
    return None


def authorization(token_file: Path | None) -> Headers:
    """The header that shows the token in a file; none without a file (RFC 6750, section 2.1).

    Raises `LinkError`, which says nothing of what is in the file.
    """
    if token_file is None:
        return ()
    option = "--token-file"
    try:
        token = WatchedFile(token_file).read().strip()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LinkError(f"cannot read the file {token_file}: {reason}", option) from None
    if not token:
        raise LinkError(f"no token is in {token_file}: it is empty", option)
    if not _TOKEN.fullmatch(token):
        raise LinkError(f"no token is in {token_file}: that is one word of printable ASCII", option)
    return ((b"authorization", b"Bearer " + token),)


class Connector:
    """Makes links to one target: each on a socket of its own, after a lookup of its own.

    With `addresses`, these are connected to, whatever the name leads to by now; the certificate
    is verified for the name nevertheless. `idle_timeout` is this side's, in seconds.
    """

    def __init__(
        self,
        url: str,
        settings: PingSettings,
        *,
        idle_timeout: float = IDLE_TIMEOUT,
        addresses: Sequence[tuple[int, Address]] | None = None,
    ) -> None:
        self._target = target_of(url, settings)
        self._settings = settings
        self._idle_timeout = idle_timeout
        self._addresses = addresses

    async def connect(self, owner: LinkOwner, *, avoid: str | None = None) -> Link:
        """Make a link that tells `owner` what it does; the address `avoid` is tried last.

        Raises `LinkError`.
        """
        settings = self._settings
        headers = authorization(settings.token_file)
        timeout = min(settings.connect_timeout, settings.deadline or settings.connect_timeout)
        config = EndpointConfig(
            idle_timeout=self._idle_timeout, windows=Windows(streams_uni=_ANSWER_STREAMS)
        )
        try:
            addresses, resolve_ns = self._addresses, None
            if avoid is not None and addresses is None:
                began = time.monotonic_ns()
                found = await lookup(self._target, timeout)
                addresses = sorted(found, key=lambda entry: entry[1][0] == avoid)
                resolve_ns = time.monotonic_ns() - began
            client = await open_connection(
                self._target, config=config, timeout=timeout, addresses=addresses
            )
            if resolve_ns is not None:
                client.timings.resolve = resolve_ns
            link = Link(
                client,
                settings.mode,
                settings.size,
                settings.timeout,
                owner=owner,
                idle_timeout=self._idle_timeout,
            )
            try:
                session = await establish(
                    client, link.pinger, protocols=(PROTOCOL,), headers=headers, timeout=timeout
                )
            except BaseException:
                await client.close()
                raise
        except ConnectError as error:
            raise LinkError(str(error), advice(error, settings)) from None
        except StateError as error:
            raise LinkError(f"no session was opened: {error}") from None
        link.begin(session)
        return link


async def lookup(target: Target, timeout: float) -> list[tuple[int, Address]]:
    """All addresses of a target. Raises `ConnectError`, also after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            return await resolve(target)
    except TimeoutError:
        raise ConnectError(
            Cause.NAME, f"no address for {target.host} within {timeout:g} s"
        ) from None
