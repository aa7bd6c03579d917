"""docs/logs.md has every event that the services log, with its level and its fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.docs import PAGES, ROOT

SERVICES = ROOT / "services" / "pingpong"
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "error",
}
LOGGER = re.compile(r"(self\.)?_?(log|logger)|get_logger\(.*\)")


class Event(NamedTuple):
    """An event as the code logs it; its level is None where the name stands for itself."""

    name: str
    level: str | None
    fields: frozenset[str]
    source: str
    """Of the file that logs it."""


def constants(node: ast.expr) -> list[str]:
    """The texts that an expression may come to."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) + constants(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def events_in(path: Path) -> Iterator[Event]:
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(ast.Attribute(logger, method), [name, *_], keywords) if (
                method in LEVELS and LOGGER.fullmatch(ast.unparse(logger))
            ):
                fields = {each.arg for each in keywords if each.arg not in (None, "exc_info")}
                for text in constants(name):
                    yield Event(text, LEVELS[method], frozenset(filter(None, fields)), source)
            # Where the name is handed to a function of the module that logs it, or put in its place.
            case ast.Call(ast.Name("_log"), [name, *_]):
                for text in constants(name):
                    yield Event(text, None, frozenset(), source)
            case ast.Assign([ast.Subscript(slice=ast.Constant("event"))], ast.Constant(str(text))):
                yield Event(text, None, frozenset(), source)
            case ast.Dict([ast.Constant("event"), *_], [ast.Constant(str(text)), *_]):
                yield Event(text, None, frozenset(), source)


def logged() -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    # The library logs by `logging`, whose texts are no interface.
    for path in SERVICES.rglob("*.py"):
        if not path.is_relative_to(SERVICES / "webtransport"):
            for event in events_in(path):
                found.setdefault(event.name, []).append(event)
    return found


def documented() -> dict[str, tuple[str, set[str]]]:
    table = PAGES["docs/logs.md"].split("<!-- events -->")[1].split("<!-- end -->")[0]
    rows = [row.strip("|").split("|") for row in table.strip().splitlines()[2:]]
    return {
        name.strip().strip("`"): (level.strip(), set(re.findall(r"`(\w+)`", fields)))
        for name, level, fields, _ in rows
        if not name.strip().startswith("**")
    }


LOGGED, DOCUMENTED = logged(), documented()


def test_every_event_is_in_the_table_and_back() -> None:
    assert set(DOCUMENTED) == set(LOGGED)


@pytest.mark.parametrize("name", sorted(set(DOCUMENTED) & set(LOGGED)))
def test_level_and_fields_are_those_of_the_code(name: str) -> None:
    level, fields = DOCUMENTED[name]
    events = LOGGED[name]
    assert {event.level for event in events} - {None} <= {level}
    assert set().union(*(event.fields for event in events)) <= fields
    # Fields that are bound to a logger, or collected in a dictionary, are named in its file.
    sources = " ".join(event.source for event in events)
    assert [field for field in fields if not re.search(rf"\b{field}\b", sources)] == []


def test_events_that_the_runbook_names_exist() -> None:
    runbook = PAGES["charts/pingpong/RUNBOOK.md"]
    lists = re.findall(r"--tail 50 +# (.+)$|has the reason \((.+)\)", runbook, re.MULTILINE)
    named = {name for found in lists for name in re.findall(r"\w+", "".join(found))}
    assert named
    assert named <= set(DOCUMENTED)
