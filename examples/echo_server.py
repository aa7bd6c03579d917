"""An echo server: datagrams and streams come back as they are.

python examples/echo_server.py                     # a certificate for development
python examples/echo_server.py tls.crt tls.key     # a certificate from files
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from pingpong.webtransport.asyncio import (
    BidirectionalStream,
    Opening,
    Server,
    Session,
    StreamResetError,
    serve,
)


async def echo_datagrams(session: Session) -> None:
    async for data in session.datagrams:
        session.datagrams.send(data)


async def echo_stream(stream: BidirectionalStream) -> None:
    with contextlib.suppress(StreamResetError):  # the peer's choice; the session goes on
        async with stream:
            async for data in stream.readable:
                await stream.writable.write(data)


async def echo(session: Session) -> None:
    """Run once for each session, which is closed when this returns."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(echo_datagrams(session))
        async for stream in session.incoming_bidirectional_streams:
            tasks.create_task(echo_stream(stream))


def serving(port: int, *files: str) -> Opening[Server]:
    if files:
        certificate, key = files
        return serve(echo, port=port, certificate_file=certificate, private_key_file=key)
    return serve(echo, port=port, self_signed=True)


async def main(port: int = 4433, *files: str) -> None:
    async with serving(port, *files) as server:
        print(f"https://localhost:{server.port}/ {server.certificate_hash.hex()}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(4433, *sys.argv[1:]))
