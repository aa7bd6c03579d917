from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from pingpong.telemetry.logs import configure


@pytest.fixture
def logs() -> Callable[[], list[dict[str, Any]]]:
    """What has been logged from the level info up, an event a line."""
    stream = io.StringIO()
    configure("info", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
