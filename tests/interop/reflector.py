"""What all peers of the interop tests do, done with ours: see peers/README.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from pingpong.webtransport.asyncio import (
    BidirectionalStream,
    EndpointConfig,
    ReceiveStream,
    Server,
    Session,
    SessionClosed,
    WebTransportError,
    serve,
)
from pingpong.webtransport.certificates import Certificate

LARGE = bytes(range(256)) * 8192
T = TypeVar("T")


def answer(data: bytes) -> bytes:
    return data.replace(b"ping", b"pong")


class Reflector:
    """A server's handler; `ended` has how its sessions ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[SessionClosed] = asyncio.Queue()

    async def __call__(self, session: Session) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._datagrams(session))
            tasks.create_task(
                self._each(session.incoming_bidirectional_streams, self._stream, session)
            )
            tasks.create_task(
                self._each(session.incoming_unidirectional_streams, self._whole, session)
            )
        self.ended.put_nowait(await session.closed)

    async def _each(
        self,
        streams: AsyncIterator[T],
        serve_stream: Callable[[Session, T], Awaitable[None]],
        session: Session,
    ) -> None:
        async def guarded(stream: T) -> None:
            try:
                await serve_stream(session, stream)
            except WebTransportError:
                pass  # The peer took the stream back, or is gone.

        async with asyncio.TaskGroup() as tasks:
            async for stream in streams:
                tasks.create_task(guarded(stream))

    async def _datagrams(self, session: Session) -> None:
        async for data in session.datagrams:
            session.datagrams.send(answer(data))

    async def _stream(self, session: Session, stream: BidirectionalStream) -> None:
        async for data in stream.readable:
            if data == b"close":
                session.close(7, "done")
                return
            await stream.writable.write(answer(data))
        await stream.writable.close()

    async def _whole(self, session: Session, stream: ReceiveStream) -> None:
        data = await stream.read_all()
        if data == b"open bidirectional":
            opened = await session.create_bidirectional_stream()
            await opened.writable.close(b"hello")
            data = await opened.readable.read_all()
        answering = await session.create_unidirectional_stream()
        await answering.close(answer(data))


@asynccontextmanager
async def reflecting(certificate: Certificate) -> AsyncIterator[tuple[Server, Reflector]]:
    """A server of ours that does all this on `/ping`."""
    reflector = Reflector()
    config = EndpointConfig(certificate=certificate)
    server = await serve(
        reflector,
        "127.0.0.1",
        config=config,
        decide=lambda request: None if request.path == "/ping" else 404,
    )
    async with server:
        yield server, reflector


async def exchange(session: Session, data: bytes) -> bytes:
    """Say something on a new bidirectional stream; returns the answer."""
    stream = await session.create_bidirectional_stream()

    async def write() -> None:
        await stream.writable.write(data)
        await stream.writable.close()

    writing = asyncio.create_task(write())
    received = await stream.readable.read_all(len(LARGE))
    await writing
    return received


async def datagram(session: Session) -> None:
    session.datagrams.send(b"ping datagram")
    assert await session.datagrams.receive() == b"pong datagram"


async def bidirectional(session: Session) -> None:
    assert await exchange(session, b"ping stream") == b"pong stream"


async def send_whole(session: Session, data: bytes) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.close(data)


async def receive_whole(session: Session) -> bytes:
    return await (await session.incoming_unidirectional_streams.get()).read_all()


async def unidirectional(session: Session) -> None:
    await send_whole(session, b"ping uni")
    assert await receive_whole(session) == b"pong uni"


async def incoming(session: Session) -> None:
    await send_whole(session, b"open bidirectional")
    stream = await session.incoming_bidirectional_streams.get()
    await stream.writable.close(b"an answer")
    assert await stream.readable.read_all() == b"hello"
    assert await receive_whole(session) == b"an answer"


async def large(session: Session) -> None:
    assert await exchange(session, LARGE) == LARGE


async def many(session: Session) -> None:
    for number in range(200):
        data = b"%d" % number
        assert await exchange(session, data) == data


async def closing(session: Session) -> None:
    stream = await session.create_bidirectional_stream()
    await stream.writable.write(b"close")
    closed = await session.closed
    assert (closed.code, closed.reason) == (7, "done")


MODES = (datagram, bidirectional, unidirectional, incoming, large, many, closing)
