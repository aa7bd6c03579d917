from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pingpong.telemetry.http1 import Handler, HttpServer, Request, Response, bind_tcp, plain
from tests.telemetry.asking import Peer, ask, connected

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Running:
    """A server, and the requests that came to it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: Handler | None = None
        self.port = 0
        self.server: HttpServer | None = None

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        if self.answers is not None:
            return await self.answers(request)
        return plain(200, "well")


@contextlib.asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Running]:
    running = Running()
    server = running.server = HttpServer(running.handle, **options)
    listening = bind_tcp("127.0.0.1", 0)
    running.port = listening.getsockname()[1]
    await server.start(listening)
    try:
        yield running
    finally:
        await server.close()
        assert server.connections == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_request_as_the_handler_sees_it() -> None:
    async with running() as http:
        await ask(http.port, "/a/b?x=1&verbose&x=2", accept="text/plain", X_Odd="\xe4")
    (request,) = http.requests
    assert (request.method, request.path) == ("GET", "/a/b")
    assert request.query == {"x": "2", "verbose": ""}
    assert request.headers["accept"] == "text/plain"
    assert request.headers["x-odd"] == "\xe4"


async def test_an_answer_and_its_headers() -> None:
    async with running() as http:
        answer = await ask(http.port, "/")
    assert answer.status == 200
    assert answer.body == b"well\n"
    assert answer.headers.pop("date").endswith("GMT")  # type: ignore[attr-defined]
    assert answer.headers == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": "5",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "connection": "close",
    }


async def test_requests_follow_each_other_on_a_connection() -> None:
    async with running() as http, connected(http.port) as peer:
        for _ in range(3):
            peer.send(GET)
            answer = await peer.answer()
            assert answer.body == b"well\n"
            assert "connection" not in answer.headers
        peer.send(GET * 3)
        for _ in range(3):
            assert (await peer.answer()).status == 200


async def test_a_request_that_comes_a_byte_at_a_time() -> None:
    async with running() as http, connected(http.port) as peer:
        for byte in GET:
            peer.send(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)
        assert (await peer.answer()).status == 200


async def test_head_has_the_headers_of_get_without_a_body() -> None:
    async with running() as http, connected(http.port) as peer:
        peer.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await peer.answer(has_body=False)
        peer.send(GET)
        get = await peer.answer()
    assert (head.status, head.headers["content-length"]) == (200, "5")
    assert get.body == b"well\n"


async def test_http_1_0_ends_after_its_answer() -> None:
    async with running() as http, connected(http.port) as peer:
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await peer.answer()).body == b"well\n"
        assert await peer.rest() == b""


async def test_an_upgrade_is_not_taken_up() -> None:
    async with running() as http, connected(http.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (await peer.answer()).status == 200
        peer.send(GET)
        assert (await peer.answer()).status == 200


@pytest.mark.parametrize("body", [b"x" * 10, b"x" * 30_000])
async def test_a_request_with_a_body_is_answered_and_is_the_last(body: bytes) -> None:
    async with running() as http, connected(http.port) as peer:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        peer.send(head)
        answer = await peer.answer()
        peer.send(body)
        peer.writer.write_eof()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert await peer.rest() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"no request\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: much\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600), 400),
    ],
)
async def test_what_is_no_request_is_told_so(data: bytes, status: int) -> None:
    async with running() as http, connected(http.port) as peer:
        peer.send(data)
        answer = await peer.answer()
        peer.writer.write_eof()
        assert answer.status == status
        assert answer.text.startswith("not a request that is understood: ")
        assert answer.headers["connection"] == "close"
        assert await peer.rest() == b""
    assert http.requests == []


EMPTY_CHUNKS = b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("version", "fields", "body", "status"),
    [
        (b"1.1", b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", EMPTY_CHUNKS, 400),
        (b"1.1", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", EMPTY_CHUNKS, 400),
        (b"1.1", b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n", EMPTY_CHUNKS, 400),
        (b"1.0", b"Transfer-Encoding: chunked\r\n", EMPTY_CHUNKS, 400),
        (b"1.0", b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", EMPTY_CHUNKS, 400),
        (b"1.1", b"Content-Length: 0\r\nContent-Length: 5\r\n", b"", 400),
        (b"1.1", b"Content-Length: 0, 5\r\n", b"", 400),
        (b"1.1", b"Content-Length: +0\r\n", b"", 400),
        (b"1.1", b"Content-Length : 0\r\n", b"", 400),
        (b"1.1", b"Transfer-Encoding: gzip\r\n", b"", 501),
        (b"1.1", b"Transfer-Encoding: gzip, chunked\r\n", EMPTY_CHUNKS, 501),
        (b"1.1", b"Transfer-Encoding: xchunked\r\n", EMPTY_CHUNKS, 501),
        (b"1.1", b"Transfer-Encoding: chunked\r\n" * 2, EMPTY_CHUNKS, 501),
        (b"1.1", b"X: a\r\nHost: y\r\n", b"", 400),
        (b"1.1", b"X: a\rContent-Length: 5\r\n", b"", 400),
    ],
)
async def test_where_the_end_of_a_request_is_in_doubt_its_connection_ends(
    version: bytes, fields: bytes, body: bytes, status: int
) -> None:
    """What follows might be the rest of it, or, to a proxy, another one's request."""
    async with running() as http, connected(http.port) as peer:
        peer.send(b"GET / HTTP/%s\r\nHost: x\r\n%s\r\n%s" % (version, fields, body) + GET)
        answer = await peer.answer()
        peer.writer.write_eof()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert await peer.rest() == b""
    assert http.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n\tCHUNKED\r\n",
    ],
)
async def test_an_empty_body_in_chunks_is_no_reason_to_end_it(fields: bytes) -> None:
    async with running() as http, connected(http.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (fields, EMPTY_CHUNKS) + GET)
        for _ in range(2):
            assert (await peer.answer()).status == 200


async def test_a_page_shows_nothing_that_moves_a_cursor_and_no_secret() -> None:
    async def echo(request: Request) -> Response:
        return plain(200, "\x1b[2J\u202e https://a/?s3cret", "two")

    async with running() as http:
        http.answers = echo
        assert (await ask(http.port, "/")).text == "\\x1b[2J\\u202e https://a/?***\ntwo\n"
    async with running() as http, connected(http.port) as peer:
        peer.send(b"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await peer.answer()).text[:-1].isprintable()


async def test_who_hangs_up_amid_a_request_disturbs_nobody() -> None:
    async with running() as http:
        for part in (b"", b"GET", GET[:-2], GET):
            async with connected(http.port) as peer:
                peer.send(part)
        assert (await ask(http.port, "/")).status == 200


async def test_who_connects_and_says_nothing_is_dismissed() -> None:
    async with running(timeout=0.01) as http, connected(http.port) as peer:
        assert await peer.rest() == b""


async def test_who_dribbles_in_a_request_is_dismissed() -> None:
    async with running(timeout=0.05) as http, connected(http.port) as peer:
        ended = asyncio.ensure_future(peer.rest())
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                peer.send(b"x")
                await peer.writer.drain()
            await asyncio.sleep(0.001)
        assert ended.result() == b""


async def test_who_waits_for_long_between_requests_is_dismissed() -> None:
    async with running(idle_timeout=0.01) as http, connected(http.port) as peer:
        peer.send(GET)
        assert (await peer.answer()).status == 200
        assert await peer.rest() == b""


async def large(request: Request) -> Response:
    return Response(200, [bytes(1_000_000)] * 30)


async def test_an_answer_in_pieces_arrives_whole() -> None:
    async with running() as http:
        http.answers = large
        assert (await ask(http.port, "/")).body == bytes(30_000_000)


async def test_who_does_not_read_its_answer_is_dismissed() -> None:
    async with running(timeout=0.05) as http, connected(http.port) as peer:
        http.answers = large
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(GET)
        assert http.server is not None
        while not http.server.connections:
            await asyncio.sleep(0)
        while http.server.connections:
            await asyncio.sleep(0.001)


async def test_too_many_connections_make_room_for_new_ones() -> None:
    """Whoever holds connections open keeps nobody out: the one of least use has to go."""
    async with running(max_connections=4) as http, contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(connected(http.port))
        first.send(GET)
        await first.answer()
        idle: list[Peer] = []
        for _ in range(3):
            idle.append(await stack.enter_async_context(connected(http.port)))
        first.send(GET)
        await first.answer()  # so it is now of more use than those that said nothing
        for _ in range(3):
            assert (await ask(http.port, "/")).status == 200
        assert await idle[0].rest() == b""
        first.send(GET)
        assert (await first.answer()).status == 200
        assert http.server is not None
        assert http.server.connections <= 4


async def test_a_flood_of_connections_takes_no_more_than_it_may() -> None:
    async with running(max_connections=8) as http, contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(connected(http.port))
        assert (await ask(http.port, "/")).status == 200
        assert http.server is not None
        assert http.server.connections <= 8
        assert len(asyncio.all_tasks() - {asyncio.current_task()}) <= 8


async def test_a_handler_that_raises_is_a_500_and_logged_once_a_minute(
    logs: Callable[[], list[dict[str, Any]]],
) -> None:
    async def fail(request: Request) -> Response:
        raise LookupError("token=abcdefgh")

    async with running() as http:
        http.answers = fail
        for _ in range(3):
            answer = await ask(http.port, "/page")
            assert answer.status == 500
            assert answer.text == "/page failed: LookupError: token=***\n"
        http.answers = None
        assert (await ask(http.port, "/page")).status == 200
    (event,) = logs()
    assert (event["event"], event["path"], event["level"]) == ("page_failed", "/page", "error")
    assert "LookupError" in event["exception"]


async def test_a_handler_that_does_not_come_back_is_a_503() -> None:
    async def hang(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with running(timeout=0.05) as http:
        http.answers = hang
        answer = await ask(http.port, "/page")
    assert (answer.status, answer.text) == (503, "/page took longer than 0.05 s\n")


async def test_closing_ends_requests_and_waits_for_nobody() -> None:
    came = asyncio.Event()

    async def hang(request: Request) -> Response:
        came.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with running() as http, connected(http.port) as waiting, connected(http.port) as silent:
        http.answers = hang
        waiting.send(GET)
        await came.wait()
        assert http.server is not None
        await http.server.close()
        assert await waiting.rest() == b""
        assert await silent.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", http.port)


async def test_both_families_are_taken_where_there_are_both() -> None:
    listening = bind_tcp("::", 0)
    server = HttpServer(Running().handle)
    await server.start(listening)
    port = listening.getsockname()[1]
    try:
        assert (await ask(port, "/", host="127.0.0.1")).status == 200
        if listening.family == socket.AF_INET6:
            assert (await ask(port, "/", host="::1")).status == 200
    finally:
        await server.close()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EAFNOSUPPORT, "no IPv6"), OSError(errno.EADDRNOTAVAIL, "no IPv6"), ValueError()],
)
def test_without_ipv6_it_is_ipv4(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.create_server

    def create_server(address: tuple[str, int], **options: Any) -> socket.socket:
        if options["family"] == socket.AF_INET6:
            raise error
        return real(address, **options)

    monkeypatch.setattr(socket, "create_server", create_server)
    with bind_tcp("::", 0) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"


def test_a_port_in_use_is_not_tried_again_with_ipv4() -> None:
    with (
        bind_tcp("::", 0) as listening,
        pytest.raises(OSError, match=r"in use") as raised,
    ):
        bind_tcp("::", listening.getsockname()[1])
    assert raised.value.errno == errno.EADDRINUSE


def test_a_name_is_looked_up() -> None:
    with bind_tcp("localhost", 0) as listening:
        assert listening.getsockname()[0] in ("127.0.0.1", "::1")
