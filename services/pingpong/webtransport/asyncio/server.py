"""Serves sessions: `listen` with callbacks, `serve` with a coroutine for each session."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from ..certificates import Certificate, make_certificate, parse_certificate, unreadable
from ..connection import Connection, ConnectionHandler
from ..errors import ErrorCode, ProtocolError, SessionClosedError, StreamResetError
from ..events import ConnectionClosed, Request, SessionClosed
from ..limits import Limits
from ..quic.config import EndpointConfig
from ..quic.engine import Address, EndpointCounters, QuicConnection
from ..session import Session as CoreSession
from ..states import State
from ..udp.forwarding import PacketForwarder
from ..udp.sockets import BufferSize, bind_udp
from .endpoint import UdpEndpoint
from .opening import Closable, Closing, Opening, finish
from .session import Session
from .target import file_name

logger = logging.getLogger("pingpong.webtransport")

HANDLER_FAILED = 1
"""The close code of a session whose handler raised an exception."""


class Listener(ConnectionHandler):
    """A server on one UDP socket; passes the events of its connections to `handler`."""

    def __init__(self, handler: ConnectionHandler, limits: Limits) -> None:
        self.endpoint: UdpEndpoint
        self.connections: set[Connection] = set()
        """The open connections."""
        self._handler = handler
        self._limits = limits
        self._closing = False
        self._over: asyncio.Future[None] | None = None

    @property
    def local_address(self) -> Address:
        """The address that the socket is bound to."""
        return self.endpoint.local_address

    @property
    def port(self) -> int:
        """The UDP port."""
        return int(self.local_address[1])

    @property
    def counters(self) -> EndpointCounters:
        """The counters of the QUIC engine."""
        return self.endpoint.engine.counters

    @property
    def unfinished_handshakes(self) -> int:
        """The number of handshakes in progress."""
        return self.endpoint.engine.unfinished_handshakes

    @property
    def receive_buffer(self) -> BufferSize:
        """The size of the socket's receive buffer: requested, and set by the kernel."""
        return self.endpoint.pump.receive_buffer

    @property
    def overflowed_packets(self) -> int:
        """Packets that the kernel dropped because the receive buffer was full."""
        return self.endpoint.pump.overflowed_packets

    @property
    def unsent_packets(self) -> int:
        """Packets that the socket did not accept."""
        return self.endpoint.pump.dropped_packets

    def receive_pending(self) -> bool:
        """Process at most a batch of waiting packets. Returns whether there were any."""
        return self.endpoint.receive_pending()

    def use_certificate(self, certificate: Certificate) -> None:
        """Use another certificate for new handshakes."""
        self.endpoint.engine.use_certificate(certificate)

    def attach(self, quic: QuicConnection) -> Connection:
        """Make the HTTP/3 connection on a new QUIC connection."""
        connection = Connection(quic, self, self._limits)
        self.connections.add(connection)
        return connection

    def drain(self) -> None:
        """Drain all sessions, and accept no more on their connections."""
        for connection in list(self.connections):
            connection.drain()
        self.endpoint.flush()

    async def close_sessions(self, code: int = 0, reason: str = "", timeout: float = 1.0) -> None:
        """Close all sessions with a code and a reason, and refuse new ones with 503.

        Waits at most `timeout` seconds for the peers. Connections stay open.
        """
        self._closing = True
        for connection in list(self.connections):
            for session in connection.sessions:
                session.close(code, reason)
        self.endpoint.flush()
        if self._has_requests():
            self._over = self._over or asyncio.get_running_loop().create_future()
            await asyncio.wait([self._over], timeout=timeout)

    async def close(self, code: int = 0, reason: str = "", timeout: float = 1.0) -> None:
        """Close all sessions as `close_sessions` does, then connections, then the socket.

        In that order, because a CONNECTION_CLOSE that overtakes the sessions' ends would replace
        the code (draft-16, section 6).
        """
        try:
            await self.close_sessions(code, reason, timeout)
        finally:
            for connection in list(self.connections):
                connection.close(ErrorCode.H3_NO_ERROR)
            self.endpoint.close()

    # `ConnectionHandler`.

    def connection_ready(self, connection: Connection) -> None:
        """Pass it on: the settings were exchanged."""
        self._handler.connection_ready(connection)

    def session_requested(self, session: CoreSession) -> None:
        """Pass it on; while closing, reject it."""
        if self._closing:
            session.reject(503)
        else:
            self._handler.session_requested(session)

    def request_refused(self, session: CoreSession, closed: SessionClosed) -> None:
        """Pass it on: the connection refused a request."""
        self._handler.request_refused(session, closed)

    def connect_streams_closed(self, connection: Connection) -> None:
        """Pass it on, and wake `close_sessions` if it was the last one."""
        self._handler.connect_streams_closed(connection)
        self._check_over()

    def session_request_timed_out(self, connection: Connection) -> None:
        """Pass it on, and log it for debugging."""
        logger.debug("peer %s asked for no session", connection.remote_address)
        self._handler.session_request_timed_out(connection)

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """Pass it on, and log it for debugging."""
        logger.debug("peer %s broke the rules: %s", connection.remote_address, error)
        self._handler.protocol_error(connection, error)

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        """Forget the connection, and pass it on."""
        self.connections.discard(connection)
        self._handler.connection_closed(connection, closed)
        self._check_over()

    def _has_requests(self) -> bool:
        return any(connection.has_connect_streams for connection in self.connections)

    def _check_over(self) -> None:
        if self._over is not None and not self._over.done() and not self._has_requests():
            self._over.set_result(None)


def listen(
    handler: ConnectionHandler,
    host: str = "::",
    port: int = 0,
    *,
    config: EndpointConfig,
    limits: Limits | None = None,
    sock: socket.socket | None = None,
    forwarder: PacketForwarder | None = None,
    answered: Callable[[int], None] | None = None,
) -> Listener:
    """Accept connections on a UDP port (0: any). Call it with a running event loop.

    One of several workers on a port passes `sock`, from `steering.bind_group`, instead of host and
    port, and a `forwarder` to the others; `config` has its number. The listener owns both, and
    closes them if this raises.

    `answered` is called when the answers to a batch of packets were sent, with the time of the
    monotonic clock in nanoseconds.

    Raises `OSError` if the port cannot be bound, `ValueError` if `config` has no certificate.
    """
    listener = Listener(handler, limits or Limits())
    try:
        if config.certificate is None:
            raise ValueError("a server needs a certificate: config=EndpointConfig(certificate=…)")
        if sock is None:
            sock = bind_udp(host, port)
        listener.endpoint = UdpEndpoint(
            sock, config, listener.attach, forwarder=forwarder, answered=answered
        )
    except BaseException:
        if sock is not None:
            sock.close()
        if forwarder is not None:
            forwarder.close()
        raise
    return listener


Decision: TypeAlias = int | str | None
"""For a request: an HTTP status (300 to 599) to reject it; one of its protocols (draft-16, section 3.3)
to accept it with; None to accept it without a protocol."""


def read_certificate(
    certificate_file: str | os.PathLike[str], private_key_file: str | os.PathLike[str]
) -> Certificate:
    """Read a certificate, the server's own first, then its chain, and its key, from PEM files.

    Raises `CertificateError`, whose text says which file cannot be used, and why.
    """
    files = (
        Path(file_name(certificate_file, "certificate_file")),
        Path(file_name(private_key_file, "private_key_file")),
    )
    try:
        certificate, key = (file.read_bytes() for file in files)
    except OSError as error:
        raise unreadable(error, *files) from None
    return parse_certificate(certificate, key, *files)


class Server(ConnectionHandler, Closable):
    """A server that runs a coroutine for each session, from `serve`."""

    def __init__(
        self,
        handler: Callable[[Session], Awaitable[None]],
        decide: Callable[[Request], Decision],
        certificate: Certificate,
    ) -> None:
        self.listener: Listener
        """The listener with callbacks."""
        self._handler = handler
        self._decide = decide
        self._certificate = certificate
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def port(self) -> int:
        """The UDP port."""
        return self.listener.port

    @property
    def certificate_hash(self) -> bytes:
        """The SHA-256 of the certificate, 32 bytes: `connect`'s `certificate_hash`, and a browser's
        `serverCertificateHashes`."""
        return self._certificate.sha256

    def use_certificate(self, certificate: Certificate) -> None:
        """Use another certificate for new handshakes."""
        self.listener.use_certificate(certificate)
        self._certificate = certificate

    async def serve_forever(self) -> None:
        """Wait until the server is closed, by another task."""
        await asyncio.wait([self._over])

    def drain(self) -> None:
        """Drain all sessions, and accept no more on their connections."""
        self.listener.drain()

    def close(self, code: int = 0, reason: str = "") -> Awaitable[None]:
        """Close all sessions, and the socket. Another call does nothing.

        Await the result to wait until the peers have answered, at most a second, and the handlers
        have ended; handlers that still run after that are cancelled. Raises `ValueError` for a code
        of more than 32 bits.
        """
        if not 0 <= code <= 0xFFFF_FFFF:
            raise ValueError(f"a close code has 32 bits: {code}")
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(code, reason))
        closing = self._closing
        return Closing(lambda: finish(closing))

    async def _close(self, code: int, reason: str) -> None:
        try:
            await self.listener.close(code, reason)
        finally:
            for task in self._tasks:
                task.cancel()
            self._over.set_result(None)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def session_requested(self, session: CoreSession) -> None:
        """`ConnectionHandler`."""
        awaitable = Session()
        try:
            decision = self._decide(session.request)
            if isinstance(decision, bool) or not isinstance(decision, Decision):
                raise TypeError(
                    f"decide must return an HTTP status, a protocol or None, not {decision!r}"
                )
            if isinstance(decision, int):
                if not 300 <= decision <= 599:
                    raise ValueError(f"the status must be from 300 to 599: {decision}")
                session.reject(decision)
            else:
                session.accept(awaitable, decision)
        except Exception:
            logger.exception("deciding on a session on %s failed", session.request.path)
            if session.state is State.REQUESTED:
                session.reject(500)
        if session.state is State.ESTABLISHED:
            task = asyncio.get_running_loop().create_task(self._run(awaitable))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, session: Session) -> None:
        path = session.request.path
        try:
            await self._handler(session)
        except Exception as error:
            if _is_only(error, SessionClosedError, StreamResetError) and session.closed.done():
                pass  # The session ended while the handler waited for it.
            elif _is_only(error, StreamResetError):
                # The peer caused it, not the handler: no traceback.
                logger.debug("the handler of a session on %s ended: %s", path, error)
                session.close(HANDLER_FAILED, "a stream was reset")
            else:
                logger.exception("the handler of a session on %s failed", path)
                session.close(HANDLER_FAILED, "internal error")
        finally:
            session.close()


def _is_only(error: BaseException, *kinds: type[Exception]) -> bool:
    """Whether an error, or each error of a group (`asyncio.TaskGroup`), is of these kinds."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[1] is None
    return isinstance(error, kinds)


def serve(
    handler: Callable[[Session], Awaitable[None]],
    host: str = "::",
    port: int = 0,
    *,
    certificate_file: str | os.PathLike[str] | None = None,
    private_key_file: str | os.PathLike[str] | None = None,
    self_signed: bool = False,
    config: EndpointConfig | None = None,
    limits: Limits | None = None,
    decide: Callable[[Request], Decision] = lambda request: None,
) -> Opening[Server]:
    """Run the coroutine `handler` for each session that `decide` accepts.

        async with serve(handler, port=4433, certificate_file=…, private_key_file=…) as server: ...
        server = await serve(handler, port=4433, self_signed=True)

    A session is closed when its handler returns, and with code 1 (`HANDLER_FAILED`) if it raises,
    which is logged. `decide` is a plain function, called when a request arrives.

    `host` is an address or a name, "::" for all addresses of both families, and `port` a UDP port,
    0 for any. The certificate is read from PEM files, `certificate_file` with its chain; or, for
    development, `self_signed`: ECDSA, valid for 13 days, for clients and browsers that get its
    `Server.certificate_hash`. `config`, which may also have the certificate, and `limits` are for
    experts.

    Raises `CertificateError` for files that cannot be used, `OSError` if the port cannot be bound,
    and, before it is awaited, `TypeError` and `ValueError` for wrong arguments.
    """
    for name, function in (("handler", handler), ("decide", decide)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, not {type(function).__name__}")
    if inspect.iscoroutinefunction(decide):
        raise TypeError("decide must be a plain function, not a coroutine function")
    if not isinstance(host, str):
        raise TypeError(f"host must be text, not {type(host).__name__}")
    if not isinstance(port, int) or not 0 <= port < 65_536:
        raise ValueError(f"port must be a number from 0 to 65535, not {port!r}")
    if not isinstance(config, EndpointConfig | None):
        raise TypeError(f"config must be an EndpointConfig, not {type(config).__name__}")
    config = config or EndpointConfig()
    ways = (certificate_file or private_key_file, self_signed, config.certificate)
    if sum(map(bool, ways)) != 1:
        raise ValueError(
            "a server needs one certificate: certificate_file and private_key_file, or"
            " self_signed=True, or config=EndpointConfig(certificate=…)"
        )
    if (certificate_file is None) is not (private_key_file is None):
        raise ValueError("certificate_file and private_key_file must be given together")
    if certificate_file is not None and private_key_file is not None:
        config = replace(config, certificate=read_certificate(certificate_file, private_key_file))
    elif self_signed:
        config = replace(config, certificate=_self_signed(host))
    return Opening(_serve(handler, host, port, config, limits, decide))


async def _serve(
    handler: Callable[[Session], Awaitable[None]],
    host: str,
    port: int,
    config: EndpointConfig,
    limits: Limits | None,
    decide: Callable[[Request], Decision],
) -> Server:
    assert config.certificate is not None
    if warning := config.certificate.warning(datetime.now(UTC)):
        logger.warning("%s", warning)
    server = Server(handler, decide, config.certificate)
    server.listener = listen(server, host, port, config=config, limits=limits)
    return server


def _self_signed(host: str) -> Certificate:
    now = datetime.now(UTC)
    names = ["localhost", "127.0.0.1", "::1"]
    with contextlib.suppress(ValueError):  # "" is not a name
        return make_certificate([*names, host], now)
    return make_certificate(names, now)
