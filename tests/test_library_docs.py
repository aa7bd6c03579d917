"""docs/library.md: its programs run, its other code passes `mypy --strict`, its names are all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pingpong.webtransport.asyncio
from tests.support.docs import PAGES, ROOT, block, blocks
from tests.support.processes import environment, type_check

PAGE = "docs/library.md"
EXCERPTS = re.findall(r"<!-- (examples/\w+\.py) -->\n```python\n(.*?)```", PAGES[PAGE], re.DOTALL)
IMPORTS = """
import asyncio
from pingpong.webtransport import ConnectionHandler, SessionHandler
from pingpong.webtransport import Session as CoreSession
from pingpong.webtransport.asyncio import (
    Certificate, Decision, EndpointConfig, Listener, Opening, Request, Server, Session, connect, listen,
)
"""


@pytest.mark.parametrize(("file", "code"), EXCERPTS)
def test_excerpts_are_those_of_the_examples(file: str, code: str) -> None:
    assert code in (ROOT / file).read_text()


def test_names_are_those_that_are_exported() -> None:
    table = PAGES[PAGE].split("## Names")[1]
    assert sorted(re.findall(r"(?<=[ ,])`(\w+)`", table)) == sorted(
        pingpong.webtransport.asyncio.__all__
    )


@pytest.mark.process
def test_getting_started() -> None:
    """The server and the client, typed from the page; only the port is another."""
    server = block(PAGE, "python", "serve(handler").replace("port=4433", "port=0")
    server = server.replace("print(", "print(server.port, ")
    client = block(PAGE, "python", "connect(url")
    with subprocess.Popen(
        [sys.executable, "-c", server], stdout=subprocess.PIPE, text=True, env=environment()
    ) as serving:
        try:
            assert serving.stdout is not None
            port, fingerprint = serving.stdout.readline().split()
            asked = subprocess.run(
                [sys.executable, "-c", client.replace("4433", port), fingerprint],
                capture_output=True,
                text=True,
                env=environment(),
                timeout=60,
                check=True,
            )
        finally:
            serving.kill()
    assert (asked.stdout, asked.stderr) == ("b'HELLO'\n", "")


@pytest.mark.process
@pytest.mark.slow
def test_code_passes_mypy(tmp_path: Path) -> None:
    codes = [code for code in blocks(PAGE, "python") if code not in dict(EXCERPTS).values()]
    programs = [code for code in codes if "asyncio.run(" in code]
    parts = [code for code in codes if code not in programs]
    for number, code in enumerate([*programs, "\n".join([IMPORTS, *parts])]):
        (tmp_path / f"code{number}.py").write_text(code)
    checked = type_check(tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
