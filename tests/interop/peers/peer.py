"""What each peer does, whatever its library: see README.md beside it.

A peer's own program has the library's sessions in the form of `Session`, and calls `main`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

LARGE = bytes(range(256)) * 4096 * 2
LIMITS = {
    "initial_max_data": 1 << 20,
    "initial_max_streams_bidi": 64,
    "initial_max_streams_uni": 64,
}


class Stream(Protocol):
    async def write(self, data: bytes, *, end: bool = False) -> None: ...
    async def read_all(self) -> bytes: ...
    def chunks(self) -> AsyncIterable[bytes]: ...


class Session(Protocol):
    async def open_bidirectional(self) -> Stream: ...
    async def open_unidirectional(self) -> Stream: ...
    async def next_bidirectional(self) -> Stream: ...
    async def next_unidirectional(self) -> Stream: ...
    async def send_datagram(self, data: bytes) -> None: ...
    async def receive_datagram(self) -> bytes: ...
    async def close(self, code: int, reason: str) -> None: ...


Limits = dict[str, int]
Connect = Callable[[str, Limits], AbstractAsyncContextManager[Session]]
"""A session with a URL, of a client with limits."""
Serve = Callable[[int, str, str, Limits, Callable[[], None]], Coroutine[Any, Any, None]]
"""Serves on a port, with a certificate's file and its key's; calls when it is ready."""


def answer(data: bytes) -> bytes:
    return data.replace(b"ping", b"pong")


# As client


async def exchange(session: Session, data: bytes) -> bytes:
    stream = await session.open_bidirectional()
    writing = asyncio.ensure_future(stream.write(data, end=True))
    received = await stream.read_all()
    await writing
    return received


async def send_whole(session: Session, data: bytes) -> None:
    await (await session.open_unidirectional()).write(data, end=True)


async def receive_whole(session: Session) -> bytes:
    return await (await session.next_unidirectional()).read_all()


async def datagram(session: Session) -> None:
    await session.send_datagram(b"ping datagram")
    assert await session.receive_datagram() == b"pong datagram"


async def bidirectional(session: Session) -> None:
    assert await exchange(session, b"ping stream") == b"pong stream"


async def unidirectional(session: Session) -> None:
    await send_whole(session, b"ping uni")
    assert await receive_whole(session) == b"pong uni"


async def incoming(session: Session) -> None:
    await send_whole(session, b"open bidirectional")
    stream = await session.next_bidirectional()
    await stream.write(b"an answer", end=True)
    assert await stream.read_all() == b"hello"
    assert await receive_whole(session) == b"an answer"


async def large(session: Session) -> None:
    assert await exchange(session, LARGE) == LARGE


async def many(session: Session) -> None:
    for number in range(200):
        data = b"%d" % number
        assert await exchange(session, data) == data


async def attempt(mode: Callable[[Session], Awaitable[None]], session: Session) -> str:
    try:
        await asyncio.wait_for(mode(session), 10)
    except Exception as error:
        return repr(error)
    return "ok"


async def client(connect: Connect, url: str, limits: Limits) -> None:
    modes = (datagram, bidirectional, unidirectional, incoming, large, many)
    async with connect(url, limits) as session:
        results = {mode.__name__: await attempt(mode, session) for mode in modes}
        await session.close(7, "done")
    print(json.dumps(results), flush=True)


# As server


async def serve_session(session: Session) -> None:
    """Answer on a session, for ever."""
    await asyncio.gather(
        serve_datagrams(session),
        serve_each(session, session.next_bidirectional, serve_stream),
        serve_each(session, session.next_unidirectional, serve_whole),
    )


async def serve_datagrams(session: Session) -> None:
    while True:
        await session.send_datagram(answer(await session.receive_datagram()))


async def serve_each(
    session: Session,
    following: Callable[[], Awaitable[Stream]],
    serve: Callable[[Session, Stream], Awaitable[None]],
) -> None:
    tasks: set[asyncio.Future[None]] = set()
    while True:
        task = asyncio.ensure_future(serve(session, await following()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def serve_stream(session: Session, stream: Stream) -> None:
    async for data in stream.chunks():
        if data == b"close":
            await session.close(7, "done")
            return
        await stream.write(answer(data))
    await stream.write(b"", end=True)


async def serve_whole(session: Session, stream: Stream) -> None:
    data = await stream.read_all()
    if data == b"open bidirectional":
        opened = await session.open_bidirectional()
        await opened.write(b"hello", end=True)
        data = await opened.read_all()
    await send_whole(session, answer(data))


def main(connect: Connect, serve: Serve) -> None:
    logging.disable()
    role, flow_control, *arguments = sys.argv[1:]
    limits = LIMITS if flow_control == "on" else {}
    if role == "client":
        asyncio.run(client(connect, arguments[0], limits))
    else:
        port, cert, key = arguments
        ready = functools.partial(print, "ready", flush=True)
        asyncio.run(serve(int(port), cert, key, limits, ready))
