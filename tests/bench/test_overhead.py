from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import AIOQUIC, BARE, OURS, HandshakeRow, PingRow, Results, Samples

BENCH = Path(__file__).parents[2] / "bench" / "overhead.py"
MODES = ("datagram", "stream", "streams")


def samples(aioquic: list[float], bare: list[float], ours: list[float]) -> Samples:
    return Samples({AIOQUIC: aioquic, BARE: bare, OURS: ours})


def results(ours: float, memory: float = 1024) -> Results:
    cost = samples([100_000.0], [50_000.0], [ours])
    return Results(
        ["about"],
        pings=[PingRow(role, "datagram", 1, 32, cost, cost) for role in ("server", "client")],
        handshakes=[HandshakeRow(role, cost) for role in ("server", "client")],
        memory={AIOQUIC: 90_000, BARE: 80_000, OURS: 80_000 + memory},
        added_session_memory=memory,
    )


def test_figures_are_medians_and_ratios_belong_to_their_round() -> None:
    figures = samples([10, 100, 20], [5, 50, 20], [5, 50, 10])
    assert figures.median(OURS) == 10
    assert figures.ratio(AIOQUIC) == 0.5
    assert figures.ratio(BARE) == 1.0


def test_limits_are_for_servers() -> None:
    assert results(50_000).over() == 0
    assert results(70_000).over() == 1
    assert results(90_000).over() == 2
    assert "All within the limits." in results(50_000).lines()


def test_a_session_that_takes_more_than_its_limit_is_reported() -> None:
    assert results(50_000, memory=8193).over() == 2
    lines = list(results(50_000, memory=8193).lines())
    assert sum(line.endswith("8.0 OVER") for line in lines) == 2


@pytest.mark.process
@pytest.mark.timeout(300)  # half a minute of CPU
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    run = subprocess.run(
        [sys.executable, str(BENCH), "--quick", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""

    row = re.compile(rf"({'|'.join(MODES)}) +(\d+) +(\d+)((?: +\d+\.\d)+.*)")
    rows = [match for line in run.stdout.splitlines() if (match := row.fullmatch(line))]
    seen = [(match[1], int(match[2]), int(match[3])) for match in rows]
    once = [(mode, count, out) for count in (1, 10) for out in (1, 32) for mode in MODES]
    assert seen == once * 2  # servers, then clients
    for match in rows:
        figures = [float(text) for text in match[4].split() if re.fullmatch(r"\d+\.\d+", text)]
        assert len(figures) == 8
        assert min(figures) > 0
    handshakes = re.findall(r"^(server|client) +((?:\d+\.\d\d +){3})", run.stdout, re.MULTILINE)
    assert [role for role, _ in handshakes] == ["server", "client"]
    assert all(float(text) > 0 for _, texts in handshakes for text in texts.split())
    assert re.search(r"^ours, a further session, of 50 +\d+\.\d (ok|OVER)$", run.stdout, re.M)

    written = json.loads(file.read_text())
    assert len(written["pings"]) == len(rows)
    assert min(written["memory"].values()) > 0
    assert written["added_session_memory"] > 0
