"""An HTTP/1.1 server for a handful of small pages: h11 does the protocol, asyncio the sockets.

It is made to stay reachable: connections are bounded, and when there are too many, the one that
has been useless for longest makes room, so that a client that dribbles in requests, or reads no
answers, keeps no other out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

import h11

from .failure_log import FailureLogThrottle
from .logs import get_logger
from .redaction import shown

_MAX_HEAD = 8192
"""Bytes of a request without its body."""
_MAX_UNREAD = 65_536
"""Bytes of a request's body that are read, and thrown away, before its connection is closed."""
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class Request:
    """A request; its body, which no page here has a use for, is left out.

    Names of headers are in lower case; `query` has each name of the query with its last value.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, its body in pieces; to HEAD only the head is sent."""

    status: int
    body: Sequence[bytes]
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def plain(status: int, *lines: str, **headers: str) -> Response:
    """An answer of lines of text, without secrets and printable."""
    body = "".join(f"{shown(line)}\n" for line in lines).encode()
    return Response(status, [body], headers={k.replace("_", "-"): v for k, v in headers.items()})


Handler = Callable[[Request], Awaitable[Response]]


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening socket; `::` takes IPv4 as well, and is `0.0.0.0` where there is no IPv6.

    Raises:
        OSError: the address cannot be had; socket.gaierror: `host` has no address.
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


class HttpServer:
    """Answers requests with what `handler` makes of them.

    `timeout` bounds, in seconds, how long a first request may take to arrive, and an answer to be
    made and to leave, each; `idle_timeout` how long a connection may wait for its next request.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        max_connections: int = 64,
        timeout: float = 5.0,
        idle_timeout: float = 60.0,
    ) -> None:
        self._handler = handler
        self._max_connections = max_connections
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # The least recently used one stands first.
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._throttle = FailureLogThrottle()
        self._log = get_logger("pingpong.http").bind()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def start(self, listening: socket.socket) -> None:
        """Answer on a listening socket."""
        self._server = await asyncio.start_server(
            self._connected, sock=listening, backlog=self._max_connections
        )

    async def close(self) -> None:
        """Stop, in the middle of a request if need be."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            self._dismiss(writer)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.connections >= self._max_connections:
            self._dismiss(next(iter(self._connections)))
        # A drain is to mean that everything has left, so that no end waits for the peer.
        writer.transport.set_write_buffer_limits(0)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[writer] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _dismiss(self, writer: asyncio.StreamWriter) -> None:
        self._connections.pop(writer).cancel()
        # A task that is cancelled before its first step cleans nothing up.
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        timeout = self._timeout
        try:
            while await self._exchange(connection, timeout):
                task = self._connections.pop(writer, None)
                if task is None:
                    return  # it has had to make room
                self._connections[writer] = task
                timeout = self._idle_timeout
        except (OSError, TimeoutError, asyncio.CancelledError, h11.ProtocolError):
            return  # it is gone, or too slow, or has had to make room
        finally:
            self._connections.pop(writer, None)
            writer.transport.abort()

    async def _exchange(self, connection: _Connection, timeout: float) -> bool:
        """Answer one request. Returns whether there may be another on this connection."""
        head_only = False
        try:
            async with asyncio.timeout(timeout):
                request = await connection.receive()
        except h11.RemoteProtocolError as error:
            response = plain(error.error_status_hint, f"not a request that is understood: {error}")
        else:
            if request is None:
                return False
            response = await self._handle(request)
            head_only = request.method == "HEAD"
        async with asyncio.timeout(self._timeout):
            return await connection.send(response, head_only=head_only)

    async def _handle(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._handler(request)
        except TimeoutError:
            response = plain(503, f"{request.path} took longer than {self._timeout:g} s")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if failed := self._throttle.failed(request.path, reason, time.monotonic()):
                self._log.exception("page_failed", path=request.path, count=failed.count)
            response = plain(500, f"{request.path} failed: {reason}")
        else:
            self._throttle.succeeded(request.path, time.monotonic())
        self._log.debug(
            "request_answered", method=request.method, path=request.path, status=response.status
        )
        return response


class _Connection:
    """One peer: requests in, answers out."""

    __slots__ = ("_http", "_is_last", "_reader", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._is_last = False

    async def receive(self) -> Request | None:
        """The next request; None where the peer has no more.

        Raises:
            h11.RemoteProtocolError: what came is no request.
        """
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_MAX_HEAD))
        if not isinstance(event, h11.Request):
            return None
        # A body is not read here.
        self._is_last = not isinstance(self._http.next_event(), h11.EndOfMessage)
        names = [name for name, _ in event.headers]
        is_old = event.http_version < b"1.1"
        if b"transfer-encoding" in names and (is_old or b"content-length" in names):
            # A proxy on the way may see its end elsewhere (RFC 9112, section 6.1).
            self._is_last = True
            raise h11.RemoteProtocolError("Transfer-Encoding with Content-Length or HTTP/1.0")
        try:
            target = urlsplit(event.target.decode("ascii"))
        except ValueError as error:
            self._is_last = True
            raise h11.RemoteProtocolError(str(error)) from None
        return Request(
            method=event.method.decode("ascii"),
            path=target.path,
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            headers={
                name.decode("ascii"): value.decode("latin-1") for name, value in event.headers
            },
        )

    async def send(self, response: Response, *, head_only: bool) -> bool:
        """Send an answer. Returns whether there may be another request.

        Raises:
            h11.LocalProtocolError: the peer broke off in a way that leaves nothing to answer.
            OSError: the peer is gone.
        """
        is_last = self._is_last or self._http.their_state is h11.ERROR
        headers = {
            "date": formatdate(usegmt=True),
            "content-type": response.content_type,
            "content-length": str(sum(map(len, response.body))),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **response.headers,
            **({"connection": "close"} if is_last else {}),
        }
        head = h11.Response(
            status_code=response.status,
            headers=list(headers.items()),
            reason=http.HTTPStatus(response.status).phrase,
        )
        self._writer.write(self._http.send(head))
        for piece in () if head_only else response.body:
            self._writer.write(self._http.send(h11.Data(data=piece)))
            await self._writer.drain()
        self._writer.write(self._http.send(h11.EndOfMessage()))
        await self._writer.drain()
        if is_last:
            await self._linger()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _linger(self) -> None:
        # Closed with bytes unread, TCP would take back what the peer has not yet read of ours.
        self._writer.write_eof()
        unread = _MAX_UNREAD
        while unread > 0 and (data := await self._reader.read(unread)):
            unread -= len(data)
