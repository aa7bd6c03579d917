"""Measures what a ping costs servers of WebTransport, ours among them, and clients.

`make bench-peers` runs it with all servers, `make bench` with those that need no environment of
their own. One load generator drives all servers, and is independent of them: it is written in Go, on quic-go
alone, and sends plain pings of 32 bytes over loopback. Without Go, aioquic's client does it, which
is slower than most servers.

A cost is CPU time of the measured process, user and system, all threads. Rounds take turns: each
goes through all servers before the next begins; the processes are started several times. Values are
medians of the rounds; a ratio is the median of the rounds' ratios. `bare-…` are our socket pump
with only the QUIC engine, or with nothing (`bare-udp`).

Nothing is bound to a CPU, as where it is deployed, unless `--pin` says so: then all share one, which
is less noisy, and costs less, because no idle CPU has to wake up.

To measure a change quickly, beside another commit, checkout, or engine:

    python bench/peers.py --quick --pin --against HEAD --server pingpong-quinn
    python bench/peers.py --quick --pin --server pingpong-aioquic --server pingpong-quinn
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "services"))

from bench.processes import ROOT, Pair, ProcessError
from bench.results import (
    AIOQUIC,
    APART,
    GO,
    HANDSHAKE,
    IN_TURN,
    MODES,
    OURS,
    Results,
    Series,
    bars,
    markdown,
    picture,
)
from bench.servers import (
    CLIENTS,
    SERVERS,
    MissingError,
    peer_python,
    start_client,
    start_generator,
    start_server,
    write_certificate,
)

PINGS: dict[str, dict[str, Any]] = {
    "datagram": {"mode": "datagram"},
    "stream": {"mode": "stream"},
    "new stream": {"mode": "streams"},
    "32 outstanding": {"mode": "datagram", "outstanding": 32},
    APART: {"mode": "datagram", "pause": 3000},
    IN_TURN: {"mode": "datagram"},
}
MEASURED = {
    "webtransport": MODES,
    "quic": MODES[:-1],
    "udp": ("datagram", "32 outstanding", APART),
    "client": ("datagram", "32 outstanding"),
}
PINS = (
    ROOT / "bench" / "foreign" / "aiopquic-0.6.txt",
    ROOT / "tests" / "interop" / "peers" / "pywebtransport-0.21.txt",
)
PAGE = ROOT / "docs" / "performance.md"


class CheckoutError(Exception):
    """The other checkout cannot be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of measurements."""

    starts: int = 3
    """Of all processes."""
    rounds: int = 8
    """Of each start."""
    pings: int = 600
    """Of a round."""
    sessions: int = 400
    """Each has its own connection."""
    steps: int = 4
    """In which they are opened, in each start."""


QUICK = Plan(starts=1, rounds=5, pings=400, sessions=50)


@dataclass(frozen=True, slots=True)
class Subject:
    """A server or client that is measured, and what of it is."""

    pair: Pair
    role: str
    modes: tuple[str, ...]
    series: dict[str, Series]

    def measure(self, what: str, count: int, sessions: int = 1) -> dict[str, Any]:
        """Have pings sent: fewer of those that have pauses between them."""
        if what == APART:
            count //= 8
        return self.pair.do("ping", count=count, sessions=sessions, **PINGS[what])


class Bench:
    """One run: what takes part, and the results."""

    def __init__(self, plan: Plan, results: Results, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._results = results

    def measure(self, subjects: list[Subject]) -> None:
        """Measure all of them, in turns. Raises `ProcessError`."""
        plan, results = self._plan, self._results
        servers = [subject for subject in subjects if subject.role == "server"]
        for subject in servers:
            results.idle.setdefault(subject.pair.name, []).append(subject.pair.server.memory())
        for subject in subjects:
            subject.pair.do("connect", count=1)
        for what in MODES[:-1]:
            self._rounds(subjects, what, 1)
        for subject in subjects:
            # The first ones pay for what is set up once.
            subject.pair.do("connect", count=10)
            subject.pair.do("disconnect", count=10)
        for subject in subjects:
            if subject.role == "client":
                for _ in range(plan.steps):
                    self._connect(subject, 10)
                    subject.pair.do("disconnect", count=10)
        self._sessions([subject for subject in servers if IN_TURN in subject.modes])
        self._rounds(servers, IN_TURN, plan.sessions)

    def _rounds(self, subjects: list[Subject], what: str, sessions: int) -> None:
        subjects = [subject for subject in subjects if what in subject.modes]
        for subject in subjects:
            self._say(f"{what}: {subject.pair.name}, warming up")
            subject.measure(what, max(200, sessions), sessions)
        for number in range(self._plan.rounds):
            self._say(f"{what}: round {number + 1} of {self._plan.rounds}")
            for subject in subjects:
                answer = subject.measure(what, self._plan.pings, sessions)
                subject.series.setdefault(what, Series()).add(answer, subject.role)

    def _sessions(self, subjects: list[Subject]) -> None:
        """Open the other sessions, step by step.

        Those of the first step take memory that was freed before, and are not counted.
        """
        plan = self._plan
        opened = 1
        memory: list[int] = []
        for step in range(plan.steps):
            self._say(f"sessions: step {step + 1} of {plan.steps}")
            count = plan.sessions * (step + 1) // plan.steps - opened
            opened += count
            for subject in subjects:
                self._connect(subject, count)
            if not step:
                first = opened
                memory = [subject.pair.server.memory() for subject in subjects]
        for subject, before in zip(subjects, memory, strict=True):
            each = (subject.pair.server.memory() - before) / (plan.sessions - first)
            self._results.memory.setdefault(subject.pair.name, []).append(each)

    def _connect(self, subject: Subject, count: int) -> None:
        answer = subject.pair.do("connect", count=count)
        subject.series.setdefault(HANDSHAKE, Series()).add(answer, subject.role)


def start(
    name: str,
    certificate: Path,
    other: Path | None,
    results: Results,
    stack: contextlib.ExitStack,
) -> Subject:
    """Start a server, maybe of another checkout, and what pings it.

    Raises `MissingError`, `ProcessError`.
    """
    server, port = start_server(name, certificate, other or ROOT)
    stack.callback(server.close)
    if shutil.which("go") is None and name in (AIOQUIC, *OURS.values()):
        client = start_client(AIOQUIC, port)
    else:
        client = start_generator(name, port)
    stack.callback(client.close)
    if other:
        name += "@"
    series = results.servers.setdefault(name, {})
    return Subject(
        Pair(name, server, client), "server", MEASURED[SERVERS[name.rstrip("@")].speaks], series
    )


def start_clients(
    certificate: Path, results: Results, stack: contextlib.ExitStack
) -> Iterator[Subject]:
    """Start the clients that are measured, and webtransport-go's server, which they ping."""
    server, port = start_server(GO, certificate)
    stack.callback(server.close)
    for name in CLIENTS:
        try:
            client = start_client(name, port)
        except MissingError as error:
            results.missing[f"{name}, client"] = str(error)
            continue
        stack.callback(client.close)
        series = results.clients.setdefault(name, {})
        yield Subject(Pair(f"{name}, client", server, client), "client", MEASURED["client"], series)


def run(
    names: list[str], other: Path | None, plan: Plan, clients: bool, say: Callable[[str], None]
) -> Results:
    """Start the processes, measure, and end them. Raises `MissingError`, `ProcessError`."""
    results = Results(about(), plan.sessions)
    for number in range(plan.starts):
        progress = functools.partial(_prefixed, say, f"start {number + 1} of {plan.starts}: ")
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            certificate = Path(folder) / "certificate.pem"
            write_certificate(certificate)
            subjects = []
            for name in names:
                progress(name)
                try:
                    subjects.append(start(name, certificate, None, results, stack))
                    if other and name in OURS.values():
                        subjects.append(start(name, certificate, other, results, stack))
                except MissingError as error:
                    results.missing[name] = str(error)
            if clients:
                try:
                    subjects += start_clients(certificate, results, stack)
                except MissingError as error:
                    results.missing["clients"] = str(error)
            Bench(plan, results, progress).measure(subjects)
    if not results.servers:
        raise MissingError("; ".join(results.missing.values()))
    return results


def _prefixed(say: Callable[[str], None], prefix: str, text: str) -> None:
    say(prefix + text)


def about() -> list[str]:
    """The machine, and the versions of what is measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    cpus = len(os.sched_getaffinity(0))
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    modules = (ROOT / "bench" / "generator" / "go.mod").read_text(encoding="utf-8")
    versions = [
        *(" ".join(found) for found in re.findall(r"/(quic-go|webtransport-go) v(\S+)", modules)),
        *(f"{name} {version(name)}" for name in ("aioquic", "uvloop")),
    ]
    for pins in PINS:
        python = peer_python(pins.stem)
        pinned = re.search(r"^(\w+)==([\d.]+)", pins.read_text(encoding="utf-8"), re.MULTILINE)
        if pinned and python.exists():
            command = [str(python), "-c", "import platform; print(platform.python_version())"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            versions.append(f"{pinned[1]} {pinned[2]} on Python {done.stdout.strip()}")
    return [
        f"{cpus} CPU{'s' * (cpus > 1)}{f' ({model[1]})' if model else ''}, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        ", ".join(versions),
    ]


@contextlib.contextmanager
def checkout(what: str) -> Iterator[Path]:
    """The folder of a checkout, or of a commit of this repository, within the context.

    Raises `CheckoutError`.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(what).resolve()
        if not root.is_dir():
            root = Path(folder)
            archive = ["git", "-C", str(ROOT), "archive", what, "services"]
            got = subprocess.run(archive, capture_output=True, check=False)
            if got.returncode:
                raise CheckoutError(f"{what}: no folder, and {got.stderr.decode().strip()}")
            subprocess.run(["tar", "-x", "-C", folder], input=got.stdout, check=True)
        if not (root / "services" / "pingpong").is_dir():
            raise CheckoutError(f"{what}: has no services/pingpong")
        yield root


def lines(results: Results) -> Iterator[str]:
    """All tables, as text."""
    yield from results.about
    yield results.noise()
    if results.lost():
        yield f"{results.lost()} pings were lost, and others sent in their place."
    for name, why in results.missing.items():
        yield f"{name}: not measured: {why}"
    others = [GO, AIOQUIC, *(name for name in results.servers if name.endswith("@"))]
    for title, table in (
        ("CPU of the server, µs a ping · RTT p50, µs", results.server_table()),
        ("The same: the least; the quartiles · RTT p99", results.spread_table()),
        ("Packets a ping: received · sent by the server", results.packet_table()),
        ("CPU against other servers", results.ratio_table(others)),
        (f"CPU of the client, µs a ping, and against {AIOQUIC}'s", results.client_table()),
        ("Wanted", results.wanted_table()),
    ):
        if len(table) > 1:
            yield f"\n{title}"
            yield from markdown(table)
    yield "\nCPU of the server, µs a ping, datagrams one at a time"
    yield from bars(results, "datagram")


def write(results: Results) -> None:
    """Write the tables and the plots into docs/."""
    text = PAGE.read_text(encoding="utf-8")
    parts = {
        "machine": [*(f"- {line}" for line in results.about), f"- {results.noise()}"],
        "servers": markdown(results.server_table()),
        "ratios": markdown(results.ratio_table([GO, AIOQUIC])),
        "spread": markdown(results.spread_table()),
        "packets": markdown(results.packet_table()),
        "clients": markdown(results.client_table()),
        "wanted": markdown(results.wanted_table()),
        "plot": ["```", *bars(results, "datagram"), "```"],
    }
    for name, part in parts.items():
        before, rest = text.split(f"<!-- peers: {name} -->", 1)
        after = rest.split("<!-- end -->", 1)[1]
        text = "\n".join([f"{before}<!-- peers: {name} -->", *part, f"<!-- end -->{after}"])
    PAGE.write_text(text, encoding="utf-8")
    PAGE.with_suffix(".svg").write_text(picture(results), encoding="utf-8")


def main() -> int:
    """Returns the exit status: 1 if something failed, or nothing can be measured."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a short run, about 5 s a server")
    parser.add_argument(
        "--server",
        action="append",
        choices=SERVERS,
        metavar="NAME",
        help=f"only this one; may be repeated: {', '.join(SERVERS)}",
    )
    parser.add_argument(
        "--clients", action="store_true", help="also clients; so it is without --server"
    )
    parser.add_argument(
        "--against",
        metavar="COMMIT_OR_FOLDER",
        help="each of our servers also from this checkout, as NAME@",
    )
    parser.add_argument(
        "--pin", action="store_true", help="have servers and generators share one CPU"
    )
    parser.add_argument(
        "--write", action="store_true", help="write tables and plots into docs/performance.md"
    )
    arguments = parser.parse_args()
    if arguments.pin:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = arguments.server or list(SERVERS)
    clients = arguments.clients or not arguments.server
    plan = QUICK if arguments.quick else Plan()
    began = time.monotonic()

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{time.monotonic() - began:4.0f} s  {text}", end="", file=sys.stderr)

    try:
        with contextlib.ExitStack() as stack:
            other = None
            if arguments.against:
                other = stack.enter_context(checkout(arguments.against))
            results = run(names, other, plan, clients, say)
    except (CheckoutError, MissingError, ProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
    print("\n".join(lines(results)))
    if arguments.write:
        write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
