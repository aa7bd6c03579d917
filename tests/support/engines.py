"""Has tests run on the QUIC engines: on each, or on both in turn where each would take too long.

A test on an engine has it for all that is ours, in this process and in those that it starts: see
the fixture `engine`. Other tests have what `auto` is: quinn for clients, where it is installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

from pingpong.webtransport.quic import engines

ENGINES = ("aioquic", pytest.param("quinn", marks=pytest.mark.quinn))
OTHER = "quinn" if engines.is_installed("quinn") else "aioquic"
"""What takes turns with aioquic. Without quinn no value of a test is left out."""
each_engine = pytest.mark.parametrize("engine", ENGINES, indirect=True)
"""Of tests that take the fixture `engine`."""
on_each_engine = [each_engine, pytest.mark.usefixtures("engine")]
"""The same of tests that do not: for `pytestmark`."""

Test = TypeVar("Test", bound=Callable[..., Any])


def on_both(test: Test) -> Test:
    """The same of one test."""
    return _marked(test, each_engine)


def on(engine: str) -> Callable[[Test], Test]:
    """On `engine` alone."""
    mark = pytest.mark.parametrize("engine", [engine], indirect=True)
    return lambda test: _marked(test, mark)


def in_turn(
    arguments: str, values: Iterable[Any], *, swapped: bool = False
) -> Callable[[Test], Test]:
    """Like `pytest.mark.parametrize`, with aioquic for the first value, the other for the next."""
    turns = itertools.cycle((OTHER, "aioquic") if swapped else ("aioquic", OTHER))
    rows = (value if "," in arguments else (value,) for value in values)
    with_engines = [(*row, engine) for row, engine in zip(rows, turns, strict=False)]
    mark = pytest.mark.parametrize(f"{arguments},engine", with_engines, indirect=["engine"])
    return lambda test: _marked(test, mark)


def _marked(test: Test, mark: pytest.MarkDecorator) -> Test:
    marked: Test = pytest.mark.usefixtures("engine")(mark(test))
    return marked
