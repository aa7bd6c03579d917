"""pywebtransport 0.21 as a peer: see README.md beside it."""

# mypy: ignore-errors
# Only its own environment has what it imports.

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from pywebtransport import ClientConfig, ServerConfig, WebTransportClient, WebTransportServer

LARGE = bytes(range(256)) * 4096 * 2
LIMITS = {
    "initial_max_data": 1 << 20,
    "initial_max_streams_bidi": 64,
    "initial_max_streams_uni": 64,
}


def answer(data: bytes) -> bytes:
    return data.replace(b"ping", b"pong")


async def exchange(session: Any, data: bytes) -> bytes:
    stream = await session.create_bidirectional_stream()
    writing = asyncio.ensure_future(stream.write_all(data=data, end_stream=True))
    received: bytes = await stream.read_all()
    await writing
    return received


async def send_whole(session: Any, data: bytes) -> None:
    stream = await session.create_unidirectional_stream()
    await stream.write_all(data=data, end_stream=True)


async def receive_whole(session: Any) -> bytes:
    stream = await anext(session.incoming_unidirectional_streams())
    received: bytes = await stream.read_all()
    return received


async def datagram(session: Any) -> None:
    await session.send_datagram(data=b"ping datagram")
    assert await session.read_datagram() == b"pong datagram"


async def bidirectional(session: Any) -> None:
    assert await exchange(session, b"ping stream") == b"pong stream"


async def unidirectional(session: Any) -> None:
    await send_whole(session, b"ping uni")
    assert await receive_whole(session) == b"pong uni"


async def incoming(session: Any) -> None:
    await send_whole(session, b"open bidirectional")
    stream = await anext(session.incoming_bidirectional_streams())
    await stream.write_all(data=b"an answer", end_stream=True)
    assert await stream.read_all() == b"hello"
    assert await receive_whole(session) == b"an answer"


async def large(session: Any) -> None:
    assert await exchange(session, LARGE) == LARGE


async def many(session: Any) -> None:
    for number in range(200):
        data = b"%d" % number
        assert await exchange(session, data) == data


MODES: dict[str, Callable[[Any], Awaitable[None]]] = {
    "datagram": datagram,
    "bidirectional": bidirectional,
    "unidirectional": unidirectional,
    "incoming": incoming,
    "large": large,
    "many": many,
}


async def client(url: str, limits: dict[str, int]) -> None:
    config = ClientConfig(verify_mode=ssl.CERT_NONE, **limits)
    results = {}
    async with WebTransportClient(config=config) as maker:
        session = await maker.connect(url=url, timeout=5)
        for name, mode in MODES.items():
            try:
                await asyncio.wait_for(mode(session), 10)
                results[name] = "ok"
            except Exception as error:
                results[name] = repr(error)
        await session.close(error_code=7, reason="done")
    print(json.dumps(results), flush=True)


async def serve_stream(session: Any, stream: Any) -> None:
    async for data in stream:
        if data == b"close":
            await session.close(error_code=7, reason="done")
            return
        await stream.write_all(data=answer(data))
    await stream.write(data=b"", end_stream=True)


async def serve_whole(session: Any, stream: Any) -> None:
    data = await stream.read_all()
    if data == b"open bidirectional":
        opened = await session.create_bidirectional_stream()
        await opened.write_all(data=b"hello", end_stream=True)
        data = await opened.read_all()
    await send_whole(session, answer(data))


async def serve_datagrams(session: Any) -> None:
    while True:
        await session.send_datagram(data=answer(await session.read_datagram()))


class Tasks:
    """Tasks that nobody waits for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[None]] = set()

    def start(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def serve_session(session: Any, tasks: Tasks) -> None:
    if session.path != "/ping":
        await session.reject(status_code=404)
        return
    await session.accept()
    tasks.start(serve_datagrams(session))
    tasks.start(serve_each(session, session.incoming_unidirectional_streams(), serve_whole, tasks))
    await serve_each(session, session.incoming_bidirectional_streams(), serve_stream, tasks)


async def serve_each(session: Any, streams: Any, serve: Any, tasks: Tasks) -> None:
    async for stream in streams:
        tasks.start(serve(session, stream))


async def serve_connection(connection: Any, tasks: Tasks) -> None:
    async for session in connection.incoming_sessions():
        tasks.start(serve_session(session, tasks))


async def server(port: int, cert: str, key: str, limits: dict[str, int]) -> None:
    config = ServerConfig(
        bind_host="127.0.0.1", bind_port=port, certfile=cert, keyfile=key, **limits
    )
    tasks = Tasks()
    async with WebTransportServer(config=config) as listening:
        await listening.listen()
        print("ready", flush=True)
        async for connection in listening.incoming_connections():
            tasks.start(serve_connection(connection, tasks))


def main() -> None:
    logging.disable()
    role, flow_control, *arguments = sys.argv[1:]
    limits = LIMITS if flow_control == "on" else {}
    if role == "client":
        asyncio.run(client(arguments[0], limits))
    else:
        asyncio.run(server(int(arguments[0]), arguments[1], arguments[2], limits))


if __name__ == "__main__":
    main()
