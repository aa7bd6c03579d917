"""pywebtransport 0.8 as a peer: see README.md beside it."""

# mypy: ignore-errors
# Only its own environment has what it imports.

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from peer import Limits, main, serve_session
from pywebtransport import ClientConfig, ServerApp, ServerConfig, WebTransportClient

CHUNK = 32_768


class Stream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def write(self, data: bytes, *, end: bool = False) -> None:
        # A single write takes no more than its buffer holds.
        for start in range(0, len(data), CHUNK):
            await self._stream.write(data=data[start : start + CHUNK])
        if end:
            await self._stream.write(data=b"", end_stream=True)

    async def read_all(self) -> bytes:
        return await self._stream.read_all()

    def chunks(self) -> Any:
        return self._stream.read_iter()


class Session:
    """A session with its incoming streams sorted by kind."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._bidirectional: asyncio.Queue[Any] = asyncio.Queue()
        self._unidirectional: asyncio.Queue[Any] = asyncio.Queue()
        self._sorter = asyncio.ensure_future(self._sort())
        self._datagrams: Any = None

    async def _sort(self) -> None:
        async for stream in self._session.incoming_streams():
            is_bidirectional = hasattr(stream, "write")
            queue = self._bidirectional if is_bidirectional else self._unidirectional
            await queue.put(Stream(stream))

    async def open_bidirectional(self) -> Stream:
        return Stream(await self._session.create_bidirectional_stream())

    async def open_unidirectional(self) -> Stream:
        return Stream(await self._session.create_unidirectional_stream())

    async def next_bidirectional(self) -> Stream:
        return await self._bidirectional.get()

    async def next_unidirectional(self) -> Stream:
        return await self._unidirectional.get()

    async def send_datagram(self, data: bytes) -> None:
        await (await self._transport()).send(data=data)

    async def receive_datagram(self) -> bytes:
        return await (await self._transport()).receive()

    async def _transport(self) -> Any:
        self._datagrams = self._datagrams or await self._session.create_datagram_transport()
        return self._datagrams

    async def close(self, code: int, reason: str) -> None:
        await self._session.close(code=code, reason=reason)


@asynccontextmanager
async def connect(url: str, limits: Limits) -> AsyncIterator[Session]:
    config = ClientConfig(verify_mode=ssl.CERT_NONE, max_streams=1000, **limits)
    async with WebTransportClient(config=config) as maker:
        yield Session(await maker.connect(url=url, timeout=5))


async def serve(port: int, cert: str, key: str, limits: Limits, ready: Callable[[], None]) -> None:
    config = ServerConfig(
        bind_host="127.0.0.1",
        bind_port=port,
        certfile=cert,
        keyfile=key,
        verify_mode=ssl.CERT_NONE,
        **limits,
    )
    app = ServerApp(config=config)
    app.route(path="/ping")(lambda session: serve_session(Session(session)))
    async with app:
        await app.server.listen(host="127.0.0.1", port=port)
        ready()
        await app.server.serve_forever()


if __name__ == "__main__":
    main(connect, serve)
