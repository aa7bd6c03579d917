from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.many import Results, SessionRow, TargetRow, WorkerRow

BENCH = Path(__file__).parents[2] / "bench" / "many.py"


def results(growth: float = 2.0, share: float = 0.5) -> Results:
    return Results(
        sessions=[
            SessionRow("aioquic", 10, [50e3], [40e3], [1.0], [1.0], 0.001, 40 * 1024),
            SessionRow("aioquic", 10_000, [growth * 50e3], [80e3], [growth], [2.0], 0.01, 40_960),
        ],
        targets=[
            TargetRow("quinn", 10, 400e3, 500e3, 0.001, 0.002, 70e6),
            TargetRow("quinn", 1000, 200e3, 300e3, 0.001, 0.002, 70e6 + 990 * 100 * 1024),
        ],
        workers=[WorkerRow(1, [100e3], [1.0]), WorkerRow(2, [100e3], [share])],
    )


def test_tables_and_limits() -> None:
    found = results()
    text = list(found.lines())
    assert found.over() == 0
    rows = [line.split() for line in text]
    assert ["10,000", "100.0", "80.0", "2.00", "2.00", "1.00%", "40"] in rows
    assert ["1,000", "200", "300", "1.50", "1.0", "2.0", "171", "100"] in rows
    assert ["2", "100.0", "50%", "2.00"] in rows
    assert max(line.count("#") for line in text) == 40


def test_what_grows_and_what_does_not_spread_is_over_its_limit() -> None:
    assert results(growth=3.1).over() == 1
    assert results(share=0.6).over() == 1


@pytest.mark.process
@pytest.mark.timeout(300)
def test_a_quick_run_measures_everything() -> None:
    run = subprocess.run(
        [sys.executable, str(BENCH), "--quick", "--engine", "aioquic"],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    for part in ("server on aioquic", "probe on aioquic", "workers", "growth"):
        assert part in run.stdout, run.stderr
