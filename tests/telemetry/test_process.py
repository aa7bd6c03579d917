from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector

import pingpong
from pingpong.telemetry.metrics import merge
from pingpong.telemetry.process import PROCESS_SPECS, process_source, versions


def values() -> dict[str, float]:
    found = {}
    for family in process_source()():
        (value,) = family.rows.values()
        assert isinstance(value, int | float)
        found[family.spec.name] = value
    return found


def test_they_are_those_of_prometheus_client() -> None:
    theirs = {
        sample.name: sample.value
        for metric in ProcessCollector(registry=None).collect()
        for sample in metric.samples
    }
    ours = values()
    assert ours.keys() == theirs.keys() == {spec.name for spec in PROCESS_SPECS}
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert ours[name] == theirs[name]
    for name in ("process_resident_memory_bytes", "process_virtual_memory_bytes"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.2)
    assert ours["process_cpu_seconds_total"] == pytest.approx(
        theirs["process_cpu_seconds_total"], abs=1
    )


def test_they_are_true() -> None:
    before = values()
    with Path("/dev/null").open():
        after = values()
    assert after["process_open_fds"] == before["process_open_fds"] + 1
    assert before["process_start_time_seconds"] <= time.time()
    assert before["process_max_fds"] == os.sysconf("SC_OPEN_MAX")


def test_cpu_time_grows_with_what_is_done() -> None:
    before = values()["process_cpu_seconds_total"]
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert values()["process_cpu_seconds_total"] > before


def test_a_program_with_blanks_and_brackets_in_its_name(tmp_path: Path) -> None:
    fields = ["S", *["0"] * 10, "200", "100", *["0"] * 6, "500", "4096", "3", *["0"] * 20]
    (tmp_path / "self/fd").mkdir(parents=True)
    (tmp_path / "self/stat").write_text(f"12 (a) b (c) {' '.join(fields)}\n")
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1700000000\n")
    rows = {family.spec.name: family.rows[()] for family in process_source(tmp_path)()}
    ticks = os.sysconf("SC_CLK_TCK")
    assert rows["process_cpu_seconds_total"] == 300 / ticks
    assert rows["process_start_time_seconds"] == 1_700_000_000 + 500 / ticks
    assert rows["process_virtual_memory_bytes"] == 4096
    assert rows["process_resident_memory_bytes"] == 3 * os.sysconf("SC_PAGE_SIZE")


def test_without_proc_there_are_none(tmp_path: Path) -> None:
    assert list(process_source(tmp_path)()) == []


def test_of_several_workers() -> None:
    merged = merge([list(process_source()()), list(process_source()())])
    rows = {family.spec.name: family.rows[()] for family in merged}
    one = values()
    assert rows["process_start_time_seconds"] == one["process_start_time_seconds"]
    assert rows["process_max_fds"] == one["process_max_fds"]
    assert rows["process_open_fds"] == 2 * one["process_open_fds"]


def test_versions() -> None:
    found = versions()
    assert list(found) == ["version", "python", "aioquic"]
    assert found["version"] == pingpong.__version__
    assert all(re.match(r"\d+\.\d+", version) for version in found.values())
