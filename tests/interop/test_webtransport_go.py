"""webtransport-go 0.13 as client. It asks servers for RESET_STREAM_AT, which not each engine has."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from pingpong.webtransport.certificates import Certificate
from pingpong.webtransport.quic import engines
from pingpong.webtransport.quic.config import Engine
from tests.interop import reflector
from tests.support.engines import each_engine

pytestmark = pytest.mark.interop

SOURCE = Path(__file__).parent / "peers" / "webtransport-go"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program; the test is skipped where Go cannot have the modules that it is made of."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go on the PATH")
    got = subprocess.run([go, "mod", "download"], cwd=SOURCE, capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"go mod download: {got.stderr[-300:]}")
    program = tmp_path_factory.mktemp("go") / "peer"
    subprocess.run([go, "build", "-o", program, "."], cwd=SOURCE, check=True)
    return program


@each_engine
async def test_as_client(peer: Path, certificate: Certificate, engine: Engine) -> None:
    async with reflector.reflecting(certificate) as (server, _):
        url = f"https://127.0.0.1:{server.port}/ping"
        process = await asyncio.create_subprocess_exec(
            str(peer), url, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    if "RESET_STREAM_AT" in engines.lacks(engine):
        assert b"server didn't enable QUIC stream reset partial delivery" in output
    else:
        assert output == b"ok\n"
