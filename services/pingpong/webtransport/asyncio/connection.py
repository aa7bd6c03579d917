"""A client's connection, and the wait for it and for a session on it."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from ..connection import Connection, ConnectionHandler
from ..errors import ProtocolError
from ..events import ConnectionClosed, Headers, Request, SessionClosed
from ..limits import Limits
from ..quic.config import EndpointConfig
from ..quic.engine import Address, QuicConnection
from ..session import Session as CoreSession
from ..session import SessionHandler
from .endpoint import ReceiveBudget, UdpEndpoint
from .failures import Cause, ConnectError, connection_failure, session_failure
from .target import Target

REFUSED_HERE = frozenset({errno.EPERM, errno.EACCES})
"""Errors of this machine's firewall. The packet is lost; QUIC sends its data again."""


@dataclass(slots=True)
class Timings:
    """The duration of each step of opening a session, in nanoseconds; None: not done."""

    resolve: int | None = None
    handshake: int | None = None
    session: int | None = None


@dataclass(eq=False)
class ClientConnection(ConnectionHandler):
    """A connection to a server, on its own socket.

    `wait_ready` waits for the server's settings, or raises `ConnectError`.
    """

    target: Target
    address: Address
    endpoint: UdpEndpoint = field(init=False)
    connection: Connection = field(init=False)
    timings: Timings = field(default_factory=Timings)
    closed: ConnectionClosed | None = None
    protocol_errors: int = 0
    socket_error: Callable[[OSError], None] | None = None
    """Called with the socket's errors, such as an ICMP message of a closed port."""
    refused_here: OSError | None = None
    """The error with which this machine blocked a packet."""

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
        budget: ReceiveBudget | None = None,
    ) -> ClientConnection:
        """Start connecting to one address. Raises `OSError` if there is no route to it."""
        self = cls(target, address)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            # A connected socket gets ICMP errors, such as that of a closed port.
            sock.connect(address)
            self.endpoint = UdpEndpoint(
                sock, config, error_received=self._socket_error, budget=budget
            )
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

    @property
    def idle_timeout(self) -> float:
        """The negotiated idle timeout, in seconds."""
        return self.connection.quic.idle_timeout

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The server's certificate; None before the server sent it."""
        return self.connection.quic.peer_certificate

    @property
    def received_packets(self) -> int:
        """Packets that the socket received, including `stray_packets`."""
        return self.endpoint.pump.received_packets

    @property
    def stray_packets(self) -> int:
        """Received packets that do not belong to the connection; they may be forged."""
        return self.endpoint.engine.counters.dropped_packets

    @property
    def sent_packets(self) -> int:
        """Packets that the socket accepted."""
        return self.endpoint.pump.sent_packets

    @property
    def unsent_packets(self) -> int:
        """Packets that the socket did not accept."""
        return self.endpoint.pump.dropped_packets

    def flush(self) -> int:
        """Send queued packets now. Returns the time, as `UdpEndpoint.flush` does."""
        return self.endpoint.flush()

    def receive_backlog(self) -> None:
        """Process the packets that arrived while the process was busy or suspended."""
        self.endpoint.receive_backlog()

    def ping(self) -> None:
        """Send a PING frame, which the server acknowledges: it keeps the connection alive."""
        self.connection.quic.ping()

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
        self.flush()
        return session

    def abort(self) -> None:
        """Close at once, without waiting for the peer."""
        self.connection.close()
        self.endpoint.close()
        self.socket_error = None

    async def close(self, timeout: float = 1.0) -> None:
        """Close the sessions, then send CONNECTION_CLOSE, then close the socket.

        It waits at most `timeout` seconds for the server to end the sessions: a CONNECTION_CLOSE
        that overtakes the close of a session would replace its code and reason (draft-16, section 6).
        """
        connection = self.connection
        try:
            for session in connection.sessions:
                session.close()
            self.flush()
            if connection.closed is None and connection.has_connect_streams:
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

    def connect_streams_closed(self, connection: Connection) -> None:
        """Wake `close`: no request is left."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """Count it."""
        self.protocol_errors += 1

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        """Note the end, and fail `wait_ready`."""
        self.closed = closed
        self.connect_streams_closed(connection)
        # This is the last call; without the reference cycle both are freed.
        connection.handler = ConnectionHandler()
        is_authenticated = connection.quic.close_is_authenticated
        failure = connection_failure(closed, self.target.host, is_authenticated=is_authenticated)
        failure.certificate = connection.quic.peer_certificate
        self._fail(failure)

    def _socket_error(self, error: OSError) -> None:
        if self.socket_error is not None:
            self.socket_error(error)
        if error.errno == errno.EMSGSIZE:
            return  # ICMP may be forged; QUIC probes the size itself (RFC 9000, section 14.2.1)
        if error.errno in REFUSED_HERE:
            self.refused_here = error
            return
        self._fail(
            ConnectError(
                Cause.UNREACHABLE,
                f"UDP port {self.target.port} is unreachable: {error.strerror or error}",
            )
        )

    def _fail(self, error: ConnectError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            # A race may never retrieve it.
            self.ready.exception()


class SessionWaiter(SessionHandler):
    """Base of handlers with `wait_established`."""

    def __init__(self) -> None:
        self._established: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_established(self) -> None:
        """Wait for the server's answer. Raises `ConnectError`."""
        await _wait_for(self._established)

    def session_established(self, session: CoreSession) -> None:
        """Wake `wait_established`."""
        if not self._established.done():
            self._established.set_result(None)

    def session_closed(self, session: CoreSession, closed: SessionClosed) -> None:
        """Fail `wait_established`, if the session was never established."""
        if not self._established.done():
            self._established.set_exception(session_failure(closed, session.request.path))
            self._established.exception()


async def _wait_for(future: asyncio.Future[None]) -> None:
    """Wait without cancelling the future. It raises a copy of the future's exception."""
    await asyncio.wait([future])
    error = future.exception()
    if error is not None:
        assert isinstance(error, ConnectError)
        raise error.again()
