"""A program that sets up no logging: nothing of this library's inner parts is on its stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import environment

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.process

PROGRAM = """
import asyncio, gc
from pingpong.webtransport.asyncio import ConnectError, SessionClosedError, connect, serve

async def handler(session):
    async with asyncio.TaskGroup() as tasks:  # ends with the session, by a group of errors
        tasks.create_task(session.datagrams.receive())
        tasks.create_task(session.incoming_bidirectional_streams.get())

def decide(request):
    return None if request.path == "/" else 404

async def main():
    server = await serve(handler, "127.0.0.1", self_signed=True, decide=decide)
    url = f"https://127.0.0.1:{server.port}"
    pin = {"certificate_hash": server.certificate_hash}
    async with connect(url, **pin):
        print("success")
    for path, trust in (("/no", pin), ("/", {}), ("/", {"certificate_hash": "00" * 32})):
        try:
            await connect(url + path, **trust)
        except ConnectError as error:
            print(error.cause.value)
    left = await connect(url, **pin)
    left.close(3)
    session = await connect(url, **pin)
    stream = await session.create_bidirectional_stream()
    server.close()
    try:
        await stream.readable.read()
    except SessionClosedError as error:
        print("closed", error.code)
    await server.close()

asyncio.run(main())
gc.collect()
"""

SERVER = """
import asyncio
from examples import echo_server
asyncio.run(echo_server.main(0))
"""

CLIENT = """
import asyncio, sys
from pingpong.webtransport.asyncio import EndpointConfig, connect

async def main(url, pin):
    config = EndpointConfig(idle_timeout=0.5)
    async with connect(url, certificate_hash=pin, config=config) as session:
        print("ready", flush=True)
        closed = await session.closed
        print(closed.clean, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def start(program: str, *words: str) -> subprocess.Popen[str]:
    environ = environment()
    environ["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )


def test_successes_and_failures() -> None:
    with start(PROGRAM) as process:
        out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["success", "status", "certificate", "certificate", "closed 0"]
    assert err == ""


def test_a_server_that_is_killed() -> None:
    with start(SERVER) as server:
        assert server.stdout is not None
        with start(CLIENT, *server.stdout.readline().split()) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
            server.kill()
            out, err = client.communicate(timeout=60)
    assert (out, err) == ("False\n", "")
