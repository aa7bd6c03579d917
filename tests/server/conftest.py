from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What was logged, of every level, an event each."""
    structlog.reset_defaults()
    with capture_logs() as events:
        yield events  # type: ignore[misc]
