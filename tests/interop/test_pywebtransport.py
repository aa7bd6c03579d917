"""pywebtransport 0.8 and 0.21, as client and as server, in all modes that each has."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pingpong.webtransport.asyncio import Session, connect
from pingpong.webtransport.certificates import Certificate
from tests.interop import reflector
from tests.support.engines import on_each_engine
from tests.support.processes import environment

pytestmark = [pytest.mark.interop, *on_each_engine]

PATIENCE = 30.0
"""Seconds after which what is waited for does not come any more, on a machine that is shared."""
SCRIPTS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path(f"{sys.prefix}-peers")

# With flow control on, 0.8 is not to be helped: it ends the connection at the first DATA frame on a
# CONNECT stream, and then its settings are those of peers that insist on them.
PEERS = {
    "0.21": ("pywebtransport-0.21", "off"),
    "0.21 with flow control": ("pywebtransport-0.21", "on"),
    "0.8": ("pywebtransport-0.8", "off"),
}
everyone = pytest.mark.parametrize("peer", PEERS)


@pytest.fixture(scope="module")
def pythons() -> dict[str, Path]:
    """The interpreters that have a peer; a peer that its Python is too old for has none."""
    return {
        name: python
        for name in {name for name, _ in PEERS.values()}
        if (python := ENVIRONMENTS / name / "bin" / "python").exists()
        and not subprocess.run(
            [python, "-c", "import pywebtransport"], capture_output=True, check=False
        ).returncode
    }


def command(peer: str, pythons: dict[str, Path], role: str, *arguments: object) -> list[str]:
    name, flow_control = PEERS[peer]
    if name not in pythons:
        pytest.skip(
            f"{ENVIRONMENTS / name} does not have it: make test makes it, on 3.12 and newer"
        )
    script = SCRIPTS / f"{name}.py"
    return [str(pythons[name]), str(script), role, flow_control, *map(str, arguments)]


@everyone
async def test_as_client(peer: str, pythons: dict[str, Path], certificate: Certificate) -> None:
    async with reflector.reflecting(certificate) as (server, reflecting):
        url = f"https://127.0.0.1:{server.port}/ping"
        process = await asyncio.create_subprocess_exec(
            *command(peer, pythons, "client", url), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        ended = await asyncio.wait_for(reflecting.ended.get(), PATIENCE)
    modes = [mode.__name__ for mode in reflector.MODES if mode is not reflector.closing]
    assert json.loads(output) == dict.fromkeys(modes, "ok")
    assert (ended.code, ended.reason) == (7, "done")


@asynccontextmanager
async def serving(arguments: list[str]) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
        yield
    finally:
        process.terminate()
        await process.communicate()


def free_port() -> int:
    """A port for a server that cannot choose one itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
async def address(
    peer: str, pythons: dict[str, Path], certificate_files: tuple[Path, Path]
) -> AsyncIterator[str]:
    port = free_port()
    async with serving(command(peer, pythons, "server", port, *certificate_files)):
        yield f"https://127.0.0.1:{port}/ping"


@everyone
async def test_as_server(peer: str, address: str, certificate: Certificate) -> None:
    async def attempt(session: Session, name: str) -> str:
        try:
            await asyncio.wait_for(getattr(reflector, name)(session), PATIENCE)
        except Exception as error:
            return repr(error)
        return "ok"

    modes = [mode.__name__ for mode in reflector.MODES]
    session = await connect(address, certificate_hash=certificate.sha256)
    async with session:
        results = {name: await attempt(session, name) for name in modes}
    assert results == dict.fromkeys(modes, "ok")


async def ping(address: str, mode: str, certificate: Certificate) -> tuple[int | None, int]:
    """Ping with the command; returns its exit status and how many answers it had."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pingpong", "ping", address, "--mode", mode, "--json"),
        *("--cert-hash", certificate.sha256.hex(), "-c", "5", "-i", "0.01"),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    *_, summary = map(json.loads, output.splitlines())
    return process.returncode, summary["received"]


@everyone
async def test_pinged(peer: str, address: str, certificate: Certificate) -> None:
    modes = ("datagram", "stream", "streams", "uni")
    results = await asyncio.gather(*(ping(address, mode, certificate) for mode in modes))
    assert dict(zip(modes, results, strict=True)) == dict.fromkeys(modes, (0, 5))
