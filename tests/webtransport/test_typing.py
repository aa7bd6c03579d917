"""A stranger's program, written from docs/library.md alone, as mypy --strict sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.processes import type_check

pytestmark = [pytest.mark.process, pytest.mark.slow]

PROGRAM = """
import asyncio
from pathlib import Path

from pingpong.webtransport.asyncio import (
    Certificate, ConnectError, Decision, EndpointConfig, Request, Server, Session,
    SessionClosedError, connect, read_certificate, serve,
)

def decide(request: Request) -> Decision:
    if request.header("authorization") != b"Bearer secret":
        return 401
    return "v1" if "v1" in request.protocols else None

async def handler(session: Session) -> None:
    async for stream in session.incoming_bidirectional_streams:
        async with stream:
            data: bytes = await stream.readable.read_all()
            await stream.writable.write(data)

async def main() -> int:
    server: Server
    async with serve(handler, "::1", 4433, self_signed=True, decide=decide) as server:
        pin: bytes = server.certificate_hash
    server = await serve(
        handler, certificate_file=Path("tls.crt"), private_key_file="tls.key", decide=decide
    )
    certificate: Certificate = read_certificate("tls.crt", "tls.key")
    server.use_certificate(certificate)
    config = EndpointConfig(certificate=certificate)
    await server.close(1, "done")
    headers = {"authorization": "Bearer secret"}
    session: Session
    try:
        async with connect("https://h/", certificate_hash=pin, headers=headers) as session:
            datagram: bytes = await session.datagrams.receive()
    except ConnectError as error:
        status: int | None = error.status
        print(error.cause.value, status)
    except SessionClosedError as error:
        print(error.code, error.reason)
    session = await asyncio.create_task(connect("https://h/", certificate_hash=pin.hex()))
    session.close()
    closed = await session.close(1, "done")
    return closed.code or 0
"""
WRONG = [
    'EndpointConfig(certificate="tls.crt")',
    'serve(handler, certificate="tls.crt")',
    'serve(handler, certificate_file=b"-----BEGIN")',
    'serve("handler", self_signed=True)',
    "serve(handler, self_signed=True, decide=lambda request: 1.5)",
    'connect("https://h/", certificate_hash=5)',
    'connect(b"https://h/")',
    'connect("https://h/", ca_file=b"-----BEGIN")',
    'connect("https://h/", headers={"a": b"b"})',
    "Target.from_url('https://h/', certificate=b'')",
]


def test_what_is_right_passes_and_what_is_wrong_does_not(tmp_path: Path) -> None:
    wrong = "\n".join(f"    {line}" for line in WRONG)
    program = (
        f"{PROGRAM}\nfrom pingpong.webtransport.asyncio import Target\n\ndef wrong() -> None:\n"
    )
    first = program.count("\n") + 1
    (tmp_path / "stranger.py").write_text(f"{program}{wrong}\n")
    done = type_check(tmp_path)
    lines = {int(number) for number in re.findall(r"^stranger.py:(\d+): error", done.stdout, re.M)}
    assert lines == set(range(first, first + len(WRONG))), done.stdout + done.stderr
