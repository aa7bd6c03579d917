"""Runs `pingpong ping` in this process, and says what it said."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from pingpong.client.output import Output
from pingpong.client.ping.command import PingCommand
from pingpong.ping import PROTOCOL, answer_ping
from pingpong.server.sessions.handlers import Router
from pingpong.settings import PingSettings
from pingpong.webtransport import ConnectionHandler, SessionHandler
from pingpong.webtransport.asyncio import EndpointConfig, Listener, listen
from pingpong.webtransport.certificates import Certificate
from pingpong.webtransport.session import Session
from tests.support.certificates import self_signed

MODES = ("datagram", "stream", "streams", "uni")
REPLY = re.compile(r"(\d+) bytes from 127\.0\.0\.1: seq=(\d+) time=[\d.]+ ms \(server [\d.]+ ms\)")


@asynccontextmanager
async def serving(
    handler: ConnectionHandler | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    with_certificate: Certificate | None = None,
    **config: Any,
) -> AsyncIterator[Listener]:
    listener = start(handler, host=host, port=port, with_certificate=with_certificate, **config)
    try:
        yield listener
    finally:
        await listener.close()


def start(
    handler: ConnectionHandler | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    with_certificate: Certificate | None = None,
    **config: Any,
) -> Listener:
    made = with_certificate or self_signed()
    return listen(
        handler or Router(1 << 16),
        host,
        port,
        config=EndpointConfig(
            certificate=made,
            **config,
        ),
    )


class Answering(SessionHandler):
    """Answers datagrams as `choose` says: it is given each one's number, and returns those of
    the pings to answer now."""

    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self._choose = choose
        self._asked: dict[int, bytes] = {}
        self._arrival = 0

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        number = len(self._asked) + 1
        self._asked[number] = data
        self._arrival = arrival
        for one in self._choose(number):
            self.answer(session, one)

    def answer(self, session: Session, number: int) -> None:
        received = len(self._asked)
        answer = answer_ping(self._asked[number], received, self._arrival, self._arrival)
        assert answer is not None
        session.send_datagram(answer)


class Choosing(ConnectionHandler):
    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self.choose = choose
        self.received = 0
        """Pings, of all sessions."""
        self.sessions: list[Session] = []

    def session_requested(self, session: Session) -> None:
        self.sessions.append(session)
        session.accept(Answering(self._choose), PROTOCOL)

    def _choose(self, number: int) -> list[int]:
        self.received += 1
        return self.choose(number)


class Said:
    """What a command says."""

    def __init__(self, in_terminal: bool = False) -> None:
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self.told: Callable[[str], None] = lambda text: None
        """Called with each text that is written."""
        self.drawn = ""
        """What is put into the terminal as it is; only with `in_terminal`."""
        self.complained: Callable[[str], None] = lambda text: None
        """Called with each complaint."""
        self.output = Output(self._write, self._complain, self._draw if in_terminal else None)

    def _complain(self, text: str) -> None:
        self.complaints.append(text)
        self.complained(text)

    def _draw(self, text: str) -> None:
        self.drawn += text

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
        words = (*words, "--cert-hash", self_signed().sha256.hex())
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
