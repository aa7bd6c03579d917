"""Measures the cost and punctuality of probing many targets: ours, and the bare QUIC engine.

`python bench/probing.py` runs it, in about two minutes. Each target is a connection with its own
socket, to one server in another process, on another CPU if there are two. It measures:

- CPU time of the probing process, for targets that are pinged once a second; and what of it the
  bare engine takes for the same, by doing only that
- by how much slots are late, beside the bare engine's, which have nothing but the same timers: what
  those are late by is this machine's doing, who else runs on it included
- what CPU time the text of the metrics takes, and its longest slice, between which packets pass;
  and slots while it is made
- memory, start and end of `pingpong probe` itself
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "services"))

from bench.processes import ProcessError, environment
from bench.servers import start_server, write_certificate

BARE, OURS = "bare", "ours"
SERVERS = {BARE: "bare-aioquic", OURS: "pingpong-aioquic"}
"""The server that each subject probes."""
MAX_CORE = 0.25
"""The part of a core, beyond the bare engine, for 200 targets a second."""
MAX_LATE = 0.002
"""Seconds that a slot may be late, in 99 of 100 cases, with 100 targets."""
MAX_SCRAPE = 0.100
MAX_SLICE = 0.005
"""Seconds of CPU time for the metrics of 100 targets, and for the slice that packets wait for."""
MAX_MEMORY = 96e6
"""Bytes of `pingpong probe` with 100 targets."""
MAX_START = 1.0
MAX_END = 0.3
"""Seconds: to be started, and from SIGTERM to the end with no session."""

_IDLE = 5.0
"""Seconds after which memory is measured."""


class Bench:
    """The servers, and processes that probe them one after the other."""

    def __init__(self, servers: dict[str, int], seconds: float) -> None:
        self.seconds = seconds
        self._servers = servers
        self._cpu = sorted(os.sched_getaffinity(0))[-1]

    def probe(
        self, subject: str, targets: int, *, scrapes: int = 0, engine: str = "auto"
    ) -> dict[str, Any]:
        """Run one process, with a QUIC engine. Raises `ProcessError`."""
        command = [
            *(sys.executable, "-m", "bench.probers", subject),
            *("--engine", engine, "--port", str(self._servers[subject])),
            *("--targets", str(targets)),
            *("--seconds", str(self.seconds), "--scrapes", str(scrapes)),
            *("--cpu", str(self._cpu)),
        ]
        done = subprocess.run(
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            timeout=120 + self.seconds,
            check=False,
        )
        if done.returncode:
            raise ProcessError(f"the probing process has ended with {done.returncode}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def start_servers(certificate: Path, stack: contextlib.ExitStack) -> dict[str, int]:
    """Start the servers that are probed, on one CPU. Returns the port of each subject's."""
    ports = {}
    for subject, name in SERVERS.items():
        server, ports[subject] = start_server(name, certificate)
        stack.callback(server.close)
        server.pin(sorted(os.sched_getaffinity(0))[0])
    return ports


class Command:
    """A `pingpong` process with these arguments, and its log."""

    def __init__(self, *words: str) -> None:
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pingpong", *words, "--admin-port=0", "--log-format=json"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield each event of this name. Raises `ProcessError` when the log ends."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                yield event
        raise ProcessError("pingpong has ended")

    def memory(self) -> tuple[int, int]:
        """Its resident memory in bytes, and the part that is anonymous."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines()
        status = {line.partition(":")[0]: line.split()[1] for line in lines if " kB" in line}
        return int(status["VmRSS"]) * 1024, int(status["RssAnon"]) * 1024

    @property
    def pids(self) -> list[int]:
        """The process, and then its workers."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [self._process.pid, *map(int, children.read_text(encoding="ascii").split())]

    def cpu_times(self) -> list[int]:
        """Nanoseconds of CPU time of the main threads of the process and its workers."""
        files = [Path(f"/proc/{pid}/schedstat") for pid in self.pids]
        return [int(file.read_text(encoding="ascii").split()[0]) for file in files]

    def pin(self, cpu: int) -> None:
        """Pin the process and its workers to a CPU."""
        for pid in self.pids:
            os.sched_setaffinity(pid, {cpu})

    def close(self) -> float:
        """Stop it. Returns how long that took, in seconds."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=30)
        return time.monotonic() - began


def _verdict(value: float, limit: float) -> str:
    return f"{'ok' if value <= limit else 'OVER'} (limit {limit:g})"


class Report:
    """Measures and prints; `over` is the number of values above their limits."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.over = 0

    def cost(self) -> None:
        """Measure the cost of 200 targets."""
        bare, ours = self._bench.probe(BARE, 200), self._bench.probe(OURS, 200)
        print("200 targets, a datagram each second      of one core   us a probe   answered")
        for name, result in (("bare engine", bare), ("ours", ours)):
            each = result["core"] * 1e6 * self._bench.seconds / max(result["answered"], 1)
            answered = f"{result['answered']} of {result['slots']}"
            print(f"{name:<40} {result['core']:11.2%} {each:12.0f}   {answered}")
        beyond = ours["core"] - bare["core"]
        self._print("ours beyond the engine", f"{beyond:11.2%}", beyond, MAX_CORE)

    def punctuality(self) -> None:
        """Measure how late slots are, and how long scrapes take."""
        bare = self._bench.probe(BARE, 100)
        quiet = self._bench.probe(OURS, 100)
        scraped = self._bench.probe(OURS, 100, scrapes=20)
        print("\n100 targets: a slot is late by, ms               p50      p99      max")
        for name, result, limit in (
            ("bare engine", bare, None),
            ("ours", quiet, MAX_LATE),
            ("ours, its metrics scraped 5 times a second", scraped, None),
        ):
            late = "".join(f"{result['late'][key] * 1e3:9.2f}" for key in ("p50", "p99", "max"))
            self._print(f"{name:<43}", late, result["late"]["p99"], limit)
        slices = scraped["text_slices"]
        scrape, longest = sum(slices), max(slices)
        self._print(
            "\nmetrics of 100 targets, ms of CPU", f"{scrape * 1e3:8.1f}", scrape, MAX_SCRAPE
        )
        self._print("its longest slice", f"{longest * 1e3:8.1f}", longest, MAX_SLICE)

    def service(self) -> None:
        """Measure memory, start and stop of the command."""
        server = Command("serve", "--bind-host=0.0.0.0", "--bind-port=0")
        port = next(server.events("listening"))["port"]
        urls = ",".join(f"https://127.1.0.{number}:{port}/ping" for number in range(1, 101))
        probe = Command("probe", urls, "--insecure")
        next(probe.events("started"))
        start = time.monotonic() - probe.began
        ups = probe.events("target_up")
        for _ in range(100):
            next(ups)
        up = time.monotonic() - probe.began
        time.sleep(_IDLE)
        memory, anonymous = probe.memory()
        end = probe.close()
        server.close()
        alone = Command("probe", f"https://127.1.0.1:{port}/ping", "--insecure")
        next(alone.events("connect_failed"))
        end_alone = alone.close()
        self._print("\nmemory with 100 targets, MB", f"{memory / 1e6:8.1f}", memory, MAX_MEMORY)
        print(f"{'of that, anonymous (not shared)':<40}{anonymous / 1e6:8.1f}")
        self._print("started after, s", f"{start:8.2f}", start, MAX_START)
        print(f"{'all 100 up after, s':<40}{up:8.2f}")
        self._print("ended after, with no session, s", f"{end_alone:8.2f}", end_alone, MAX_END)
        print(f"{'with 100, s':<40}{end:8.2f}")

    def _print(self, name: str, text: str, value: float, limit: float | None) -> None:
        verdict = "" if limit is None else f"   {_verdict(value, limit)}"
        width = 41 if name.startswith("\n") else 40
        print(f"{name:<{width}}{text}{verdict}")
        self.over += limit is not None and value > limit


def main() -> int:
    """Returns the exit status: 1 if a value is above its limit, or a process failed."""
    parser = argparse.ArgumentParser(description="What probing many targets costs.")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        certificate = Path(folder) / "certificate.pem"
        write_certificate(certificate)
        try:
            report = Report(Bench(start_servers(certificate, stack), arguments.seconds))
            report.cost()
            report.punctuality()
            report.service()
        except ProcessError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    print(f"\n{report.over} over the limits." if report.over else "\nAll within the limits.")
    return 1 if report.over else 0


if __name__ == "__main__":
    sys.exit(main())
