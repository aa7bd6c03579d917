"""Runs `pingpong ping` in this process, and says what it said."""

from __future__ import annotations

import datetime
import functools
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from pingpong.client.command import PingCommand
from pingpong.client.output import Output
from pingpong.ops.settings import PingSettings
from pingpong.server.handlers import Router
from pingpong.server.tls import Certificate, make_certificate
from pingpong.webtransport.asyncio import EndpointConfig, Listener, listen
from pingpong.webtransport.handler import ConnectionHandler

MODES = ("datagram", "stream", "streams", "uni")
REPLY = re.compile(r"(\d+) bytes from 127\.0\.0\.1: seq=(\d+) time=[\d.]+ ms \(server [\d.]+ ms\)")


@functools.cache
def certificate(*hosts: str) -> Certificate:
    return make_certificate(
        hosts or ("localhost", "127.0.0.1"), datetime.datetime.now(datetime.UTC)
    )


@asynccontextmanager
async def serving(
    handler: ConnectionHandler | None = None,
    *,
    host: str = "127.0.0.1",
    with_certificate: Certificate | None = None,
    **config: Any,
) -> AsyncIterator[Listener]:
    made = with_certificate or certificate()
    listener = listen(
        handler or Router(1 << 16),
        host,
        config=EndpointConfig(
            certificate=made.certificate,
            certificate_chain=made.chain,
            private_key=made.private_key,
            **config,
        ),
    )
    try:
        yield listener
    finally:
        await listener.close()


class Said:
    """What a command says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self.told: Callable[[str], None] = lambda text: None
        """Called with each text that is written."""
        self.output = Output(self._write, self.complaints.append)

    def _write(self, text: str) -> None:
        self.told(text)
        self.lines += text.split("\n")

    @property
    def counts(self) -> str:
        """The summary's line of counts, without the time.

        Nor the slots that were skipped: how busy this machine is says nothing.
        """
        return re.sub(r", \d+ skipped", "", self._counts).rpartition(", time ")[0]

    @property
    def skipped(self) -> int:
        found = re.search(r", (\d+) skipped", self._counts)
        return int(found[1]) if found else 0

    @property
    def _counts(self) -> str:
        title = next(i for i, line in enumerate(self.lines) if line.startswith("---"))
        return self.lines[title + 1]


async def ping(
    port: int, *words: str, said: Said | None = None, **options: Any
) -> tuple[int, Said]:
    """Run the command; unless told otherwise it trusts the certificate."""
    if not {"--ca", "--insecure", "--cert-hash"} & set(words):
        words = (*words, "--cert-hash", certificate().sha256.hex())
    if not any(word.startswith("https://") for word in words):
        words = (*words, f"https://127.0.0.1:{port}/ping")
    said = said or Said()
    settings = PingSettings.parse(words, {})
    return await PingCommand(settings, said.output, **options).run(), said


@contextmanager
def silent_port() -> Iterator[int]:
    """A UDP port at which nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])
