from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.profile import ENGINE_LAYERS, ENGINES, LAYERS, MODES, SYSTEM_CALLS, Meter
from pingpong.webtransport.quic.engines import is_installed

PROFILE = Path(__file__).parents[2] / "bench" / "profile.py"


def test_time_counts_once_for_the_layer_that_spends_it() -> None:
    meter = Meter()
    inner = meter.clocked(lambda: sum(range(20_000)), "ping")
    outer = meter.clocked(lambda: inner() + inner(), "socket in")
    meter.reset()
    outer()
    assert set(meter.spent.values()) == {0}, "it is off"
    meter.is_on = True
    outer()
    assert meter.spent["ping"] > meter.spent["socket in"] > 0
    assert meter.clocks["ping"] == pytest.approx(0.8)
    assert sum(meter.clocks.values()) == pytest.approx(3)


@pytest.mark.process
def test_a_short_run_finds_where_a_ping_s_time_goes(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, str(PROFILE), "--samples", "8", "--json", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stderr
    engines = [engine for engine in ENGINES if is_installed(engine)]
    rows = json.loads(file.read_text())
    assert [(row["engine"], row["protocol"], row["mode"]) for row in rows] == [
        (engine, protocol, mode)
        for engine in engines
        for protocol in ("plain", "pingpong.v1")
        for mode in MODES
    ]
    for row in rows:
        assert row["layers"].keys() == set(LAYERS)
        assert sum(row["layers"].values()) == pytest.approx(row["total"])
        for layers in (ENGINE_LAYERS, SYSTEM_CALLS):
            assert sum(row["layers"][layer] for layer in layers) > 0
    for line in ("datagram", "together", "- the engine", "- system calls"):
        assert run.stdout.count(f"\n{line}") + run.stdout.count(f" {line} ") >= len(engines)
