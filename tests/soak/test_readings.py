"""A process that leaks is found out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.soak.accounts import Pings, Reading, not_flat
from tests.soak.readings import FOLDER, INSIDE, pings, reading, resident
from tests.support.running import Metrics

LEAKING = """
import asyncio, os, sys

kept = []

async def main():
    for line in iter(sys.stdin.readline, ""):
        if "fds" in line:
            kept.append(open(os.devnull))
        if "tasks" in line:
            kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(1000)))
        if "objects" in line:
            kept.extend([] for _ in range(2000))
        if "malloc" in line:
            kept.append(b"x" * (8 << 20))
        if "blocks" in line:
            kept.append(tuple(f"text {n}" for n in range(10_000)))
        print("done", flush=True)
        await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONPATH": str(INSIDE), FOLDER: str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LEAKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def read(process: subprocess.Popen[str], tmp_path: Path) -> Callable[[str], Reading]:
    """Have the process leak something, and read its figures."""

    def read(leak: str) -> Reading:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{leak}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        rss = resident(process.pid)
        found = reading(process.pid, tmp_path)
        return Reading({"rss": rss, **found.figures}, found.types)

    return read


@pytest.mark.process
def test_leaks_are_found(read: Callable[[str], Reading]) -> None:
    begin = read("nothing")
    assert list(not_flat("it", begin, read("nothing"))) == []
    for leak in ("fds", "tasks", "objects", "malloc", "blocks"):
        before = read("nothing")
        complaints = list(not_flat("it", before, read(leak)))
        found = {complaint.split()[1] for complaint in complaints}
        assert leak in found, complaints
        # Each is memory as well.
        assert found <= {leak, "rss", "kept", "blocks", "objects"}, complaints


METRICS = """\
# TYPE pingpong_client_probes_completed counter
pingpong_client_probes_completed_total{target="a",mode="uni",result="ok"} 7
pingpong_client_probes_completed_total{target="a",mode="uni",result="late"} 1
pingpong_client_probes_completed_total{target="a",mode="uni",result="lost"} 2
pingpong_client_probes_completed_total{target="a",mode="uni",result="malformed"} 0
pingpong_client_probes_completed_total{target="a",mode="uni",result="send_error"} 4
# TYPE pingpong_client_probes_sent counter
pingpong_client_probes_sent_total{target="a",mode="uni"} 11
pingpong_client_probes_sent_total{target="b",mode="uni"} 1
"""


def test_pings_are_read_of_each_target_that_a_whole_scrape_has() -> None:
    found = pings(Metrics(METRICS))
    assert found == {("a", "uni"): Pings(11, 7, 1, 2, send_error=4)}
    assert found["a", "uni"].waiting == 1
