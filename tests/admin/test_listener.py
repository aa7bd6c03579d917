"""Connections of the admin port and their bounds; what aiohttp makes of odd requests is held as well."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from pingpong.admin.listener import Bounds, Listener, bind_tcp
from tests.admin.asking import Peer, ask, connected

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Running:
    """A listener, and the requests that came to it."""

    def __init__(self, **bounds: Any) -> None:
        self.requests: list[web.Request] = []
        self.answers: Handler | None = None
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.handle)
        self.listener = Listener(application, Bounds(**bounds))
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.answers is not None:
            return await self.answers(request)
        return web.Response(text="well\n")


@contextlib.asynccontextmanager
async def running(**bounds: Any) -> AsyncIterator[Running]:
    running = Running(**bounds)
    listening = bind_tcp("127.0.0.1", 0)
    running.port = listening.getsockname()[1]
    await running.listener.start(listening, None)
    try:
        yield running
    finally:
        await running.listener.close()
        assert running.listener.connections == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_requests_follow_each_other_on_a_connection() -> None:
    async with running() as http, connected(http.port) as peer:
        for _ in range(3):
            peer.send(GET)
            answer = await peer.answer()
            assert answer.body == b"well\n"
            assert "connection" not in answer.headers


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


@pytest.mark.parametrize(
    ("version", "fields", "body"),
    [
        (b"1.1", b"Content-Length: 10\r\n", b"x" * 10),
        (b"1.1", b"Content-Length: 30000\r\n", b"x" * 30_000),
        (b"1.1", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"1.1", b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
        (b"1.0", b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    ],
)
async def test_a_request_with_a_body_is_answered_and_is_the_last(
    version: bytes, fields: bytes, body: bytes
) -> None:
    async with running() as http, connected(http.port) as peer:
        peer.send(b"POST / HTTP/%s\r\nHost: x\r\n%s\r\n" % (version, fields))
        answer = await peer.answer()
        assert answer.status == 200
        assert answer.headers.get("connection", "close") == "close"
        peer.send(body + GET)
        assert await peer.rest() == b""
    assert len(http.requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"no request\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: much\r\n\r\n",
        b"GET /" + b"x" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
    ],
)
async def test_what_is_no_request_is_refused(data: bytes) -> None:
    async with running() as http, connected(http.port) as peer:
        peer.send(data)
        answer = await peer.answer()
        peer.writer.write_eof()
        assert answer.status == 400
        assert answer.text.startswith("invalid request: ")
        assert answer.text[:-1].isprintable()
        assert answer.headers["server"] == "pingpong"
        assert await peer.rest() == b""
    assert http.requests == []


EMPTY_CHUNKS = b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("version", "fields", "body"),
    [
        (b"1.1", b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", EMPTY_CHUNKS),
        (b"1.1", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", EMPTY_CHUNKS),
        (b"1.1", b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n", EMPTY_CHUNKS),
        (b"1.0", b"Transfer-Encoding: chunked\r\n", EMPTY_CHUNKS),
        (b"1.1", b"Content-Length: 0\r\nContent-Length: 5\r\n", b""),
        (b"1.1", b"Content-Length: 0, 5\r\n", b""),
        (b"1.1", b"Content-Length: +0\r\n", b""),
        (b"1.1", b"Content-Length : 0\r\n", b""),
        (b"1.1", b"Transfer-Encoding: gzip\r\n", b""),
        (b"1.1", b"Transfer-Encoding: xchunked\r\n", EMPTY_CHUNKS),
        (b"1.1", b"Transfer-Encoding: chunked\r\n" * 2, EMPTY_CHUNKS),
        (b"1.1", b"X: a\r\nHost: y\r\n", b""),
        (b"1.1", b"X: a\rContent-Length: 5\r\n", b""),
    ],
)
async def test_where_the_end_of_a_request_is_in_doubt_its_connection_ends(
    version: bytes, fields: bytes, body: bytes
) -> None:
    """What follows might be the rest of it, or, to a proxy, another one's request."""
    async with running() as http, connected(http.port) as peer:
        peer.send(b"GET / HTTP/%s\r\nHost: x\r\n%s\r\n%s" % (version, fields, body) + GET)
        answer = await peer.answer()
        peer.writer.write_eof()
        assert answer.status == 400
        assert await peer.rest() == b""
    assert http.requests == []


async def test_who_hangs_up_amid_a_request_disturbs_nobody() -> None:
    async with running() as http:
        for part in (b"", b"GET", GET[:-2], GET):
            async with connected(http.port) as peer:
                peer.send(part)
        assert (await ask(http.port, "/")).status == 200


async def test_who_connects_and_says_nothing_is_disconnected() -> None:
    async with running(idle_timeout=0.01) as http, connected(http.port) as peer:
        assert await peer.rest() == b""


async def test_who_dribbles_in_a_request_is_disconnected() -> None:
    async with running(idle_timeout=0.05) as http, connected(http.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        ended = asyncio.ensure_future(peer.rest())
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                peer.send(b"x")
                await peer.writer.drain()
            await asyncio.sleep(0.001)
        assert ended.result() == b""


async def test_who_waits_for_long_between_requests_is_disconnected() -> None:
    async with running(idle_timeout=0.01) as http, connected(http.port) as peer:
        peer.send(GET)
        assert (await peer.answer()).status == 200
        assert await peer.rest() == b""


async def large(request: web.Request) -> web.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield bytes(1_000_000)

    return web.Response(body=pieces(), headers={"Content-Length": "30000000"})


async def test_an_answer_in_pieces_arrives_whole() -> None:
    async with running() as http:
        http.answers = large
        assert (await ask(http.port, "/")).body == bytes(30_000_000)


async def test_who_does_not_read_its_answer_is_disconnected() -> None:
    async with running(timeout=0.05) as http, connected(http.port) as peer:
        http.answers = large
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(GET)
        while not http.listener.connections:
            await asyncio.sleep(0)
        while http.listener.connections:
            await asyncio.sleep(0.001)


async def test_what_is_sent_ahead_of_its_answer_is_bounded() -> None:
    """However many requests come while one is being answered, little of them is kept."""
    answer = asyncio.Event()

    async def wait(request: web.Request) -> web.Response:
        await answer.wait()
        return web.Response(text="well\n")

    async with running() as http, connected(http.port) as peer:
        http.answers = wait
        peer.send(GET)
        while not http.requests:
            await asyncio.sleep(0)
        peer.send(GET)
        await peer.writer.drain()
        peer.send(b"GET / HTTP/1.1\r\nX: " + bytes(100_000))
        assert await peer.rest() == b""
    assert len(http.requests) == 1


async def test_too_many_connections_make_room_for_new_ones() -> None:
    """Connections that are held open keep no other out: the least recently used one is closed."""
    async with running(connections=4) as http, contextlib.AsyncExitStack() as stack:
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
        assert http.listener.connections <= 4


async def test_a_flood_of_connections_takes_no_more_than_it_may() -> None:
    async with running(connections=8) as http, contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(connected(http.port))
        assert (await ask(http.port, "/")).status == 200
        assert http.listener.connections <= 8
        while len(asyncio.all_tasks() - {asyncio.current_task()}) > 8 + 1:
            await asyncio.sleep(0)


async def test_closing_ends_requests_and_waits_for_nobody() -> None:
    came = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        came.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with running() as http, connected(http.port) as waiting, connected(http.port) as silent:
        http.answers = hang
        waiting.send(GET)
        await came.wait()
        await http.listener.close()
        assert await waiting.rest() == b""
        assert await silent.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", http.port)


async def test_both_families_are_taken_where_there_are_both() -> None:
    listening = bind_tcp("::", 0)
    http = Running()
    await http.listener.start(listening, None)
    port = listening.getsockname()[1]
    try:
        assert (await ask(port, "/", host="127.0.0.1")).status == 200
        if listening.family == socket.AF_INET6:
            assert (await ask(port, "/", host="::1")).status == 200
    finally:
        await http.listener.close()


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
