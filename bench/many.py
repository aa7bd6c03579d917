"""Measures what many sessions and many targets cost, beside few.

`make bench-many` runs it, in about ten minutes, with at most 2 GB of memory, for each QUIC engine
that is installed. It measures:

- the server's CPU time for a ping, with up to 10,000 sessions in one worker: each session has a
  connection of its own, and they ping in turn. The server beside it has ten sessions, and rounds
  alternate between the two, so that the ratio is of one run. Also what sessions cost that do nothing
- the CPU time of `pingpong probe` for a probe and its memory for a target, with up to 1,000 targets
  that are pinged once a second, and by how much probes are late; the bare engine beside it does
  only the same sends
- the CPU time for a ping of one worker and of two, on the server's default engine, and how evenly
  two share the load: the busier one limits what both carry, so two carry `cost of one / (cost of two
  * the larger share)` times as much. All run on one core, so that a machine needs no third one for
  the load; two workers have the same sessions, and twice the load

The load is our own client's: see peers.py for others'.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "services"))

from bench.probing import BARE, OURS, Bench, Command, start_servers
from bench.processes import Pair, ProcessError
from bench.servers import start_client, start_server, write_certificate
from pingpong.webtransport.quic.engines import is_installed

MAX_GROWTH = 3.0
"""The limit of a ping's cost with the most sessions, in that with the fewest."""
MIN_WORKERS = 1.8
"""What two workers carry, at least, in what one does."""
OUTSTANDING = 10
"""Pings at a time, besides one: no more than sessions, or a packet would carry several."""
_BAR = 40


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of measurements."""

    sessions: tuple[int, ...] = (10, 100, 1000, 10_000)
    rounds: int = 9
    pings: int = 1200
    """Of each round."""
    idle: float = 5.0
    """Seconds."""
    targets: tuple[int, ...] = (10, 100, 1000)
    seconds: float = 10.0
    """For each measurement of targets."""
    worker_sessions: int = 200
    worker_outstanding: int = 32
    """For each worker."""


QUICK = Plan(
    sessions=(10, 20),
    rounds=2,
    pings=60,
    idle=0.5,
    targets=(2, 10),
    seconds=2.0,
    worker_sessions=16,
)


@dataclass(slots=True)
class SessionRow:
    """A number of sessions. Costs are in nanoseconds of the server's CPU time, for each round."""

    engine: str
    sessions: int
    one: list[float] = field(default_factory=list)
    """A ping, one outstanding."""
    several: list[float] = field(default_factory=list)
    """A ping, `OUTSTANDING` outstanding."""
    one_ratios: list[float] = field(default_factory=list)
    several_ratios: list[float] = field(default_factory=list)
    """The costs in those with the fewest sessions, in the same round."""
    idle: float = 0.0
    """The part of a core that all of them take while nothing is sent."""
    memory: float = 0.0
    """Bytes for each session."""


@dataclass(slots=True)
class TargetRow:
    """A number of targets that are pinged once a second."""

    engine: str
    targets: int
    bare: float
    """Nanoseconds of the bare engine's CPU time for a probe."""
    ours: float
    late_bare: float
    """Seconds that a slot is late in 99 of 100 cases."""
    late: float
    memory: float
    """Bytes of the process."""


@dataclass(slots=True)
class WorkerRow:
    """A number of workers, in each round."""

    workers: int
    pings: list[float] = field(default_factory=list)
    """Nanoseconds of the CPU time of all workers for a ping."""
    shares: list[float] = field(default_factory=list)
    """The busiest worker's part of it."""

    def carries(self, one: WorkerRow) -> float:
        """What it carries, in what `one` does."""
        rounds = zip(one.pings, self.pings, self.shares, strict=True)
        return statistics.median(least / (ping * share) for least, ping, share in rounds)


@dataclass(slots=True)
class Results:
    """What was measured."""

    sessions: list[SessionRow] = field(default_factory=list)
    targets: list[TargetRow] = field(default_factory=list)
    workers: list[WorkerRow] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """A ping's cost with the most sessions, in that with the fewest; the largest of all."""
        return max(
            statistics.median(ratios)
            for row in self.sessions
            for ratios in (row.one_ratios, row.several_ratios)
        )

    @property
    def scaling(self) -> float:
        """What the most workers carry, in what one does."""
        return self.workers[-1].carries(self.workers[0])

    def over(self) -> int:
        """The number of values beyond their limits."""
        return (self.growth > MAX_GROWTH) + (self.scaling < MIN_WORKERS)

    def lines(self) -> Iterator[str]:
        """Tables and plots."""
        for engine in dict.fromkeys(row.engine for row in self.sessions):
            yield from _session_lines([row for row in self.sessions if row.engine == engine])
        for engine in dict.fromkeys(row.engine for row in self.targets):
            yield from _target_lines([row for row in self.targets if row.engine == engine])
        yield "workers   us a ping   the busiest one's share   carries, in what one does"
        for row in self.workers:
            ping, share = statistics.median(row.pings) / 1e3, statistics.median(row.shares)
            yield (f"{row.workers:>7}{ping:12.1f}{share:26.0%}{row.carries(self.workers[0]):28.2f}")
        yield ""
        yield (
            f"growth {self.growth:.2f} (limit {MAX_GROWTH}),"
            f" two workers {self.scaling:.2f} (at least {MIN_WORKERS})"
        )


def _session_lines(rows: list[SessionRow]) -> Iterator[str]:
    yield f"server on {rows[0].engine}:      us a ping,           in that with           idle,       KiB"
    yield "sessions in         outstanding          the fewest sessions    of one   a session"
    yield f"one worker         1        {OUTSTANDING}            1        {OUTSTANDING}          core"
    for row in rows:
        costs = (statistics.median(each) / 1e3 for each in (row.one, row.several))
        ratios = (statistics.median(each) for each in (row.one_ratios, row.several_ratios))
        yield (
            f"{row.sessions:>10,}"
            + "".join(f"{cost:10.1f}" for cost in costs)
            + " " * 4
            + "".join(f"{ratio:9.2f}" for ratio in ratios)
            + f"{row.idle:14.2%}{row.memory / 1024:12.0f}"
        )
    yield ""
    yield from _bars(
        f"us a ping, {OUTSTANDING} outstanding, by sessions",
        {row.sessions: statistics.median(row.several) / 1e3 for row in rows},
    )
    yield ""


def _target_lines(rows: list[TargetRow]) -> Iterator[str]:
    first = rows[0]
    yield f"probe on {first.engine}:        us a probe            late p99, ms            KiB"
    yield "targets, a probe    bare    ours  ours/     bare    ours     MB   a target"
    yield "each a second                      bare"
    for row in rows:
        more = row.targets - first.targets
        each = f"{(row.memory - first.memory) / more / 1024:11.0f}" if more else ""
        yield (
            f"{row.targets:>13,}{row.bare / 1e3:11.0f}{row.ours / 1e3:8.0f}"
            f"{row.ours / row.bare:7.2f}{row.late_bare * 1e3:9.1f}{row.late * 1e3:8.1f}"
            f"{row.memory / 1e6:7.0f}{each}"
        )
    yield ""
    yield from _bars("us a probe, by targets", {row.targets: row.ours / 1e3 for row in rows})
    yield ""


def _bars(title: str, values: dict[int, float]) -> Iterator[str]:
    """A plot of values: a line each."""
    yield title
    most = max(values.values())
    for name, value in values.items():
        yield f"{name:>9,} {'#' * max(round(value / most * _BAR), 1)} {value:.0f}"


def measure_sessions(
    plan: Plan, engine: str, certificate: Path, say: Callable[[str], None]
) -> list[SessionRow]:
    """Measure the server on an engine. Raises `ProcessError`."""
    rows = []
    fewest = plan.sessions[0]
    with contextlib.ExitStack() as stack:
        few, many = (_pair(engine, certificate, stack) for _ in range(2))
        for pair in (few, many):
            pair.pin(together=False)
        few.do("connect", count=fewest)
        many.do("connect", count=1)  # pays for what is made once
        empty, there = many.server.memory(), 1
        for sessions in plan.sessions:
            say(f"{engine}, {sessions} sessions: connecting")
            many.do("connect", count=sessions - there)
            there = sessions
            grown = many.server.memory() - empty
            row = SessionRow(engine, sessions, memory=grown / (sessions - 1))
            rows.append(row)
            say(f"{engine}, {sessions} sessions: idle")
            before, began = many.server.cpu(), time.monotonic()
            time.sleep(plan.idle)
            spent = many.server.cpu() - before
            row.idle = spent / (time.monotonic() - began) / 1e9
            for outstanding, costs, ratios in (
                (1, row.one, row.one_ratios),
                (OUTSTANDING, row.several, row.several_ratios),
            ):
                say(f"{engine}, {sessions} sessions: {outstanding} outstanding")
                for pair in (few, many):
                    pair.pin(together=outstanding == 1)
                    _ping(pair, outstanding, plan.pings)
                for _ in range(plan.rounds):
                    least = _ping(few, outstanding, plan.pings)
                    costs.append(_ping(many, outstanding, plan.pings))
                    ratios.append(costs[-1] / least)
    return rows


def _pair(engine: str, certificate: Path, stack: contextlib.ExitStack) -> Pair:
    """A server and a client on an engine."""
    name = f"pingpong-{engine}"
    server, port = start_server(name, certificate)
    stack.callback(server.close)
    client = start_client(name, port)
    stack.callback(client.close)
    return Pair(name, server, client)


def _ping(pair: Pair, outstanding: int, pings: int) -> float:
    """The server's CPU time for each of this many pings, in turn over all sessions."""
    answer = pair.do("ping", mode="datagram", outstanding=outstanding, count=pings)
    return float(answer["server"] / pings)


def measure_targets(
    plan: Plan, engine: str, certificate: Path, say: Callable[[str], None]
) -> list[TargetRow]:
    """Measure the probing process on an engine. Raises `ProcessError`."""
    rows = []
    with contextlib.ExitStack() as stack:
        bench = Bench(start_servers(certificate, stack), plan.seconds)
        for targets in plan.targets:
            say(f"{engine}, {targets} targets")
            bare = bench.probe(BARE, targets, engine=engine)
            ours = bench.probe(OURS, targets, engine=engine)
            row = TargetRow(
                engine,
                targets,
                bare=_a_probe(bare, plan),
                ours=_a_probe(ours, plan),
                late_bare=bare["late"]["p99"],
                late=ours["late"]["p99"],
                memory=ours["memory"],
            )
            rows.append(row)
    return rows


def _a_probe(result: dict[str, Any], plan: Plan) -> float:
    """The CPU time of a probe, in nanoseconds."""
    return float(result["core"] * 1e9 * plan.seconds / max(result["answered"], 1))


def measure_workers(plan: Plan, say: Callable[[str], None]) -> list[WorkerRow]:
    """Measure one worker and two. Raises `ProcessError`."""
    cpus = sorted(os.sched_getaffinity(0))
    rows = [WorkerRow(workers) for workers in (1, 2)]
    with contextlib.ExitStack() as stack:
        runs = []
        for row in rows:
            say(f"{row.workers} workers: connecting")
            server = Command(
                *("serve", "--bind-host=127.0.0.1", "--bind-port=0", f"--workers={row.workers}"),
                *("--rate-limit=0", "--max-handshakes=1000"),
            )
            stack.callback(server.close)
            port = next(server.events("listening"))["port"]
            server.pin(cpus[0])
            client = start_client("pingpong-aioquic", port)
            stack.callback(client.close)
            client.pin(cpus[-1])
            client.ask(do="connect", count=plan.worker_sessions)
            runs.append((row, server, client))
        for turn in range(plan.rounds + 1):
            for row, server, client in runs:
                say(f"{row.workers} workers")
                pings, before = plan.pings * row.workers, server.cpu_times()
                outstanding = plan.worker_outstanding * row.workers
                client.ask(do="ping", mode="datagram", outstanding=outstanding, count=pings)
                spent = [b - a for a, b in zip(before, server.cpu_times(), strict=True)]
                if turn:  # the first warms up
                    busy = spent[-row.workers :]  # without the process that supervises them
                    row.pings.append(sum(busy) / pings)
                    row.shares.append(max(busy) / sum(busy))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a value is beyond its limit, or a process failed."""
    parser = argparse.ArgumentParser(description="What many sessions and targets cost.")
    parser.add_argument(
        "--quick", action="store_true", help="a short run, to check that the benchmark works"
    )
    parser.add_argument(
        "--engine",
        action="append",
        choices=("aioquic", "quinn"),
        help="only this one; may be repeated",
    )
    given = parser.parse_args(arguments)
    plan = QUICK if given.quick else Plan()
    engines = given.engine or ["aioquic", *(["quinn"] if is_installed("quinn") else [])]
    began = time.monotonic()

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{time.monotonic() - began:4.0f} s  {text}", end="", file=sys.stderr)

    results = Results()
    try:
        with tempfile.TemporaryDirectory() as folder:
            certificate = Path(folder) / "certificate.pem"
            write_certificate(certificate)
            results.workers = measure_workers(plan, say)
            for engine in engines:
                results.targets += measure_targets(plan, engine, certificate, say)
                results.sessions += measure_sessions(plan, engine, certificate, say)
    except ProcessError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
    print("\n".join(results.lines()))
    return 1 if results.over() else 0


if __name__ == "__main__":
    sys.exit(main())
