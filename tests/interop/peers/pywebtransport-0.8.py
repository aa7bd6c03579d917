"""pywebtransport 0.8 as a peer: see README.md beside it."""

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

from pywebtransport import ClientConfig, ServerApp, ServerConfig, WebTransportClient

LARGE = bytes(range(256)) * 4096 * 2
CHUNK = 32_768
LIMITS = {
    "initial_max_data": 1 << 20,
    "initial_max_streams_bidi": 64,
    "initial_max_streams_uni": 64,
}


def answer(data: bytes) -> bytes:
    return data.replace(b"ping", b"pong")


class Session:
    """A session with its incoming streams sorted by kind."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.bidirectional: asyncio.Queue[Any] = asyncio.Queue()
        self.unidirectional: asyncio.Queue[Any] = asyncio.Queue()
        self._sorter = asyncio.ensure_future(self._sort())

    async def _sort(self) -> None:
        async for stream in self.session.incoming_streams():
            is_bidirectional = hasattr(stream, "write")
            await (self.bidirectional if is_bidirectional else self.unidirectional).put(stream)

    async def send_whole(self, data: bytes) -> None:
        stream = await self.session.create_unidirectional_stream()
        await stream.write(data=data, end_stream=True)


async def exchange(session: Session, data: bytes) -> bytes:
    stream = await session.session.create_bidirectional_stream()

    async def write() -> None:
        # A single write takes no more than its buffer holds.
        for start in range(0, len(data), CHUNK):
            await stream.write(data=data[start : start + CHUNK])
        await stream.write(data=b"", end_stream=True)

    writing = asyncio.ensure_future(write())
    received: bytes = await stream.read_all()
    await writing
    return received


async def datagram(session: Session) -> None:
    transport = await session.session.create_datagram_transport()
    await transport.send(data=b"ping datagram")
    assert await transport.receive(timeout=5) == b"pong datagram"


async def bidirectional(session: Session) -> None:
    assert await exchange(session, b"ping stream") == b"pong stream"


async def unidirectional(session: Session) -> None:
    await session.send_whole(b"ping uni")
    assert await (await session.unidirectional.get()).read_all() == b"pong uni"


async def incoming(session: Session) -> None:
    await session.send_whole(b"open bidirectional")
    stream = await session.bidirectional.get()
    await stream.write(data=b"an answer", end_stream=True)
    assert await stream.read_all() == b"hello"
    assert await (await session.unidirectional.get()).read_all() == b"an answer"


async def large(session: Session) -> None:
    assert await exchange(session, LARGE) == LARGE


async def many(session: Session) -> None:
    for number in range(200):
        data = b"%d" % number
        assert await exchange(session, data) == data


MODES: dict[str, Callable[[Session], Awaitable[None]]] = {
    "datagram": datagram,
    "bidirectional": bidirectional,
    "unidirectional": unidirectional,
    "incoming": incoming,
    "large": large,
    "many": many,
}


async def client(url: str, limits: dict[str, int]) -> None:
    config = ClientConfig(verify_mode=ssl.CERT_NONE, max_streams=1000, **limits)
    results = {}
    async with WebTransportClient(config=config) as maker:
        session = Session(await maker.connect(url=url, timeout=5))
        for name, mode in MODES.items():
            try:
                await asyncio.wait_for(mode(session), 10)
                results[name] = "ok"
            except Exception as error:
                results[name] = repr(error)
        await session.session.close(code=7, reason="done")
    print(json.dumps(results), flush=True)


async def serve_stream(session: Any, stream: Any) -> None:
    async for data in stream.read_iter():
        if data == b"close":
            await session.close(code=7, reason="done")
            return
        await stream.write(data=answer(data))
    await stream.close()


async def serve_whole(session: Any, stream: Any) -> None:
    data = await stream.read_all()
    if data == b"open bidirectional":
        opened = await session.create_bidirectional_stream()
        await opened.write(data=b"hello", end_stream=True)
        data = await opened.read_all()
    answering = await session.create_unidirectional_stream()
    await answering.write(data=answer(data), end_stream=True)


async def serve_datagrams(session: Any) -> None:
    transport = await session.create_datagram_transport()
    while True:
        await transport.send(data=answer(await transport.receive()))


async def serve_session(session: Any) -> None:
    tasks = {asyncio.ensure_future(serve_datagrams(session))}
    async for stream in session.incoming_streams():
        serve = serve_stream if hasattr(stream, "write") else serve_whole
        task = asyncio.ensure_future(serve(session, stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def server(port: int, cert: str, key: str, limits: dict[str, int]) -> None:
    config = ServerConfig(
        bind_host="127.0.0.1",
        bind_port=port,
        certfile=cert,
        keyfile=key,
        verify_mode=ssl.CERT_NONE,
        **limits,
    )
    app = ServerApp(config=config)
    app.route(path="/ping")(serve_session)
    async with app:
        await app.server.listen(host="127.0.0.1", port=port)
        print("ready", flush=True)
        await app.server.serve_forever()


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
