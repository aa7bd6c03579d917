"""From a target to a connection, and from there to a session.

`open_connection` looks the name up and races its addresses (RFC 8305), `establish` asks for a
session and waits for the answer, and `connect` does both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from cryptography.x509 import load_pem_x509_certificates

from ..errors import StateError
from ..events import Headers
from ..limits import Limits
from ..quic.config import EndpointConfig
from ..quic.engine import Address
from ..session import Session as CoreSession
from ..text import mask_url
from .connection import ClientConnection, SessionWaiter, Timings
from .endpoint import CatchUp
from .failures import Cause, ConnectError
from .race import Race, more_telling
from .session import Session
from .target import Target, resolve


async def connect(
    url: str,
    *,
    protocols: Sequence[str] = (),
    ca_file: str | None = None,
    certificate_hash: bytes | None = None,
    insecure: bool = False,
    config: EndpointConfig | None = None,
    limits: Limits | None = None,
    timeout: float = 5.0,
) -> Session:
    """Open a session on a connection of its own; `Session.close` ends both.

    The server's certificate is verified against the system's authorities, or those in
    `ca_file`, or by its SHA-256 `certificate_hash`. All addresses of the name are tried.
    Raises `ConnectError`, which says which step failed and why, after `timeout` seconds
    at the latest, and `ValueError` for a URL that is not WebTransport's.
    """
    target = Target.from_url(
        url, ca_file=ca_file, certificate_hash=certificate_hash, insecure=insecure
    )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    client = await open_connection(target, config=config, limits=limits, timeout=timeout)
    session = Session(client)
    try:
        await establish(client, session, protocols=protocols, timeout=deadline - loop.time())
    except BaseException:
        client.abort()
        raise
    return session


async def open_connection(
    target: Target,
    *,
    config: EndpointConfig | None = None,
    limits: Limits | None = None,
    timeout: float = 5.0,
    addresses: Sequence[tuple[int, Address]] | None = None,
    retry_delay: float | None = None,
    catch_up: CatchUp | None = None,
    named_timeout: float | None = None,
) -> ClientConnection:
    """Connect to the first address that answers; the others' attempts are given up.

    A further address is tried 250 ms after the one before, or as soon as that has failed. One
    that stays silent is tried again each second, or each `retry_delay` seconds, from another port,
    beside what is under way. Connections with the same `catch_up` share it; without it, the attempts
    share one.
    Raises `ConnectError` when all have failed, or nothing answered within `timeout`; its text
    names `named_timeout`, where that is given: a caller may have spent a part of it already.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    if target.ca_file is not None:
        check_authorities(target.ca_file)
    timings = Timings()
    if addresses is None:
        began = time.monotonic_ns()
        addresses = await resolve(target, timeout)
        timings.resolve = time.monotonic_ns() - began
    config, limits = config or EndpointConfig(), limits or Limits()
    catch_up = catch_up or CatchUp()

    def begin(family: int, address: Address) -> ClientConnection:
        return ClientConnection.begin(target, family, address, config, limits, catch_up)

    race = Race(begin, target.host, retry_delay)
    try:
        async with asyncio.timeout_at(deadline):
            winner = await race.run(addresses)
    except TimeoutError:
        seconds = named_timeout or timeout
        silence = ConnectError(
            Cause.NO_ANSWER,
            f"no answer on UDP port {target.port} of {target.host} within {seconds:g} s",
        )
        raise more_telling(race.failure, race.refused_here or silence).again() from None
    finally:
        race.abandon_losers()
    winner.timings.resolve = timings.resolve
    return winner


async def establish(
    client: ClientConnection,
    handler: SessionWaiter,
    *,
    protocols: Sequence[str] = (),
    origin: str | None = None,
    headers: Headers = (),
    timeout: float = 5.0,
) -> CoreSession:
    """Open a session and wait for the server's answer. Raises `ConnectError`."""
    began = time.monotonic_ns()
    path = mask_url(client.target.path)
    try:
        session = client.open_session(handler, protocols, origin, headers)
    except StateError as error:
        raise ConnectError(Cause.SESSION, f"no session for {path}: {error}") from None
    try:
        async with asyncio.timeout(timeout):
            await handler.wait_established()
    except BaseException as error:
        session.close(0)
        with contextlib.suppress(Exception):
            client.flush()
        if isinstance(error, TimeoutError):
            raise ConnectError(Cause.SESSION, f"no answer to the request for {path}") from None
        raise
    client.timings.session = time.monotonic_ns() - began
    return session


def check_authorities(ca_file: str) -> None:
    """Check that a PEM file has certificates to trust. Raises `ConnectError` where it has none.

    The engine would find out in the midst of a handshake.
    """
    try:
        with open(ca_file, "rb") as file:
            load_pem_x509_certificates(file.read())
    except OSError as error:
        text = f"cannot read {ca_file}: {(error.strerror or str(error)).lower()}"
        raise ConnectError(Cause.CERTIFICATE, text) from None
    except ValueError:
        raise ConnectError(
            Cause.CERTIFICATE, f"no certificate of an authority, in PEM, is in {ca_file}"
        ) from None
