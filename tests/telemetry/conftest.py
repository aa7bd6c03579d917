from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from pingpong.telemetry.logs import configure


@pytest.fixture
def unconfigured() -> Iterator[None]:
    """Takes back what a test configures of the logs."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook = sys.__excepthook__
    logging.getLogger("quic").setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
def logs(unconfigured: None) -> Callable[[], list[dict[str, Any]]]:
    """What has been logged from the level info up, an event a line."""
    stream = io.StringIO()
    configure("info", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
