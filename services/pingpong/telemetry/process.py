"""What runs here: versions, and the metrics that a service has of its own process."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector

from .. import __version__
from .metrics import Merge, Spec

MERGES: dict[str, Merge] = {
    "process_start_time_seconds": min,
    "process_max_fds": min,
    "python_info": max,
}
"""How the gauges of `standard_registry` combine that are not the sum of all workers."""


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
        ),
        Spec(f"{prefix}log_lines_dropped_total", "counter", "Log lines that could not be written."),
        Spec(
            f"{prefix}build_info",
            "info",
            "What runs here.",
            {"version": None, "python": None, "aioquic": None},
        ),
    )


def versions() -> dict[str, str]:
    """The versions of pingpong, Python and aioquic, by these names; for `build_info` as well."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "aioquic": version("aioquic"),
    }


def standard_registry(*collectors: Collector) -> CollectorRegistry:
    """Make a registry of these, and of prometheus_client's: process, Python, garbage collection."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
