"""The README says what is there: its commands run elsewhere in the tests, its tables are made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pingpong.ops.settings import PingSettings, ServeSettings, Settings, settings_table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


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
    first = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == [
        "make run",
        "make test",
    ]
