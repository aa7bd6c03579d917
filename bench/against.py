"""Compares the server's CPU time per ping of this checkout with that of another one.

`make bench AGAINST=v1.0` (or a commit, or a folder with a checkout) runs it, in about three
minutes. Each server is a process that runs the `bench` and `services` of its checkout, with the
packages of this environment. The clients are of this checkout, so both servers do the same work.
It measures the CPU time of the server's process, user and system.

Other processes disturb a round, and the memory layout of a process changes its costs while it
runs. So there are many short rounds, which alternate between the servers, and both are restarted
several times. The result is the median of the ratios of consecutive rounds; on a machine with a
load of three times its cores it was within 2.5 % for identical code. The cheapest rounds, and
their ratio, are printed too. `AGAINST=HEAD` in a checkout without changes shows the noise of a
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "services"))

from bench.overhead import write_certificate
from bench.processes import ROOT, Pair, WorkerError
from bench.results import OURS

MODES = ("datagram", "stream", "streams", "uni")
HANDSHAKE = "handshake"
MAX_RATIO = 1.03
"""The limit of the ratio of costs."""
_CONNECT = 9
"""Handshakes of a round."""


class CheckoutError(Exception):
    """The other checkout cannot be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of measurements."""

    starts: int = 4
    """Starts of the processes."""
    sessions: tuple[int, ...] = (1, 100)
    outstanding: tuple[int, ...] = (1, 32)
    rounds: int = 30
    """Of each start."""
    pings: int = 100
    """Of each round."""


QUICK = Plan(starts=2, sessions=(1, 10), rounds=2, pings=100)


@dataclass(slots=True)
class Row:
    """The server's CPU time for a ping (or a handshake), in nanoseconds, in each round."""

    mode: str
    sessions: int
    outstanding: int
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The ratio of the cheapest rounds."""
        return min(self.after) / min(self.before)

    @property
    def quartiles(self) -> list[float]:
        """The quartiles of the ratios of consecutive rounds."""
        pairs = zip(self.before, self.after, strict=True)
        ratios = [after / before for before, after in pairs]
        return statistics.quantiles(ratios, n=4, method="inclusive")

    @property
    def is_over(self) -> bool:
        """Whether the ratio is above the limit. Handshakes have none."""
        return self.mode != HANDSHAKE and self.quartiles[1] > MAX_RATIO


class Comparison:
    """Measures, and keeps the rows."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.rows: dict[tuple[str, int, int], Row] = {}
        self._plan = plan
        self._say = say

    def measure(self, other: Path, certificate: Path) -> None:
        """Start and measure both servers, as planned. Raises `WorkerError`."""
        for start in range(self._plan.starts):
            with (
                Pair(OURS, OURS, certificate, root=other) as before,
                Pair(OURS, OURS, certificate) as after,
            ):
                for pair in (before, after):
                    pair.start()
                self._measure(before, after, f"start {start + 1} of {self._plan.starts}")

    def _measure(self, before: Pair, after: Pair, start: str) -> None:
        there = 0
        for sessions in self._plan.sessions:
            self._say(f"{start}: connecting {sessions}")
            for rest in range(sessions - there, 0, -_CONNECT):
                # The first connection also pays for one-time setup.
                count = min(rest, _CONNECT)
                self._round(before, after, HANDSHAKE, sessions, 1, count, keep=count > 1)
            there = sessions
            for outstanding in self._plan.outstanding:
                for mode in MODES:
                    self._say(f"{start}: {sessions} sessions, {mode}, {outstanding} at once")
                    # Warm up: open streams, fill caches, widen windows.
                    warm = max(64, sessions)
                    self._round(before, after, mode, sessions, outstanding, warm, keep=False)
                    for _ in range(self._plan.rounds):
                        self._round(before, after, mode, sessions, outstanding, self._plan.pings)

    def _round(
        self,
        before: Pair,
        after: Pair,
        mode: str,
        sessions: int,
        outstanding: int,
        count: int,
        *,
        keep: bool = True,
    ) -> None:
        key = (mode, sessions, outstanding)
        row = self.rows.setdefault(key, Row(*key)) if keep else Row(*key)
        pairs = [(before, row.before), (after, row.after)]
        for pair, costs in pairs if len(row.before) % 2 else reversed(pairs):
            pair.pin(together=outstanding == 1)
            if mode == HANDSHAKE:
                cost = pair.measure("connect", count=count, at_once=1)
            else:
                cost = pair.measure("ping", mode=mode, outstanding=outstanding, count=count)
            costs.append(cost.server / count)


def lines(rows: list[Row]) -> Iterator[str]:
    """The table, and its summary."""
    yield "server   sessions out-      CPU us a ping, least  after / before   after / before, all"
    yield f"limit {MAX_RATIO:.2f}        standing   before     after  of the least  median  quartiles"
    for row in rows:
        costs = f"{min(row.before) / 1000:9.1f}{min(row.after) / 1000:10.1f}{row.ratio:14.3f}"
        low, median, high = row.quartiles
        verdict = "" if row.mode == HANDSHAKE else " OVER" if row.is_over else " ok"
        yield (
            f"{row.mode:<9}{row.sessions:>8}{row.outstanding:>9}{costs}"
            f"{median:8.3f}  {low:.3f}..{high:.3f}{verdict}"
        )
    pings = [row for row in rows if row.mode != HANDSHAKE]
    least = statistics.geometric_mean(row.ratio for row in pings)
    median = statistics.geometric_mean(row.quartiles[1] for row in pings)
    yield f"{'all pings, the geometric mean':<45}{least:14.3f}{median:8.3f}"
    over = sum(row.is_over for row in rows)
    yield ""
    yield f"{over} over the limit." if over else "All within the limit."


@contextlib.contextmanager
def checkout(what: str) -> Iterator[Path]:
    """The folder of a checkout, or of a commit of this repository, within the context.

    Raises `CheckoutError`.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(what).resolve()
        if not root.is_dir():
            root = Path(folder)
            archive = ["git", "-C", str(ROOT), "archive", what, "bench", "services"]
            got = subprocess.run(archive, capture_output=True, check=False)
            if got.returncode:
                raise CheckoutError(f"{what}: no folder, and {got.stderr.decode().strip()}")
            subprocess.run(["tar", "-x", "-C", folder], input=got.stdout, check=True)
        if not (root / "bench" / "worker.py").is_file():
            raise CheckoutError(f"{what}: has no bench/worker.py")
        yield root


def main() -> int:
    """Returns the exit status: 1 if a ratio is above the limit, or a process failed."""
    parser = argparse.ArgumentParser(description="What a ping costs, beside another checkout.")
    parser.add_argument("against", metavar="COMMIT_OR_FOLDER", help="the checkout to compare with")
    parser.add_argument(
        "--quick", action="store_true", help="a short run, to check that the benchmark works"
    )
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{time.monotonic() - began:4.0f} s  {text}", end="", file=sys.stderr)

    comparison = Comparison(QUICK if arguments.quick else Plan(), say)
    try:
        with tempfile.TemporaryDirectory() as folder, checkout(arguments.against) as other:
            certificate = Path(folder) / "certificate.pem"
            write_certificate(certificate)
            comparison.measure(other, certificate)
    except (CheckoutError, WorkerError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
    rows = list(comparison.rows.values())
    print("\n".join(lines(rows)))
    return 1 if any(row.is_over for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
