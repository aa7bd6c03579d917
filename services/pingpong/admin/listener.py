"""Connections of the admin port, and their limits.

aiohttp does not limit the number of connections, and not all of their time. If there are too many,
the least recently used one is closed: a client that sends its requests slowly, or does not read the
answers, does not keep others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from ..telemetry.redaction import shown

NAME = "pingpong"
"""The `Server` header, instead of aiohttp's, which shows versions."""

_MAX_UNREAD = 65_536
"""Bytes of a request, its body included."""
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bind a listening socket; `::` includes IPv4, and is `0.0.0.0` on a system without IPv6.

    Raises:
        OSError: the address cannot be bound; socket.gaierror: `host` has no address.
    """
    if host in ("", "::"):
        with contextlib.suppress(ValueError):  # not on this system
            try:
                return socket.create_server(
                    ("::", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
            except OSError as error:
                if error.errno not in _NO_IPV6:
                    raise
        host = "0.0.0.0"
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server((str(address[0]), port), family=family)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of connections: their number, and times in seconds."""

    connections: int = 64
    timeout: float = 5.0
    """For a TLS handshake, for making a response, and for sending it, each."""
    idle_timeout: float = 60.0
    """For a request to arrive completely."""


class _Connection(web.RequestHandler):
    """One client."""

    def __init__(self, server: web.Server, listener: Listener, accepted: socket.socket) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast(logging.Logger, None),
            keepalive_timeout=listener.bounds.idle_timeout,
            lingering_time=listener.bounds.timeout,
            max_headers=64,
            auto_decompress=False,
        )
        self.listener = listener
        self._accepted = accepted
        self.unread = 0
        """Bytes received since the answer to the last request began."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # `drain` then waits until everything is sent, and closing does not wait for the client.
        cast(asyncio.Transport, transport).set_write_buffer_limits(0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.listener.forget(self)

    def data_received(self, data: bytes) -> None:
        self.unread += len(data)
        if self.unread > _MAX_UNREAD:
            self.abort()
        else:
            super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if message is None:
            return super().handle_error(request, status, exc)
        reason = shown(message.partition("\n")[0]).rstrip(": ")
        response = web.Response(
            text=f"invalid request: {reason}\n",
            status=status,
            headers={"Server": NAME},
        )
        response.force_close()
        return response

    def abort(self) -> None:
        """Close it without waiting for the client, also during its handshake."""
        if self.transport is not None:
            self.transport.abort()
        else:
            with contextlib.suppress(OSError):
                self._accepted.shutdown(socket.SHUT_RDWR)


class Listener:
    """Accepts connections, whose requests `application` answers."""

    def __init__(self, application: web.Application, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        application.middlewares.insert(0, _bounded)
        self._runner = web.AppRunner(
            application, handle_signals=False, handler_cancellation=True, shutdown_timeout=1.0
        )
        # Each with the task of its TLS handshake. The least recently used one is the first.
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """The number of connections that are open, or in their handshake."""
        return len(self._connections)

    async def start(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        """Answer on a listening socket, over TLS if there is a context."""
        await self._runner.setup()
        self._listening = listening
        self._accepting = asyncio.create_task(self._accept(listening, context))

    async def close(self) -> None:
        """Stop, also in the middle of a request."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
        opening = list(self._connections.values())
        for connection in list(self._connections):
            self._abort(connection)
        await asyncio.gather(*opening, return_exceptions=True)
        await self._runner.cleanup()

    def used(self, connection: _Connection) -> None:
        """Note that a request arrived on a connection."""
        if connection in self._connections:
            self._connections[connection] = self._connections.pop(connection)

    def forget(self, connection: _Connection) -> None:
        """Note that a connection has ended."""
        self._connections.pop(connection, None)

    async def _accept(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        assert self._runner.server is not None
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:  # the client is gone, or there are no descriptors
                await asyncio.sleep(0.1)
                continue
            while self.connections >= self.bounds.connections:
                self._abort(next(iter(self._connections)))
            connection = _Connection(self._runner.server, self, accepted)
            self._connections[connection] = loop.create_task(
                self._open(connection, accepted, context)
            )

    async def _open(
        self, connection: _Connection, accepted: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        timeout = None if context is None else self.bounds.timeout
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=context,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=timeout,
            )
        except OSError:
            self.forget(connection)  # no TLS, or not in time
        except BaseException:
            self.forget(connection)
            raise

    def _abort(self, connection: _Connection) -> None:
        del self._connections[connection]
        connection.abort()


@web.middleware
async def _bounded(request: web.Request, handler: _Handler) -> web.StreamResponse:
    connection = request.protocol
    assert isinstance(connection, _Connection)
    connection.listener.used(connection)
    connection.unread = 0
    response = await handler(request)
    if connection.unread or request.body_exists:
        # No queue of requests grows, and the end of a body does not matter (RFC 9112, section 6.1).
        response.force_close()
    try:
        async with asyncio.timeout(connection.listener.bounds.timeout):
            await response.prepare(request)
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        connection.abort()  # it does not read, or is gone
    return response
