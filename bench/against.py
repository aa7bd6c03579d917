"""What a ping costs the server: this checkout's beside another's, in interleaved rounds of one run.

`make bench AGAINST=v1.0` (or a commit, or a folder with a checkout) runs it, in some three minutes.
Each checkout's server is a process that runs its own `bench` and `services`, with this environment's
packages; the clients are this checkout's for both, so that both do the same work. Measured is the
time of the server's process, the kernel's for it included.

What else runs on the machine disturbs a round, and how a process happens to lie in memory changes
its costs for as long as it lives. So rounds are many and short, those of the two servers alternate,
and both are started several times. The verdict is by the median of the ratios of rounds that
followed each other; on a machine with three times as much to do as it has cores it was within 2.5 %
for no difference at all. The cheapest rounds, and their ratio, are there for comparison.
`AGAINST=HEAD` in a checkout without changes shows what a machine makes of no difference.
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
"""How much dearer a ping may become."""
_CONNECT = 9
"""Handshakes of a round."""


class CheckoutError(Exception):
    """What is compared with isn't a checkout that can be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    starts: int = 4
    """How often the processes are started anew."""
    sessions: tuple[int, ...] = (1, 100)
    outstanding: tuple[int, ...] = (1, 32)
    rounds: int = 30
    """Of each start."""
    pings: int = 100
    """Of each round."""


QUICK = Plan(starts=2, sessions=(1, 10), rounds=2, pings=100)


@dataclass(slots=True)
class Row:
    """Nanoseconds of the server's CPU for a ping (or a handshake); one figure of each round."""

    mode: str
    sessions: int
    outstanding: int
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """This checkout's cheapest round in parts of the other's."""
        return min(self.after) / min(self.before)

    @property
    def quartiles(self) -> list[float]:
        """The quartiles of the rounds' own ratios; the median is the one in the middle."""
        pairs = zip(self.before, self.after, strict=True)
        ratios = [after / before for before, after in pairs]
        return statistics.quantiles(ratios, n=4, method="inclusive")

    @property
    def is_over(self) -> bool:
        """Whether it is too much. Handshakes have no limit."""
        return self.mode != HANDSHAKE and self.quartiles[1] > MAX_RATIO


class Comparison:
    """Measures, and keeps the rows."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.rows: dict[tuple[str, int, int], Row] = {}
        self._plan = plan
        self._say = say

    def measure(self, other: Path, certificate: Path) -> None:
        """Start both servers as often as planned. Raises `WorkerError` where one fails."""
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
                # What is made once is made by the first.
                count = min(rest, _CONNECT)
                self._round(before, after, HANDSHAKE, sessions, 1, count, keep=count > 1)
            there = sessions
            for outstanding in self._plan.outstanding:
                for mode in MODES:
                    self._say(f"{start}: {sessions} sessions, {mode}, {outstanding} at once")
                    # Streams are opened, caches filled, windows widened.
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
    """The table, and what it comes to."""
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
    """The folder of a checkout, or of a commit of this one's repository, while it is open.

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
    """Returns the exit status: 1 where a figure is over the limit, or a process has failed."""
    parser = argparse.ArgumentParser(description="What a ping costs, beside another checkout.")
    parser.add_argument("against", metavar="COMMIT_OR_FOLDER", help="what was before")
    parser.add_argument("--quick", action="store_true", help="measure little: is all in order?")
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
