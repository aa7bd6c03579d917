"""Has tests run on each QUIC engine: `pytestmark = on_each_engine`, or `@each_engine` at one."""

from __future__ import annotations

import pytest

ENGINES = ("aioquic", pytest.param("quinn", marks=pytest.mark.quinn))
each_engine = pytest.mark.parametrize("engine", ENGINES, indirect=True)
"""Of tests that take the fixture `engine`."""
on_each_engine = [each_engine, pytest.mark.usefixtures("engine")]
"""The same of tests that do not."""
