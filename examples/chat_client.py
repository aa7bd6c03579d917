"""The other side of `chat_server.py`: sends each line that it reads, and shows what others say.

python examples/chat_client.py "https://localhost:4433/chat?name=ada" HASH
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading

from pingpong.webtransport.asyncio import Session, SessionClosedError, StreamResetError, connect


async def show_messages(session: Session) -> None:
    async for stream in session.incoming_unidirectional_streams:
        with contextlib.suppress(SessionClosedError, StreamResetError):
            print((await stream.read_all()).decode(), flush=True)


async def show_typing(session: Session) -> None:
    async for data in session.datagrams:
        print(f"({data.decode()})", flush=True)


async def say(session: Session, text: str) -> None:
    session.datagrams.send(b"typing")
    async with await session.create_bidirectional_stream() as stream:
        await stream.writable.close(text.encode())
        await stream.readable.read_all()  # empty, and the receipt


def read_lines(lines: asyncio.Queue[str]) -> None:
    """Put what is typed into a queue, from a thread: reading a terminal blocks."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()


async def main(url: str, certificate_hash: str) -> str | None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    read_lines(lines)
    try:
        async with connect(url, certificate_hash=certificate_hash) as session:
            showing = asyncio.gather(show_messages(session), show_typing(session))
            session.closed.add_done_callback(lambda closed: lines.put_nowait(""))
            while text := await lines.get():
                await say(session, text)
            await session.close(0, "bye")
            await showing
    except SessionClosedError as error:  # ConnectError is one too
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
