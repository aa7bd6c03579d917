"""The README says what is there: its commands run elsewhere in the tests, its tables are made."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.support.processes import Process, run, serving
from tests.support.readme import README, block
from tools.readme_tables import tables

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", tables())
def test_tables_are_those_of_the_code(name: str) -> None:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert found is not None
    assert found[1].strip() == tables()[name].strip(), "run `make format`"


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z0-9-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_it_begins_with_two_commands() -> None:
    assert [line.split("#")[0].strip() for line in block("sh", "").splitlines()] == [
        "make run",
        "make test",
    ]


@pytest.mark.process
async def test_the_example_of_the_library_does_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving() as (_, words):
        code = block("python", "connect(").replace("localhost:4433", urlsplit(words[1]).netloc)
        names: dict[str, Any] = {}
        exec(f"async def example():\n{textwrap.indent(code, '    ')}", names)
        await names["example"]()
    assert capsys.readouterr().out == "b'hello'\nb'hi'\n"


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block, without comments."""
    return [shlex.split(line, comments=True) for line in text.splitlines()]


@pytest.mark.process
def test_the_commands_of_a_server_and_a_client() -> None:
    assert commands(block("sh", "pingpong serve")) == [["pingpong", "serve"]]
    with serving() as (_, words):
        sha256 = words[2].removeprefix("--cert-hash=")
        command = block("sh", "pingpong ping").replace("SHA256", sha256)
        command = command.replace("localhost:4433", urlsplit(words[1]).netloc)
        assert command.split()[0] == "pingpong"
        status, out, _ = run(*command.split()[1:], "-c", "1")
    assert status == 0
    assert "1 sent, 1 received" in out


@pytest.mark.process
def test_the_commands_of_a_prober_and_of_whoever_looks_at_it() -> None:
    with serving() as (_, words):
        sha256 = words[2].removeprefix("--cert-hash=")
        command = block("sh", "pingpong probe").replace("SHA256", sha256)
        command = command.replace("localhost:4433", urlsplit(words[1]).netloc)
        verb, *options = command.split()[1:]
        with Process(verb, *options, "--admin-host=127.0.0.1", "--admin-port=0") as prober:
            port = prober.read_event("admin_listening")["port"]
            prober.read_event("target_up")
            curls = commands(block("sh", "curl "))
            assert len(curls) == 5
            for curl, address in curls:
                assert curl == "curl"
                url = f"http://{address}".replace("localhost:8080", f"127.0.0.1:{port}")
                with urlopen(url) as answer:
                    assert answer.status == 200
                    assert answer.read()
