"""Measures what a ping over WebTransport costs: ours, aioquic's own, and the bare QUIC engine.

`make bench` runs it; `python bench/overhead.py --help` shows its options. There are three
subjects:

- aioquic: aioquic's own asyncio server (or client) and H3Connection, with the smallest handler
- bare: the engine under our pump, raw QUIC without HTTP/3 or WebTransport
- ours: what `pingpong serve` and `pingpong ping` run

The subject and its peer are separate processes; the result is the CPU time of the subject's
process, user and system. aioquic talks to ours, bare to bare, ours to ours. With one outstanding
ping the two processes share a CPU, since they alternate anyway, so no idle CPU has to wake up;
otherwise each has its own. Rounds alternate between the subjects. Values are medians of the
rounds, ratios are medians of the rounds' ratios. All messages have the size of `pingpong.v1`, one
packet each, round-robin over the sessions.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "services"))

from cryptography.hazmat.primitives import serialization

from bench.processes import Cost, Pair, WorkerError
from bench.results import AIOQUIC, BARE, OURS, HandshakeRow, PingRow, Results
from pingpong.ping import DEFAULT_SIZE
from pingpong.webtransport.certificates import make_certificate

MODES = ("datagram", "stream", "streams")
ROLES = ("server", "client")
PAIRS = {
    "aioquic server": (AIOQUIC, OURS),
    "aioquic client": (OURS, AIOQUIC),
    "bare": (BARE, BARE),
    "ours": (OURS, OURS),
}
SUBJECT_PAIRS = {
    "server": {AIOQUIC: "aioquic server", BARE: "bare", OURS: "ours"},
    "client": {AIOQUIC: "aioquic client", BARE: "bare", OURS: "ours"},
}
"""The pair of each subject, by role."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of measurements."""

    sessions: tuple[int, ...] = (1, 100, 1000)
    outstanding: tuple[int, ...] = (1, 32)
    rounds: int = 5
    pings: int = 400
    """In each round, at least as many as there are sessions."""
    connect_rounds: int = 4
    added_sessions: int = 1000


QUICK = Plan(sessions=(1, 10), rounds=2, pings=32, connect_rounds=2, added_sessions=50)


def write_certificate(file: Path) -> None:
    """Create the certificate and the key of all servers."""
    made = make_certificate(["localhost", "127.0.0.1"], datetime.datetime.now(datetime.UTC))
    key = made.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.touch(0o600)
    file.write_bytes(made.pem() + key)


class Run:
    """One run: the processes, and the results."""

    def __init__(self, plan: Plan, pairs: dict[str, Pair], say: Callable[[str], None]) -> None:
        self._plan = plan
        self._pairs = pairs
        self._say = say
        self.results = Results(
            [
                f"aioquic {version('aioquic')}, Python {platform.python_version()}, "
                f"uvloop {version('uvloop')} in all processes",
                f"medians of {plan.rounds} rounds of {plan.pings} pings or one a session, "
                f"{DEFAULT_SIZE} bytes each; clients have no limits of their own",
                "bare and ours collect garbage as `pingpong serve` does, aioquic as Python does",
            ]
        )

    def measure(self) -> None:
        """Measure with an increasing number of sessions."""
        there = 0
        for sessions in self._plan.sessions:
            self._say(f"{sessions} sessions: connecting")
            self._pin(together=False)
            self._connect(there, sessions, last=sessions == max(self._plan.sessions))
            there = sessions
            for outstanding in self._plan.outstanding:
                self._pin(together=outstanding == 1)
                for mode in MODES:
                    self._say(f"{sessions} sessions: {mode}, {outstanding} at once")
                    self._ping(mode, sessions, outstanding)

    def measure_added_sessions(self, pair: Pair) -> None:
        """Measure the memory of more sessions on one connection."""
        self._say("further sessions on one connection")
        count = self._plan.added_sessions
        pair.measure("connect", count=1, at_once=1)
        # The first sessions also pay for one-time setup.
        pair.measure("sessions", count=10)
        before, _ = pair.memory()
        pair.measure("sessions", count=count)
        after, _ = pair.memory()
        self.results.added_sessions = count
        self.results.added_session_memory = (after - before) / count

    def _pin(self, *, together: bool) -> None:
        for pair in self._pairs.values():
            pair.pin(together=together)

    def _connect(self, there: int, wanted: int, *, last: bool) -> None:
        rows = {role: HandshakeRow(role) for role in ROLES}
        before = {name: pair.memory()[0] for name, pair in self._pairs.items()}
        rounds = min(self._plan.connect_rounds, wanted - there)
        for turn in range(rounds):
            count = (wanted - there) * (turn + 1) // rounds - (wanted - there) * turn // rounds
            costs = {
                name: pair.measure("connect", count=count, at_once=min(8, count)).each(count)
                for name, pair in self._pairs.items()
            }
            for role, row in rows.items():
                for subject, name in SUBJECT_PAIRS[role].items():
                    row.cpu.rounds[subject].append(_of(role, costs[name]))
        if last:
            self.results.handshakes.extend(rows.values())
            self.results.measured_connections = wanted - there
            for subject, name in SUBJECT_PAIRS["server"].items():
                grown = self._pairs[name].memory()[0] - before[name]
                self.results.memory[subject] = grown / (wanted - there)

    def _ping(self, mode: str, sessions: int, outstanding: int) -> None:
        count = max(self._plan.pings, sessions)
        rows = {role: PingRow(role, mode, sessions, outstanding) for role in ROLES}
        for pair in self._pairs.values():
            # Warm up: open streams, fill caches, widen windows.
            pair.measure("ping", mode=mode, outstanding=outstanding, count=max(32, sessions))
        for _ in range(self._plan.rounds):
            costs = {
                name: pair.measure("ping", mode=mode, outstanding=outstanding, count=count)
                for name, pair in self._pairs.items()
            }
            self.results.lost += sum(cost.lost for cost in costs.values())
            for role, row in rows.items():
                for subject, name in SUBJECT_PAIRS[role].items():
                    cost = costs[name].each(count)
                    row.cpu.rounds[subject].append(_of(role, cost))
                    row.wall.rounds[subject].append(cost.wall)
        self.results.pings.extend(rows.values())


def _of(role: str, cost: Cost) -> float:
    return cost.server if role == "server" else cost.client


def run(plan: Plan, say: Callable[[str], None]) -> Results:
    """Start the processes, measure, and end them. Raises `WorkerError`."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        certificate = Path(folder) / "certificate.pem"
        write_certificate(certificate)
        pairs = {
            name: stack.enter_context(Pair(server, client, certificate))
            for name, (server, client) in PAIRS.items()
        }
        added = Pair(OURS, OURS, certificate, max_sessions=plan.added_sessions + 11)
        stack.enter_context(added)
        for pair in (*pairs.values(), added):
            pair.start()
        measured = Run(plan, pairs, say)
        measured.measure_added_sessions(added)
        measured.measure()
        return measured.results


def main() -> int:
    """Returns the exit status: 1 if a process failed."""
    parser = argparse.ArgumentParser(description="What a ping over WebTransport costs.")
    parser.add_argument(
        "--quick", action="store_true", help="a short run, to check that the benchmark works"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all results to this file"
    )
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{time.monotonic() - began:4.0f} s  {text}", end="", file=sys.stderr)

    try:
        results = run(QUICK if arguments.quick else Plan(), say)
    except WorkerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
    print("\n".join(results.lines()))
    if arguments.json is not None:
        text = json.dumps(results.as_json(), indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
