from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.against import HANDSHAKE, MODES, Row, lines

ROOT = Path(__file__).parents[2]
ROW = re.compile(
    rf"({'|'.join((*MODES, HANDSHAKE))}) .* ([\d.]+) +([\d.]+) +[\d.]+ +([\d.]+)  \S+( ok|)"
)


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "against.py"), "--quick", *words],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )


@pytest.mark.parametrize(
    ("after", "is_over"),
    [
        ([1020.0, 2040.0, 4080.0], False),
        ([1040.0, 2080.0, 4160.0], True),
        ([9.0, 2080, 4160], True),
    ],
)
def test_the_verdict_is_by_the_median_of_the_rounds_ratios(
    after: list[float], is_over: bool
) -> None:
    row = Row("datagram", 1, 32, [1000.0, 2000.0, 4000.0], after)
    assert row.is_over == is_over
    assert list(lines([row]))[-1] == ("1 over the limit." if is_over else "All within the limit.")
    handshake = Row(HANDSHAKE, 1, 32, [1000.0, 2000.0, 4000.0], after)
    assert not handshake.is_over


@pytest.mark.process
@pytest.mark.timeout(300)  # half a minute of CPU
def test_each_checkout_runs_its_own_server(tmp_path: Path) -> None:
    """The other one's pretends that all costs twice as much."""
    shutil.copytree(ROOT / "bench", tmp_path / "bench")
    (tmp_path / "services").symlink_to(ROOT / "services")
    worker = tmp_path / "bench" / "worker.py"
    text = worker.read_text()
    worker.write_text(text.replace('{"cpu": cpu_time()}', '{"cpu": 2 * cpu_time()}'))
    assert worker.read_text() != text

    run = compare(str(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    rows = [found for line in run.stdout.splitlines() if (found := ROW.fullmatch(line))]
    counted = {mode: sum(row[1] == mode for row in rows) for mode in (*MODES, HANDSHAKE)}
    assert counted == dict.fromkeys(MODES, 4) | {HANDSHAKE: 1}
    for row in rows:
        assert 0.25 < float(row[4]) < 0.8, row[0]
    assert "All within the limit." in run.stdout


@pytest.mark.process
@pytest.mark.parametrize("what", ["no-such-commit", "."])
def test_what_cannot_be_compared_with_is_said(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = compare(what)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith(f"bench: {what}: ")
