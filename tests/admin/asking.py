"""Requests to an admin port, byte by byte where that is what a test is about."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

PATIENCE = 30.0
"""Seconds after which an answer is not coming any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By names in lower case; the values of one name that comes again, a line each."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Peer:
    """A connection to the port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, has_body: bool = True) -> Answer:
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip().split("\r\n")
            headers: dict[str, str] = {}
            for line in lines:
                name, _, value = line.partition(":")
                before = f"{headers[name.lower()]}\n" if name.lower() in headers else ""
                headers[name.lower()] = before + value.strip()
            length = int(headers["content-length"]) if has_body else 0
            body = await self.reader.readexactly(length)
        return Answer(int(status_line.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """What else comes until the other side closes; nothing where it broke off."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""


@contextlib.asynccontextmanager
async def connected(
    port: int, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def ask(
    port: int,
    target: str,
    method: str = "GET",
    *,
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
    **headers: str,
) -> Answer:
    """One request on a connection of its own."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    async with connected(port, host, context) as peer:
        peer.send("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
        answer = await peer.answer(has_body=method != "HEAD")
        assert await peer.rest() == b""
        return answer
