"""The server's memory limit, and how many connections the program takes within it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pingpong.server.resources import MOST_CONNECTIONS, connections_that_fit
from tests.chart.rendering import container, render

ROOT = Path(__file__).parents[2]
CHART = (ROOT / "charts/pingpong/README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


def in_bytes(quantity: str) -> int:
    match = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert match is not None, quantity
    return int(match[1]) * UNITS[match[2]]


def default_limit() -> str:
    pod = render().pods()["Deployment pingpong-server"]
    limit = container(pod, "server")["resources"]["limits"]["memory"]
    assert isinstance(limit, str)
    return limit


@pytest.mark.parametrize("text", [CHART, OPERATIONS], ids=["chart", "docs"])
def test_what_is_said_to_fit_does(text: str) -> None:
    said = re.findall(r"([0-9,]+) in (\d+[MG]i)\b", text)
    assert default_limit() in [limit for _, limit in said]
    for number, limit in said:
        assert int(number.replace(",", "")) == connections_that_fit(in_bytes(limit), 1), limit


def test_default_limit_has_room_for_a_large_mesh_and_is_said_in_the_values() -> None:
    fit = connections_that_fit(in_bytes(default_limit()), 1)
    assert 1000 <= fit < MOST_CONNECTIONS
    assert f"for the program; {fit:,}." in (ROOT / "charts/pingpong/values.yaml").read_text()
