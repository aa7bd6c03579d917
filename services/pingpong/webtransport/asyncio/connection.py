"""Making connections: all addresses of a name, both families raced (RFC 8305)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates

from ..connection import Connection, ConnectionHandler
from ..errors import ProtocolError, StateError
from ..events import ConnectionClosed, Headers, Request, SessionClosed
from ..hosts import ascii_host, host_of
from ..limits import Limits
from ..quic.config import EndpointConfig, ServerIdentity
from ..quic.engine import Address, QuicConnection
from ..session import Session as CoreSession
from ..session import SessionHandler
from ..text import mask_url
from .endpoint import UdpEndpoint
from .failures import Cause, ConnectError, connection_failure, session_failure
from .race import Race, more_telling

HTTPS_PORT = 443

_AddressInfo: TypeAlias = tuple[Any, Any, int, str, Address]
"""As `socket.getaddrinfo` gives it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and what to insist on there.

    `host` is an address or a name; a name that is not in ASCII is mapped by `hosts.ascii_host`,
    which raises `ValueError` where it cannot be. `certificate_hash` is the SHA-256 of the only
    certificate to accept, whatever signed it; `family` is a socket address family, to use no other.
    """

    host: str
    port: int = HTTPS_PORT
    path: str = "/"
    ca_file: str | None = None
    certificate_hash: bytes | None = None
    insecure: bool = False
    family: int = socket.AF_UNSPEC

    def __post_init__(self) -> None:
        # Python's own lookups and TLS would each map it, by other rules.
        if not self.host.isascii():
            object.__setattr__(self, "host", ascii_host(self.host))

    @classmethod
    def from_url(cls, url: str, **options: object) -> Target:
        """Read `https://host[:port][/path][?query]`.

        Raises `ValueError` for anything else.
        """
        parts = urlsplit(url)
        host = host_of(parts.netloc)
        if parts.scheme != "https" or not host:
            raise ValueError(f"WebTransport is for https URLs: {mask_url(url)!r}")
        path = parts.path or "/"
        if parts.query:
            path = f"{path}?{parts.query}"
        if host.isascii():
            address, percent, zone = host.partition("%")
            host = f"{address.lower()}{percent}{zone}"
        return cls(host, parts.port or HTTPS_PORT, path, **options)  # type: ignore[arg-type]

    @property
    def authority(self) -> str:
        """The `:authority` of a request: without the port where it is the usual one."""
        host = self.host.partition("%")[0]
        if ":" in host:
            host = f"[{host}]"
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    @property
    def identity(self) -> ServerIdentity:
        """What the engine is to verify; the system's authorities where nothing else is said."""
        ca_file, ca_path = self.ca_file, None
        if ca_file is None:
            system = ssl.get_default_verify_paths()
            ca_file, ca_path = system.cafile, system.capath
        return ServerIdentity(
            self.host.partition("%")[0],
            ca_file=ca_file,
            ca_path=ca_path,
            certificate_hash=self.certificate_hash,
            insecure=self.insecure,
        )


@dataclass(slots=True)
class Timings:
    """How long each step of making a session took, in nanoseconds; None: not come to."""

    resolve: int | None = None
    handshake: int | None = None
    session: int | None = None


@dataclass(eq=False)
class ClientConnection(ConnectionHandler):
    """A connection to a server, on a socket of its own.

    `wait_ready` is done when the server's settings are here, or raises `ConnectError`.
    """

    target: Target
    address: Address
    endpoint: UdpEndpoint = field(init=False)
    connection: Connection = field(init=False)
    timings: Timings = field(default_factory=Timings)
    closed: ConnectionClosed | None = None
    protocol_errors: int = 0
    socket_error: Callable[[OSError], None] | None = None
    """Told of the socket's errors, such as an ICMP message that nobody listens there."""

    def __post_init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done as `wait_ready` is. Not to be cancelled."""
        self._over: asyncio.Future[None] | None = None
        self._began = time.monotonic_ns()

    @classmethod
    def begin(
        cls,
        target: Target,
        family: int,
        address: Address,
        config: EndpointConfig,
        limits: Limits,
    ) -> ClientConnection:
        """Start connecting to one address. Raises `OSError` where there is no way to it."""
        self = cls(target, address)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            # A connected socket hears of ICMP errors: a closed port is known at once.
            sock.connect(address)
            self.endpoint = UdpEndpoint(sock, config, error_received=self._socket_error)
        except BaseException:
            sock.close()
            raise

        def attach(quic: QuicConnection) -> Connection:
            self.connection = Connection(quic, self, limits)
            return self.connection

        try:
            self.endpoint.connect(address, target.identity, attach)
        except BaseException:
            self.endpoint.close()
            raise
        return self

    async def wait_ready(self) -> None:
        """Wait for the server's settings. Raises `ConnectError`."""
        await _wait_for(self.ready)

    def open_session(
        self,
        handler: SessionHandler,
        protocols: Sequence[str] = (),
        origin: str | None = None,
        headers: Headers = (),
    ) -> CoreSession:
        """Ask for a session on the target's path. Raises `StateError` as the core does."""
        request = Request(
            authority=self.target.authority,
            path=self.target.path,
            origin=origin,
            protocols=tuple(protocols),
            headers=headers,
        )
        session = self.connection.open_session(request, handler)
        self.endpoint.flush()
        return session

    def abort(self) -> None:
        """Close at once, without waiting for the peer to hear of it."""
        self.connection.close()
        self.endpoint.close()
        self.socket_error = None

    async def close(self, timeout: float = 1.0) -> None:
        """Close in order: streams that end are heard, then CONNECTION_CLOSE, then the socket.

        Draft-16, section 6: a CONNECTION_CLOSE that overtakes a session's close takes its
        code and reason, so that the peer's end of the session is waited for, briefly.
        """
        connection = self.connection
        try:
            for session in connection.sessions:
                session.close()
            self.endpoint.flush()
            if connection.closed is None and connection.has_requests:
                self._over = self._over or asyncio.get_running_loop().create_future()
                await asyncio.wait([self._over], timeout=timeout)
        finally:
            self.abort()

    # `ConnectionHandler`.

    def connection_ready(self, connection: Connection) -> None:
        """The handshake is done, and the server's settings are here."""
        self.timings.handshake = time.monotonic_ns() - self._began
        if not self.ready.done():
            self.ready.set_result(None)

    def requests_over(self, connection: Connection) -> None:
        """What `close` waits for."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """Counted; the connection's end, if it is one, says the rest."""
        self.protocol_errors += 1

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        """The end."""
        self.closed = closed
        self.requests_over(connection)
        # The last call: without this the two would keep one another alive.
        connection.handler = ConnectionHandler()
        is_authenticated = connection.quic.close_is_authenticated
        self._fail(connection_failure(closed, self.target.host, is_authenticated=is_authenticated))

    def _socket_error(self, error: OSError) -> None:
        if self.socket_error is not None:
            self.socket_error(error)
        if error.errno == errno.EMSGSIZE:
            return  # ICMP's claim, that anybody can make; QUIC finds out itself (RFC 9000, 14.2.1)
        self._fail(
            ConnectError(
                Cause.UNREACHABLE,
                f"nobody answers on UDP port {self.target.port}: {error.strerror or error}",
            )
        )

    def _fail(self, error: ConnectError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            # Whoever raced other addresses beside this one may never look at it.
            self.ready.exception()


async def resolve(target: Target) -> list[tuple[int, Address]]:
    """All addresses of a target, families in turn, the system's first choice first.

    Raises `ConnectError` with `Cause.NAME`.
    """
    try:
        found = await _look_up(target)
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise ConnectError(Cause.NAME, f"no address for {target.host}: {text}") from error
    unique = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    first = unique[0][0]
    preferred = [entry for entry in unique if entry[0] == first]
    others = [entry for entry in unique if entry[0] != first]
    turns = itertools.zip_longest(preferred, others)
    return [entry for turn in turns for entry in turn if entry is not None]


async def _look_up(target: Target) -> list[_AddressInfo]:
    """Ask the system, in a thread that nobody waits for at the end of the program."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[_AddressInfo]] = loop.create_future()
    arguments = (target, loop, answer)
    threading.Thread(target=_ask, args=arguments, name="getaddrinfo", daemon=True).start()
    try:
        return await answer
    finally:
        # What it raises remembers this frame, and all that is still in it.
        del answer, arguments


def _ask(
    target: Target, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[_AddressInfo]]
) -> None:
    found: list[_AddressInfo] = []
    failure = None
    try:
        found = socket.getaddrinfo(
            target.host, target.port, family=target.family, type=socket.SOCK_DGRAM
        )
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


def _check_authorities(ca_file: str) -> None:
    """Raises `ConnectError` here and now, where the engine would in the midst of a handshake."""
    try:
        with open(ca_file, "rb") as file:
            load_pem_x509_certificates(file.read())
    except OSError as error:
        text = f"cannot read {ca_file}: {error.strerror}"
        raise ConnectError(Cause.CERTIFICATE, text) from None
    except ValueError:
        raise ConnectError(Cause.CERTIFICATE, f"no certificate in {ca_file}") from None


async def open_connection(
    target: Target,
    *,
    config: EndpointConfig | None = None,
    limits: Limits | None = None,
    timeout: float = 5.0,
    addresses: Sequence[tuple[int, Address]] | None = None,
) -> ClientConnection:
    """Connect to the first address that answers; the others' attempts are given up.

    A further address is tried 250 ms after the one before, or as soon as that has failed. One
    that stays silent is tried again each second, from another port, beside what is under way.
    Raises `ConnectError` when all have failed, or nothing answered within `timeout`.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    if target.ca_file is not None:
        _check_authorities(target.ca_file)
    timings = Timings()
    if addresses is None:
        began = time.monotonic_ns()
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await resolve(target)
        except TimeoutError:
            raise ConnectError(
                Cause.NAME, f"no address for {target.host} within {timeout:g} s"
            ) from None
        timings.resolve = time.monotonic_ns() - began
    config, limits = config or EndpointConfig(), limits or Limits()
    race = Race(
        lambda family, address: ClientConnection.begin(target, family, address, config, limits),
        target.host,
    )
    try:
        async with asyncio.timeout_at(deadline):
            winner = await race.run(addresses)
    except TimeoutError:
        silence = ConnectError(
            Cause.NO_ANSWER,
            f"no answer on UDP port {target.port} of {target.host} within {timeout:g} s",
        )
        raise more_telling(race.failure, silence).again() from None
    finally:
        race.abandon_losers()
    winner.timings.resolve = timings.resolve
    return winner


async def _wait_for(future: asyncio.Future[None]) -> None:
    """Wait as for `asyncio.shield`. What is raised is not what the future goes on to hold."""
    await asyncio.wait([future])
    error = future.exception()
    if error is not None:
        assert isinstance(error, ConnectError)
        raise error.again()


class SessionWaiter(SessionHandler):
    """Base of handlers that somebody waits for: until established, or refused."""

    def __init__(self) -> None:
        self._established: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_established(self) -> None:
        """Wait for the server's answer. Raises `ConnectError`."""
        await _wait_for(self._established)

    def session_established(self, session: CoreSession) -> None:
        """Accepted."""
        if not self._established.done():
            self._established.set_result(None)

    def session_closed(self, session: CoreSession, closed: SessionClosed) -> None:
        """Refused, if it comes first."""
        if not self._established.done():
            self._established.set_exception(session_failure(closed, session.request.path))
            self._established.exception()


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
            client.endpoint.flush()
        if isinstance(error, TimeoutError):
            raise ConnectError(Cause.SESSION, f"no answer to the request for {path}") from None
        raise
    client.timings.session = time.monotonic_ns() - began
    return session


__all__ = [
    "ClientConnection",
    "ConnectError",
    "SessionWaiter",
    "Target",
    "Timings",
    "establish",
    "open_connection",
    "resolve",
]
