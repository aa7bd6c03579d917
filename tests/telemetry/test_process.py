from __future__ import annotations

import re
import time

from prometheus_client import Metric

import pingpong
from pingpong.telemetry.metrics import Spec, merge
from pingpong.telemetry.process import MERGES, standard_registry, versions

LEVEL = Spec("x_level", "gauge", "A level.")


class Level:
    def collect(self) -> list[Metric]:
        return [LEVEL.metric([((), 3)])]


def values(metrics: list[Metric]) -> dict[str, float]:
    return {sample.name: sample.value for metric in metrics for sample in metric.samples}


def test_a_registry_has_what_is_given_and_the_standard_collectors() -> None:
    found = values(list(standard_registry(Level()).collect()))
    assert found["x_level"] == 3
    assert found["process_start_time_seconds"] <= time.time()
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
            "python_info", "python_gc_collections_total"} < found.keys()  # fmt: skip


def test_of_several_workers() -> None:
    one = list(standard_registry().collect())
    alone, both = values(one), values(merge([one, one], MERGES))
    for name in ("process_start_time_seconds", "process_max_fds", "python_info"):
        assert both[name] == alone[name]
    assert both["process_open_fds"] == 2 * alone["process_open_fds"]
    assert both["process_cpu_seconds_total"] == 2 * alone["process_cpu_seconds_total"]


def test_versions() -> None:
    found = versions()
    assert list(found) == ["version", "python", "aioquic"]
    assert found["version"] == pingpong.__version__
    assert all(re.match(r"\d+\.\d+", version) for version in found.values())
