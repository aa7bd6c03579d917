"""Writes the table of values into the chart's README. `make format` runs it.

The description of a value is the comment above it in values.yaml that begins with ``--``; its type
comes from values.schema.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "charts" / "pingpong"
BEGIN, END = "<!-- values -->", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the chart: its path, its default, and its description."""

    path: tuple[str, ...]
    default: Any
    meaning: str

    @property
    def key(self) -> str:
        """The path in the form of ``--set``."""
        return ".".join(self.path)


def values(chart: Path = CHART) -> list[Value]:
    """All values that have a description or are not mappings, in the order of the file."""
    text = (chart / "values.yaml").read_text()
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    assert root is not None
    return list(_values(root, (), yaml.safe_load(text), text.splitlines()))


def _values(
    node: yaml.Node, path: tuple[str, ...], defaults: dict[str, Any], lines: list[str]
) -> Iterator[Value]:
    for key, value in node.value:
        name, default = key.value, defaults[key.value]
        meaning = _described(lines, key.start_mark.line)
        if meaning or not default or not isinstance(default, dict):
            yield Value((*path, name), default, meaning)
        else:
            yield from _values(value, (*path, name), default, lines)


def _described(lines: list[str], line: int) -> str:
    """The description in the comment above a line, or empty."""
    words: list[str] = []
    while line and (comment := re.fullmatch(r" *#(.*)", lines[line - 1])):
        line -= 1
        text = comment[1].strip()
        words.insert(0, text.removeprefix("-- "))
        if text.startswith("-- "):
            return " ".join(words)
    return ""


def schema_of(path: tuple[str, ...], chart: Path = CHART) -> dict[str, Any]:
    """The schema of the value at a path, in values.schema.json.

    Raises `KeyError` for an unknown value.
    """
    root = json.loads((chart / "values.schema.json").read_text())
    schema = root
    for name in path:
        schema = _resolved(root, _resolved(root, schema)["properties"][name])
    return _resolved(root, schema)


def _resolved(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def type_of(schema: dict[str, Any]) -> str:
    """A schema's type in words: ``integer or null``."""
    several = [each for key in ("oneOf", "anyOf") for each in schema.get(key, ())]
    if "type" not in schema and several:
        kinds = [kind for each in several for kind in type_of(each).split(" or ")]
    elif "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    else:
        kinds = [_NAMES[type(each)] for each in schema.get("enum", [schema.get("const")])]
    words = {"array": "list", "object": "map"}
    return " or ".join(dict.fromkeys(words.get(kind, kind) for kind in kinds))


_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def table(chart: Path = CHART) -> str:
    """The table of values, in Markdown."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for value in values(chart):
        kind = type_of(schema_of(value.path, chart))
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        meaning = value.meaning.replace("|", "\\|")
        rows.append(f"| `{value.key}` | {kind} | `{default}` | {meaning} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Replace the table in the chart's README."""
    readme = CHART / "README.md"
    before, rest = readme.read_text().split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{table()}{END}{after}")


if __name__ == "__main__":
    main()
