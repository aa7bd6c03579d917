from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.kubernetes_api import ApiServer


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What was logged, of every level, an event each."""
    with capture_logs() as events:
        yield events  # type: ignore[misc]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """The API server of the cluster that this process finds."""
    with ApiServer() as server:
        server.make_found(monkeypatch, tmp_path)
        yield server
