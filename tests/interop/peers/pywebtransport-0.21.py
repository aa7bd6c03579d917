"""pywebtransport 0.21 as a peer: see README.md beside it."""

# mypy: ignore-errors
# Only its own environment has what it imports.

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from peer import Limits, main, serve_session
from pywebtransport import ClientConfig, ServerConfig, WebTransportClient, WebTransportServer


class Stream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def write(self, data: bytes, *, end: bool = False) -> None:
        write = self._stream.write_all if data else self._stream.write
        await write(data=data, end_stream=end)

    async def read_all(self) -> bytes:
        return await self._stream.read_all()

    def chunks(self) -> Any:
        return self._stream


class Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._bidirectional = session.incoming_bidirectional_streams()
        self._unidirectional = session.incoming_unidirectional_streams()
        self.receive_datagram = session.read_datagram

    async def open_bidirectional(self) -> Stream:
        return Stream(await self._session.create_bidirectional_stream())

    async def open_unidirectional(self) -> Stream:
        return Stream(await self._session.create_unidirectional_stream())

    async def next_bidirectional(self) -> Stream:
        return Stream(await anext(self._bidirectional))

    async def next_unidirectional(self) -> Stream:
        return Stream(await anext(self._unidirectional))

    async def send_datagram(self, data: bytes) -> None:
        await self._session.send_datagram(data=data)

    async def close(self, code: int, reason: str) -> None:
        await self._session.close(error_code=code, reason=reason)


@asynccontextmanager
async def connect(url: str, limits: Limits) -> AsyncIterator[Session]:
    config = ClientConfig(verify_mode=ssl.CERT_NONE, **limits)
    async with WebTransportClient(config=config) as maker:
        yield Session(await maker.connect(url=url, timeout=5))


async def serve(port: int, cert: str, key: str, limits: Limits, ready: Callable[[], None]) -> None:
    config = ServerConfig(
        bind_host="127.0.0.1",
        bind_port=port,
        certfile=cert,
        keyfile=key,
        # A benchmark has hundreds of connections, which are idle while others are measured.
        max_connections=1000,
        max_idle_timeout=600,
        **limits,
    )
    tasks: set[asyncio.Future[None]] = set()
    async with WebTransportServer(config=config) as listening:
        await listening.listen()
        ready()
        async for connection in listening.incoming_connections():
            tasks.add(asyncio.ensure_future(serve_connection(connection)))


async def serve_connection(connection: Any) -> None:
    tasks: set[asyncio.Future[None]] = set()
    async for session in connection.incoming_sessions():
        if session.path == "/ping":
            await session.accept()
            tasks.add(asyncio.ensure_future(serve_session(Session(session))))
        else:
            await session.reject(status_code=404)


if __name__ == "__main__":
    main(connect, serve)
