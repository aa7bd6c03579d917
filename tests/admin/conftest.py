from __future__ import annotations

from tests.telemetry.conftest import logs, unconfigured

__all__ = ["logs", "unconfigured"]
