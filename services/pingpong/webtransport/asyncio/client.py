"""Making connections: all addresses of a name, both families raced (RFC 8305)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates

from ..config import EndpointConfig, ServerIdentity
from ..connection import Connection
from ..engine import Address, QuicConnection
from ..errors import ProtocolError, StateError
from ..events import ConnectionClosed, Request, SessionClosed
from ..handler import ConnectionHandler, SessionHandler
from ..limits import Limits
from ..session import Session as CoreSession
from .endpoint import UdpEndpoint
from .failures import Cause, ConnectError, connection_failure, session_failure

CONNECTION_ATTEMPT_DELAY = 0.25
"""Seconds before the next address is tried beside the one before (RFC 8305, section 5)."""

HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and what to insist on there.

    `certificate_hash` is the SHA-256 of a certificate to accept whoever signed it;
    `family` is a socket address family, to use no other.
    """

    host: str
    port: int = HTTPS_PORT
    path: str = "/"
    ca_file: str | None = None
    certificate_hash: bytes | None = None
    insecure: bool = False
    family: int = socket.AF_UNSPEC

    @classmethod
    def from_url(cls, url: str, **options: object) -> Target:
        """Read `https://host[:port][/path][?query]`.

        Raises `ValueError` for anything else.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"WebTransport is for https URLs: {url!r}")
        path = parts.path or "/"
        if parts.query:
            path = f"{path}?{parts.query}"
        host = parts.hostname
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
        await asyncio.shield(self.ready)

    def open_session(
        self, handler: SessionHandler, protocols: Sequence[str] = (), origin: str | None = None
    ) -> CoreSession:
        """Ask for a session on the target's path. Raises `StateError` as the core does."""
        request = Request(
            authority=self.target.authority,
            path=self.target.path,
            origin=origin,
            protocols=tuple(protocols),
        )
        session = self.connection.open_session(request, handler)
        self.endpoint.flush()
        return session

    def abort(self) -> None:
        """Close at once, without waiting for the peer to hear of it."""
        self.connection.close()
        self.endpoint.close()

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
        self._fail(connection_failure(closed, self.target.host))

    def _socket_error(self, error: OSError) -> None:
        if self.socket_error is not None:
            self.socket_error(error)
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
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            target.host, target.port, family=target.family, type=socket.SOCK_DGRAM
        )
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise ConnectError(Cause.NAME, f"no address for {target.host}: {text}") from error
    unique = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    first = unique[0][0]
    preferred = [entry for entry in unique if entry[0] == first]
    others = [entry for entry in unique if entry[0] != first]
    turns = itertools.zip_longest(preferred, others)
    return [entry for turn in turns for entry in turn if entry is not None]


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

    A further address is tried 250 ms after the one before, or as soon as that has failed.
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
    race = _Race(target, config or EndpointConfig(), limits or Limits())
    try:
        async with asyncio.timeout_at(deadline):
            winner = await race.run(addresses)
    except TimeoutError:
        silence = ConnectError(
            Cause.NO_ANSWER,
            f"no answer on UDP port {target.port} of {target.host} within {timeout:g} s",
        )
        raise _more_telling(race.failure, silence) from None
    finally:
        race.abandon_losers()
    winner.timings.resolve = timings.resolve
    return winner


class _Race:
    """Connection attempts side by side, until one gets ready."""

    def __init__(self, target: Target, config: EndpointConfig, limits: Limits) -> None:
        self.failure: ConnectError | None = None
        """What is most worth telling of the attempts that failed."""
        self._target = target
        self._config = config
        self._limits = limits
        self._attempts: dict[asyncio.Future[None], ClientConnection] = {}

    async def run(self, addresses: Sequence[tuple[int, Address]]) -> ClientConnection:
        waiting = list(addresses)
        while waiting or self._attempts:
            if waiting:
                family, address = waiting.pop(0)
                try:
                    self._begin(family, address)
                except OSError as error:
                    self._failed(self._no_way(error))
                    continue
            done, _ = await asyncio.wait(
                self._attempts,
                timeout=CONNECTION_ATTEMPT_DELAY if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for ready in done:
                attempt = self._attempts.pop(ready)
                failure = ready.exception()
                if failure is None:
                    return attempt
                attempt.abort()
                assert isinstance(failure, ConnectError)
                self._failed(failure)
        raise self.failure or ConnectError(Cause.NAME, f"no address for {self._target.host}")

    def abandon_losers(self) -> None:
        for attempt in self._attempts.values():
            attempt.abort()
        self._attempts.clear()

    def _begin(self, family: int, address: Address) -> None:
        attempt = ClientConnection.begin(self._target, family, address, self._config, self._limits)
        self._attempts[attempt.ready] = attempt

    def _failed(self, error: ConnectError) -> None:
        self.failure = error if self.failure is None else _more_telling(self.failure, error)

    def _no_way(self, error: OSError) -> ConnectError:
        return ConnectError(Cause.UNREACHABLE, f"no way to {self._target.host}: {error.strerror}")


def _more_telling(first: ConnectError | None, second: ConnectError) -> ConnectError:
    """What a server said of itself tells more than that another gave no answer."""
    silent = (Cause.NO_ANSWER, Cause.UNREACHABLE)
    if first is None or (first.cause in silent and second.cause not in silent):
        return second
    # That somebody has not answered yet, after others were refused, is the news.
    return second if second.cause is Cause.NO_ANSWER and first.cause in silent else first


class SessionWaiter(SessionHandler):
    """Base of handlers that somebody waits for: until established, or refused."""

    def __init__(self) -> None:
        self._established: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_established(self) -> None:
        """Wait for the server's answer. Raises `ConnectError`."""
        await asyncio.shield(self._established)

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
    timeout: float = 5.0,
) -> CoreSession:
    """Open a session and wait for the server's answer. Raises `ConnectError`."""
    began = time.monotonic_ns()
    try:
        session = client.open_session(handler, protocols, origin)
    except StateError as error:
        raise ConnectError(Cause.SESSION, f"no session for {client.target.path}: {error}") from None
    try:
        async with asyncio.timeout(timeout):
            await handler.wait_established()
    except BaseException as error:
        session.close(0)
        with contextlib.suppress(Exception):
            client.endpoint.flush()
        if isinstance(error, TimeoutError):
            raise ConnectError(
                Cause.SESSION, f"no answer to the request for {client.target.path}"
            ) from None
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
