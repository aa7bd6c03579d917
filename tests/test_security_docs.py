"""docs/security.md names tests that exist, and limits as they are in the code."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pingpong.client.probe import metrics as client_metrics
from pingpong.server import metrics as server_metrics
from pingpong.settings import ProbeSettings, ServeSettings
from tools.chart_tables import values

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", TEXT)
UNITS = {"ms": 1e-3, "KiB": 1 << 10, "MiB": 1 << 20}


def limits() -> Iterator[tuple[str, str, list[str]]]:
    """Of each row of the table: its limit, the default as it is written, and where that is set."""
    table = TEXT.split("<!-- limits -->")[1].split("<!-- end -->")[0]
    for row in table.strip().splitlines()[2:]:
        what, default, set_by, why, above, shown_by = row.strip("| ").split(" | ")
        assert all((why, above, "`tests/" in shown_by)), what
        yield what, default, re.findall(r"`([^`]+)`", set_by)


def numbers(text: str) -> list[float]:
    found = re.findall(r"\b([0-9][0-9,]*)(?: (ms|KiB|MiB)\b)?", text)
    return [int(number.replace(",", "")) * UNITS.get(unit, 1) for number, unit in found]


def value(name: str) -> Any:
    """Of an option the default; of the code a constant, a dataclass's field, or a parameter."""
    verb, dashes, option = name.rpartition("--")
    if dashes:
        settings = ProbeSettings if verb == "probe " else ServeSettings
        return settings.model_fields[option.replace("-", "_")].default
    path, _, parameter = name.removesuffix(")").partition("(")
    module, *names = re.split(r"\.(?=_*[A-Z])", path)
    found: Any = importlib.import_module(f"pingpong.{module}")
    found = getattr(found, names[0].split(".")[0])
    if parameter:
        return inspect.signature(found).parameters[parameter].default
    if dataclasses.is_dataclass(found):
        fields = {field.name: field.default for field in dataclasses.fields(found)}
        return fields[names[0].split(".")[1]]
    return found


@pytest.mark.parametrize(("default", "names"), [row[1:] for row in limits()])
def test_limits_are_those_of_the_code(default: str, names: list[str]) -> None:
    wanted = [each for each in map(value, names) if each is not None]
    assert numbers(default) == pytest.approx(wanted)


@pytest.mark.parametrize("name", sorted({code for code in CODE if code.startswith("tests/")}))
def test_tests_that_are_named_exist(name: str) -> None:
    file, _, function = name.partition("::")
    functions = [
        node.name
        for node in ast.parse((ROOT / file).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert function in functions or not function


def test_metrics_and_values_that_are_named_exist() -> None:
    metrics = {spec.name for spec in (*server_metrics.SPECS, *client_metrics.SPECS)}
    assert {code for code in CODE if code.startswith("pingpong_")} <= metrics
    of_chart = re.compile(r"(networkPolicy|server\.(tls|auth|externalService))\.\w+")
    named = {code for code in CODE if of_chart.fullmatch(code)}
    assert named
    assert named <= {each.key for each in values()}
