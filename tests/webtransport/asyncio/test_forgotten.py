"""Sessions, streams and attempts that have ended leave nothing for Python's garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from pingpong.webtransport.asyncio import ConnectError, Server, Session, connect, serve
from pingpong.webtransport.errors import SessionClosedError, StreamResetError
from pingpong.webtransport.quic.endpoint import AioquicEndpoint
from tests.webtransport.asyncio.peers import on_a_loop, trusted, until

TIMES = 6
FEW = 40
"""Objects that come and go by chance: entries of caches, and the like."""
LOOPS = {"asyncio.events.TimerHandle", "_contextvars.Context"}
"""The loop keeps timers that were cancelled until half of all are, or their time has come."""


async def serve_path(session: Session) -> None:
    path = session.request.path
    if path == "/echo":
        async for stream in session.incoming_bidirectional_streams:
            await stream.writable.close(await stream.readable.read_all())
    elif path == "/datagrams":
        while True:
            session.datagrams.send(await session.datagrams.receive())
    elif path == "/fails":
        raise ZeroDivisionError
    elif path == "/close":
        session.close(7, "bye")
    await session.closed


def join(server: Server, path: str) -> Awaitable[Session]:
    return connect(f"https://127.0.0.1:{server.port}{path}", certificate_hash=trusted().sha256)


async def streams(server: Server) -> None:
    async with await join(server, "/echo") as session:
        for _ in range(3):
            stream = await session.create_bidirectional_stream()
            await stream.writable.close(b"x" * 1_000)
            assert await stream.readable.read_all()


async def datagrams(server: Server) -> None:
    async with await join(server, "/datagrams") as session:
        session.datagrams.send(b"x")
        await session.datagrams.receive()


async def resets(server: Server) -> None:
    async with await join(server, "/echo") as session:
        stream = await session.create_bidirectional_stream()
        await stream.writable.write(b"x")
        stream.writable.abort(3)
        # The server's handler fails of it, and the session with that.
        with contextlib.suppress(StreamResetError, SessionClosedError):
            await stream.readable.read()


async def unfinished_streams(server: Server) -> None:
    session = await join(server, "/echo")
    stream = await session.create_bidirectional_stream()
    await stream.writable.write(b"x" * 1_000)
    await session.create_unidirectional_stream()
    await session.close()


async def waiting_in_vain(server: Server) -> None:
    """Each of these raises an error that knows who waited, and that its session keeps."""
    session = await join(server, "/close")
    with pytest.raises(SessionClosedError):
        await session.datagrams.receive()
    with pytest.raises(SessionClosedError):
        await session.incoming_bidirectional_streams.get()
    for _ in range(2):
        with pytest.raises(SessionClosedError):
            await session.draining
    await session.close()


async def failing_handler(server: Server) -> None:
    session = await join(server, "/fails")
    await session.closed
    await session.close()


async def wrong_certificate(server: Server) -> None:
    with pytest.raises(ConnectError):
        await connect(f"https://127.0.0.1:{server.port}/", certificate_hash=bytes(32))


async def refused_session(server: Server) -> None:
    with pytest.raises(ConnectError):
        await join(server, "/forbidden")


async def nobody_answers(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectError):
            await connect(url, timeout=0.02, insecure=True)


async def closed_port(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    with pytest.raises(ConnectError):
        await connect(f"https://127.0.0.1:{port}", insecure=True)


async def no_such_name(server: Server) -> None:
    with pytest.raises(ConnectError):
        await connect("https://name.invalid/")


def count() -> Counter[str]:
    """How many objects there are of each type."""
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return Counter(name for name in names if name not in LOOPS)


@pytest.mark.parametrize(
    "live",
    [
        streams,
        datagrams,
        resets,
        unfinished_streams,
        waiting_in_vain,
        failing_handler,
        wrong_certificate,
        refused_session,
        nobody_answers,
        closed_port,
        no_such_name,
    ],
)
@on_a_loop
async def test_nothing_is_left(live: Callable[[Server], Awaitable[None]]) -> None:
    # pytest keeps what is logged, exceptions among it, and those know where they came by.
    logging.disable(logging.CRITICAL)
    server = await serve(
        serve_path,
        "127.0.0.1",
        config=trusted().config(),
        decide=lambda request: 403 if request.path == "/forbidden" else None,
    )

    engine = server.listener.endpoint.engine
    assert isinstance(engine, AioquicEndpoint)

    async def lives(times: int) -> None:
        for _ in range(times):
            await live(server)
        await until(lambda: not len(engine))
        await until(lambda: "getaddrinfo" not in {one.name for one in threading.enumerate()})
        # What a task was woken with is held until it waits again.
        await asyncio.sleep(0)

    try:
        await lives(2)
        gc.collect()
        gc.disable()
        count()
        before = count()
        await lives(TIMES)
        after = count()
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
        await server.close()
    after.subtract(before)
    kept = {name for name, more in after.items() if more and name.startswith(("aio", "pingpong"))}
    assert not kept, after.most_common(20)
    assert after.total() < FEW, after.most_common(20)
