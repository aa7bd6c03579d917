"""Versions, and the metrics of a service's own process."""

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
"""The gauges of `standard_registry` that are not summed over workers, and how to combine them."""


class ServiceSpecs(NamedTuple):
    """The metrics of a service itself."""

    event_loop_lag: Spec
    log_lines_dropped: Spec
    build_info: Spec


def service_specs(prefix: str) -> ServiceSpecs:
    """Make the specifications of one service; `prefix` begins their names."""
    return ServiceSpecs(
        Spec(
            f"{prefix}event_loop_lag_seconds",
            "histogram",
            "Lag of the event loop: how late its timers fire.",
        ),
        Spec(f"{prefix}log_lines_dropped_total", "counter", "Log lines that could not be written."),
        Spec(
            f"{prefix}build_info",
            "info",
            "Versions of pingpong, Python and aioquic.",
            {"version": None, "python": None, "aioquic": None},
        ),
    )


def versions() -> dict[str, str]:
    """The versions of pingpong, Python and aioquic: the labels of `build_info`."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "aioquic": version("aioquic"),
    }


def standard_registry(*collectors: Collector) -> CollectorRegistry:
    """Make a registry of these, and prometheus_client's for process, Python and its collector."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
