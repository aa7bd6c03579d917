"""The metrics that both services have of themselves."""

from __future__ import annotations

from typing import NamedTuple

from .health import LAG_BUCKETS
from .metrics import Spec


class ServiceSpecs(NamedTuple):
    """The metrics of a service itself."""

    event_loop_lag: Spec
    log_lines_dropped: Spec
    build_info: Spec


def service_specs(prefix: str) -> ServiceSpecs:
    """Specify them under the names of one service, which begin with `prefix`."""
    return ServiceSpecs(
        Spec(
            f"{prefix}event_loop_lag_seconds",
            "histogram",
            "How late the event loop came round to what was due.",
            buckets=LAG_BUCKETS,
        ),
        Spec(f"{prefix}log_lines_dropped_total", "counter", "Log lines that could not be written."),
        Spec(
            f"{prefix}build_info",
            "info",
            "What runs here.",
            {"version": None, "python": None, "aioquic": None},
        ),
    )
