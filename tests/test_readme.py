"""The README says what is there: its commands run elsewhere in the tests, its tables are made."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pingpong.ops.settings import PingSettings, ServeSettings, Settings, settings_table
from tests.processes import run, serving
from tests.readme import README, block

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("verb", "settings"), [("serve", ServeSettings), ("ping", PingSettings)])
def test_the_table_of_settings_is_that_of_the_code(verb: str, settings: type[Settings]) -> None:
    found = re.search(rf"<!-- settings: {verb} -->\n(.*?)<!-- /settings -->", README, re.DOTALL)
    assert found is not None
    assert found[1].strip() == settings_table(settings).strip(), "run `make format`"


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_it_begins_with_two_commands() -> None:
    assert [line.split("#")[0].strip() for line in block("sh", "").splitlines()] == [
        "make run",
        "make test",
    ]


async def test_the_example_of_the_library_does_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving() as (_, words):
        code = block("python", "connect(").replace("localhost:4433", urlsplit(words[1]).netloc)
        names: dict[str, Any] = {}
        exec(f"async def example():\n{textwrap.indent(code, '    ')}", names)
        await names["example"]()
    assert capsys.readouterr().out == "b'hello'\nb'hi'\n"


def test_the_commands_of_a_server_and_a_client() -> None:
    assert block("sh", "pingpong serve").split() == ["pingpong", "serve"]
    with serving() as (_, words):
        sha256 = words[2].removeprefix("--cert-hash=")
        command = block("sh", "--cert-hash").replace("SHA256", sha256)
        command = command.replace("localhost:4433", urlsplit(words[1]).netloc)
        assert command.split()[0] == "pingpong"
        status, out, _ = run(*command.split()[1:], "-c", "1")
    assert status == 0
    assert "1 sent, 1 received" in out
