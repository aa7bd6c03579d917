"""A chat: messages come on streams, which lose nothing; who is typing, in datagrams, which may.

python examples/chat_server.py
python examples/chat_client.py "https://localhost:4433/chat?name=ada" HASH
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import parse_qs, urlsplit

from pingpong.webtransport.asyncio import (
    Decision,
    Opening,
    Request,
    Server,
    Session,
    SessionClosedError,
    StreamResetError,
    serve,
)

MAX_MESSAGE = 4096


def name_of(request: Request) -> str:
    return parse_qs(urlsplit(request.path).query).get("name", [""])[0]


def decide(request: Request) -> Decision:
    """Refuse with an HTTP status, or accept with None."""
    if urlsplit(request.path).path != "/chat":
        return 404
    return None if name_of(request) else 400


class Room:
    def __init__(self) -> None:
        self._sessions: set[Session] = set()

    async def join(self, session: Session) -> None:
        name = name_of(session.request)
        self._sessions.add(session)
        try:
            await self._say(f"{name} has joined", session)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_typing(session, name))
                async for stream in session.incoming_bidirectional_streams:
                    # A message on each; the end of our half is the receipt.
                    with contextlib.suppress(StreamResetError, ValueError):
                        async with stream:
                            text = await stream.readable.read_all(MAX_MESSAGE)
                            await self._say(f"{name}: {text.decode()}", session)
        finally:
            self._sessions.discard(session)
            await self._say(f"{name} has left", session)

    async def _say(self, text: str, sender: Session) -> None:
        for session in self._sessions - {sender}:
            with contextlib.suppress(SessionClosedError, StreamResetError):
                stream = await session.create_unidirectional_stream()
                await stream.close(text.encode())

    async def _pass_typing(self, session: Session, name: str) -> None:
        async for _ in session.datagrams:
            for other in self._sessions - {session}:
                with contextlib.suppress(SessionClosedError):
                    other.datagrams.send(f"{name} is typing".encode())


def serving(port: int) -> Opening[Server]:
    return serve(Room().join, port=port, self_signed=True, decide=decide)


async def main(port: int = 4433) -> None:
    async with serving(port) as server:
        print(f"https://localhost:{server.port}/chat {server.certificate_hash.hex()}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
