from __future__ import annotations

from tests.telemetry.conftest import logs

__all__ = ["logs"]
