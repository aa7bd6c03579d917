"""Clients that come and go: `python -m tests.soak.visits URL… --token-file FILE`.

They use the library as a program does that is in a hurry, or careless, or hostile: some end their
sessions and streams in order, others in the midst of something, others never. It goes on until
SIGTERM, and then prints what it did as a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop

from pingpong.client.authorization import authorization
from pingpong.link import LinkError
from pingpong.ping import PROTOCOL, encode_ping, frame
from pingpong.webtransport.asyncio import (
    ClientConnection,
    ConnectError,
    SessionClosedError,
    StateError,
    StreamResetError,
    Target,
    establish,
    open_connection,
)
from pingpong.webtransport.asyncio.session import Session

_EXPECTED = (ConnectError, LinkError, SessionClosedError, StateError, StreamResetError)
"""What a visit may end with: servers are stopped, ways are bad, tokens are of yesterday."""
_TIMEOUT = 3.0
_AT_ONCE = 4
_PAUSE = 0.15
"""Seconds at most between two visits of a visitor: so that a CPU is left for the others."""


class Visitors:
    """Visit servers at random, and count it."""

    def __init__(self, urls: list[str], token_file: Path) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._urls = urls
        self._token_file = token_file
        self._kinds: list[Callable[[ClientConnection], Awaitable[None]]] = [
            self.datagrams,
            self.streams,
            self.cut_off,
            self.many_sessions,
            self.echo,
            self.garbage,
            self.too_large,
            self.vanish,
        ]

    async def visit_forever(self) -> None:
        while True:
            kind = random.choice(self._kinds)
            path = "/echo" if kind == self.echo else "/ping"
            try:
                async with asyncio.timeout(2 * _TIMEOUT), self._connected(path) as client:
                    await kind(client)
                outcome = "done"
            except (*_EXPECTED, TimeoutError) as error:
                outcome = type(error).__name__
            self.counts[f"{kind.__name__} {outcome}"] += 1
            await asyncio.sleep(random.uniform(0, _PAUSE))

    # Kinds of visits.

    async def datagrams(self, client: ClientConnection) -> None:
        session = await self._session(client)
        for seq in range(10):
            session.datagrams.send(encode_ping(seq, 1))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                for _ in range(10):
                    await session.datagrams.receive()
        session.close(random.randrange(1000), "enough")
        await client.close()

    async def streams(self, client: ClientConnection) -> None:
        session = await self._session(client)
        message = frame(encode_ping(1, 1))
        for number in range(12):
            stream = await session.create_bidirectional_stream()
            match number % 4:
                case 0:
                    await stream.writable.close(message)
                    await stream.readable.read_all()
                case 1:
                    await stream.writable.write(message * 20)
                    await stream.readable.read(1)
                    stream.writable.abort(number)
                case 2:
                    await stream.writable.close(message)
                    stream.readable.cancel(number)
                case 3:
                    await stream.writable.write(message[:7])
        for _ in range(12):
            sending = await session.create_unidirectional_stream()
            await sending.close(message)
        answer = await session.incoming_unidirectional_streams.get()
        await answer.read_all()
        await session.__aexit__(None, None, None)

    async def cut_off(self, client: ClientConnection) -> None:
        """The connection ends with everything open."""
        session = await self._session(client)
        for _ in range(8):
            stream = await session.create_bidirectional_stream()
            await stream.writable.write(frame(encode_ping(1, 1))[: random.randrange(1, 60)])
        client.abort()

    async def many_sessions(self, client: ClientConnection) -> None:
        sessions = [await self._session(client) for _ in range(6)]
        for session in sessions:
            session.datagrams.send(encode_ping(1, 1))
            stream = await session.create_bidirectional_stream()
            await stream.writable.write(frame(encode_ping(1, 1)))
        for session in sessions[:4]:
            session.close()
        await client.close()

    async def echo(self, client: ClientConnection) -> None:
        session = await self._session(client)
        stream = await session.create_bidirectional_stream()
        await stream.writable.close(os.urandom(100_000))
        await stream.readable.read_all()
        session.datagrams.send(b"again")
        session.close()
        await client.close()

    async def garbage(self, client: ClientConnection) -> None:
        session = await self._session(client)
        for _ in range(5):
            session.datagrams.send(os.urandom(random.randrange(1000)))
            stream = await session.create_bidirectional_stream()
            await stream.writable.close(os.urandom(random.randrange(5000)))
        await asyncio.sleep(0.05)
        client.abort()

    async def too_large(self, client: ClientConnection) -> None:
        session = await self._session(client)
        stream = await session.create_bidirectional_stream()
        await stream.writable.write(frame(bytes(1 << 17)))
        await stream.readable.read()
        await client.close()

    async def vanish(self, client: ClientConnection) -> None:
        """The server hears nothing of it any more, and finds that out by its idle timeout."""
        session = await self._session(client)
        await (await session.create_bidirectional_stream()).writable.write(b"\x40")
        client.endpoint.close()

    # Connecting.

    @contextlib.asynccontextmanager
    async def _connected(self, path: str) -> AsyncIterator[ClientConnection]:
        url = random.choice(self._urls).replace("/ping", path)
        target = Target.from_url(url, insecure=True)
        client = await open_connection(target, timeout=_TIMEOUT)
        try:
            yield client
        finally:
            client.abort()

    async def _session(self, client: ClientConnection) -> Session:
        session = Session()
        headers = authorization(self._token_file)
        await establish(client, session, protocols=(PROTOCOL,), headers=headers, timeout=_TIMEOUT)
        return session


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("urls", metavar="URL", nargs="+")
    parser.add_argument("--token-file", type=Path, required=True)
    arguments = parser.parse_args()
    visitors = Visitors(arguments.urls, arguments.token_file)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(visitors.visit_forever()) for _ in range(_AT_ONCE)]
        await stopped.wait()
        for task in tasks:
            task.cancel()
    print(json.dumps(visitors.counts), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
