"""Opens connections and sessions.

`open_connection` resolves the name and races its addresses (RFC 8305), `establish` requests a
session and waits for the answer, and `connect` does both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cryptography.x509 import load_pem_x509_certificates

from ..errors import StateError
from ..events import Headers
from ..limits import Limits
from ..quic.config import EndpointConfig
from ..quic.engine import Address
from ..quic.engines import choose
from ..session import Session as CoreSession
from ..text import mask_url
from .connection import ClientConnection, SessionWaiter, Timings
from .endpoint import ReceiveBudget
from .failures import Cause, ConnectError
from .opening import Opening
from .race import Race, more_telling
from .session import Session
from .target import Target, resolve

_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")


def connect(
    url: str,
    *,
    protocols: Sequence[str] = (),
    origin: str | None = None,
    headers: Mapping[str, str] | Headers = (),
    ca_file: str | os.PathLike[str] | None = None,
    certificate_hash: bytes | str | None = None,
    insecure: bool = False,
    config: EndpointConfig | None = None,
    limits: Limits | None = None,
    timeout: float = 5.0,
) -> Opening[Session]:
    """Open a session on its own connection, which ends with the session.

        async with connect("https://example.org/chat") as session: ...
        session = await connect("https://example.org/chat")

    It tries all addresses of the name (RFC 8305). It verifies the server's certificate with the
    system's authorities, or those in the PEM file `ca_file`; `certificate_hash` accepts only the
    certificate with that SHA-256 (32 bytes, or their hex digits), and `insecure` any certificate.

    `protocols` are the application protocols to offer, in order of preference (draft-16, section
    3.3). `origin` and `headers` are sent in the request, for example a token in `authorization`.
    `config` and `limits` are for experts.

    Raises `ConnectError`, with the failed step and the cause, after at most `timeout` seconds.
    Raises `ValueError` and `TypeError` for wrong arguments, and `EngineMissingError`, before anything
    is sent.
    """
    if sum((ca_file is not None, certificate_hash is not None, bool(insecure))) > 1:
        raise ValueError("give only one of ca_file, certificate_hash and insecure")
    target = Target.from_url(
        url, ca_file=ca_file, certificate_hash=certificate_hash, insecure=insecure
    )
    if isinstance(protocols, str):
        raise TypeError(f"protocols must be a list: [{protocols!r}]")
    if origin is not None and re.search(r"[^!-~]", origin):
        raise ValueError(f"origin must be https://host or https://host:port, not {origin!r}")
    if isinstance(timeout, str) or not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
    if not isinstance(config, EndpointConfig | None):
        raise TypeError(f"config must be an EndpointConfig, not {type(config).__name__}")
    options = _RequestOptions(tuple(protocols), origin, _field_lines(headers))
    choose((config or EndpointConfig()).engine, server=False)
    return Opening(_connect(target, options, config, limits, timeout))


class _RequestOptions(NamedTuple):
    protocols: Sequence[str]
    origin: str | None
    headers: Headers


async def _connect(
    target: Target,
    options: _RequestOptions,
    config: EndpointConfig | None,
    limits: Limits | None,
    timeout: float,
) -> Session:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    client = await open_connection(target, config=config, limits=limits, timeout=timeout)
    session = Session()
    try:
        await establish(client, session, **options._asdict(), timeout=deadline - loop.time())
    except BaseException:
        client.abort()
        raise
    session.take_connection(client)
    return session


def _field_lines(headers: Mapping[str, str] | Headers) -> Headers:
    """Fields of a request (RFC 9114, section 4.2). Raises `ValueError` and `TypeError`."""
    if isinstance(headers, Mapping):
        headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    for name, value in headers:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError("headers must be a dict of str, or pairs of bytes")
        if not _FIELD_NAME.fullmatch(name) or re.search(rb"[\0\r\n]", value):
            raise ValueError(f"not a valid header (its name must be in lower case): {name!r}")
    return headers


async def open_connection(
    target: Target,
    *,
    config: EndpointConfig | None = None,
    limits: Limits | None = None,
    timeout: float = 5.0,
    addresses: Sequence[tuple[int, Address]] | None = None,
    retry_delay: float | None = None,
    budget: ReceiveBudget | None = None,
    named_timeout: float | None = None,
) -> ClientConnection:
    """Connect to the first address that answers, and abandon the other attempts.

    The next address is tried after 250 ms, or as soon as one has failed. An address that does not
    answer gets another attempt, from another port, every second, or every `retry_delay` seconds.
    Connections with the same `budget` share it; without it, the attempts share one.

    Raises `ConnectError` if all attempts fail, or none is answered within `timeout` seconds. Its
    text says `named_timeout` instead, if that is given: the caller may have used a part of it.
    Raises `EngineMissingError`.
    """
    config, limits = config or EndpointConfig(), limits or Limits()
    choose(config.engine, server=False)  # imports it, before the time counts
    deadline = asyncio.get_running_loop().time() + timeout
    if target.ca_file is not None:
        check_authorities(target.ca_file)
    timings = Timings()
    if addresses is None:
        began = time.monotonic_ns()
        addresses = await resolve(target, timeout)
        timings.resolve = time.monotonic_ns() - began
    budget = budget or ReceiveBudget()

    def begin(family: int, address: Address) -> ClientConnection:
        return ClientConnection.begin(target, family, address, config, limits, budget)

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
    """Request a session and wait for the server's answer. Raises `ConnectError`."""
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
    """Check that a PEM file has certificates. Raises `ConnectError` if it has none.

    The engine would notice only during a handshake.
    """
    try:
        with open(ca_file, "rb") as file:
            load_pem_x509_certificates(file.read())
    except OSError as error:
        text = f"cannot read {ca_file}: {(error.strerror or str(error)).lower()}"
        raise ConnectError(Cause.CERTIFICATE, text) from None
    except ValueError:
        raise ConnectError(
            Cause.CERTIFICATE, f"no certificate in {ca_file}: it must be a PEM file"
        ) from None
