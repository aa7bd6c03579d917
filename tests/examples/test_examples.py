"""The examples, run as a reader would run them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from examples import chat_server, echo_server
from pingpong.webtransport.asyncio import ConnectError, connect
from tests.support.certificates import Pair, self_signed
from tests.support.processes import environment

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.process


@asynccontextmanager
async def running(name: str, *words: str) -> AsyncIterator[Process]:
    """An example as a process; killed when the test is over."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), *words),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def test_measuring_the_echo_server(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.write_in_place(self_signed())
    async with (
        echo_server.serving(0) as developed,
        echo_server.serving(0, *map(str, pair.settings.values())) as deployed,
    ):
        for server in (developed, deployed):
            url = f"https://localhost:{server.port}/"
            async with running("measure.py", url, server.certificate_hash.hex(), "5") as measuring:
                out, err = await measuring.communicate()
            assert out.decode().startswith("5 sent, 5 received\nmin "), err
            assert (err, measuring.returncode) == (b"", 0)
            async with (
                connect(url, certificate_hash=server.certificate_hash) as session,
                await session.create_bidirectional_stream() as stream,
            ):
                await stream.writable.close(b"x" * 100_000)
                assert await stream.readable.read_all() == b"x" * 100_000


async def test_a_chat() -> None:
    async with chat_server.serving(0) as server:
        url = f"https://localhost:{server.port}/chat"
        fingerprint = server.certificate_hash.hex()
        with pytest.raises(ConnectError, match="400"):
            await connect(url, certificate_hash=fingerprint)
        async with (
            connect(f"{url}?name=carol", certificate_hash=fingerprint) as carol,
            running("chat_client.py", f"{url}?name=ada", fingerprint) as ada,
        ):
            joined = await carol.incoming_unidirectional_streams.get()
            assert await joined.read_all() == b"ada has joined"
            async with running("chat_client.py", f"{url}?name=bob", fingerprint) as bob:
                assert await line(ada) == "bob has joined"
                _, err = await bob.communicate(b"hello\n")
                assert (err, bob.returncode) == (b"", 0)
            told = {await line(ada) for _ in range(3)}
            assert told == {"(bob is typing)", "bob: hello", "bob has left"}
            # A client also sees the end that the server makes.
            await server.close(1, "maintenance")
            _, err = await ada.communicate()
            assert (err, ada.returncode) == (b"", 0)
