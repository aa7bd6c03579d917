"""Measures what a ping costs each server of WebTransport that can be had here, ours among them.

`make bench-peers` runs it. One load generator in Go, on quic-go alone, drives them all with plain
pings of 32 bytes over loopback; nothing of it belongs to any of the servers. It needs Go; without
the others' environments (`make bench-peers` makes them) those are left out, and the table says so.

Nothing is bound to a CPU, as where it is deployed, unless `--pin` says so: then all share one, which
is less noisy, and costs less, because no idle CPU has to wake up. A cost is CPU time of the server's
processes, user and system, all threads. Rounds take turns: each goes through all servers before the
next begins. Values are medians of the rounds, with the least in parentheses; a ratio is the median
of the rounds' ratios.

To measure a change quickly, beside the same server of another checkout, or another engine:

    python bench/peers.py --quick --pin --server pingpong-quinn --against ../other-checkout
    python bench/peers.py --quick --pin --server pingpong-aioquic --server pingpong-quinn
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "services"))

from bench.overhead import write_certificate

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / "build" / "bench" / "generator"

PINGS: dict[str, dict[str, Any]] = {
    "datagram": {"mode": "datagram"},
    "stream": {"mode": "stream"},
    "new stream": {"mode": "streams"},
    "32 outstanding": {"mode": "datagram", "outstanding": 32},
    "in turn": {"mode": "datagram"},
}
"""What is measured with pings: datagrams, except where the name says otherwise."""
ONE_SESSION = ("datagram", "stream", "new stream", "32 outstanding")
IN_TURN = "in turn"
HANDSHAKE = "handshake"


class PeerError(Exception):
    """A process failed; the text says which."""


class MissingError(Exception):
    """A server cannot run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of measurements."""

    rounds: int = 11
    pings: int = 1000
    """Of a round, in each mode."""
    sessions: int = 400
    """At the end; each has its own connection."""
    steps: int = 8
    """In which they are opened."""


QUICK = Plan(rounds=5, pings=500, sessions=50, steps=5)


class Server:
    """A server's process, and the generator that has sessions with it."""

    def __init__(self, name: str, command: list[str], port: int, cwd: Path, env: dict[str, str]):
        self.name = name
        self.session_memory = 0.0
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if "--log-format=json" in command else subprocess.DEVNULL,
            text=True,
        )
        ready = self._process.stderr or self._process.stdout
        assert ready is not None
        for line in ready:
            if line.strip() == "ready" or '"listening"' in line:
                break
        else:
            self._process.kill()
            raise PeerError(f"{name} has ended")
        self._clocks = [_clock(pid) for pid in _family(self._process.pid)]
        self._generator = subprocess.Popen(
            [str(GENERATOR), "load", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, what: str, **command: Any) -> dict[str, Any]:
        """Have the generator do this. Returns what it says, and the server's CPU time in ns."""
        assert self._generator.stdin is not None
        assert self._generator.stdout is not None
        before = self._cpu()
        try:
            self._generator.stdin.write(json.dumps({"do": what, **command}) + "\n")
            self._generator.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._generator.stdout.readline()
        if not line:
            raise PeerError(f"{self.name}: the generator has ended, or the server")
        answer: dict[str, Any] = json.loads(line)
        answer["cpu"] = self._cpu() - before
        return answer

    def _cpu(self) -> int:
        return sum(time.clock_gettime_ns(clock) for clock in self._clocks)

    def memory(self) -> int:
        """Resident bytes of the server's processes."""
        pages = 0
        for pid in _family(self._process.pid):
            pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """End both."""
        for process in (self._generator, self._process):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


def _clock(pid: int) -> int:
    """The clock of a process's CPU time, with that of its threads (clock_getcpuclockid(3))."""
    return (~pid << 3) | 2


def _family(pid: int) -> list[int]:
    """A process, and those that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += _family(int(child))
    return found


def free_port() -> int:
    """A UDP port that no one has now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def peer_python(name: str) -> str:
    """The interpreter that has a peer's library. Raises `MissingError`."""
    python = Path(sys.prefix + "-peers") / name / "bin" / "python"
    module = name.partition("-")[0]
    check = [str(python), "-c", f"import {module}"]
    if not python.exists() or subprocess.run(check, capture_output=True, check=False).returncode:
        raise MissingError(f"{module} is not installed in {python.parent.parent}")
    return str(python)


def ours(engine: str) -> Callable[[str, str, int], list[str]]:
    def command(certificate: str, key: str, port: int) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", "pingpong", "serve", f"--engine={engine}"),
            *("--bind-host=127.0.0.1", f"--bind-port={port}", "--admin-port=0"),
            *(f"--tls-cert-file={certificate}", f"--tls-key-file={key}"),
            *("--idle-timeout=600", "--rate-limit=1000000", "--self-ping-interval=0"),
            *("--log-format=json", "--log-level=info"),
        ]

    return command


def aioquic(certificate: str, key: str, port: int) -> list[str]:
    script = ROOT / "bench" / "foreign" / "aioquic_server.py"
    return [sys.executable, str(script), str(port), certificate, key]


def aiopquic(certificate: str, key: str, port: int) -> list[str]:
    script = ROOT / "bench" / "foreign" / "aiopquic-0.6.py"
    return [peer_python("aiopquic-0.6"), str(script), str(port), certificate, key]


def pywebtransport(certificate: str, key: str, port: int) -> list[str]:
    script = ROOT / "tests" / "interop" / "peers" / "pywebtransport-0.21.py"
    python = peer_python("pywebtransport-0.21")
    return [python, str(script), "server", "off", str(port), certificate, key]


def webtransport_go(certificate: str, key: str, port: int) -> list[str]:
    return [str(GENERATOR), "serve", str(port), certificate, key]


SERVERS: dict[str, Callable[[str, str, int], list[str]]] = {
    "webtransport-go": webtransport_go,
    "aiopquic": aiopquic,
    "pingpong-quinn": ours("quinn"),
    "pingpong-aioquic": ours("aioquic"),
    "aioquic": aioquic,
    "pywebtransport": pywebtransport,
}


def start(name: str, certificate: Path, root: Path) -> Server:
    """Start a server, ours from the checkout `root`. Raises `MissingError`, `PeerError`."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PINGPONG_")}
    environ["PYTHONPATH"] = str(root / "services")
    port = free_port()
    command = SERVERS[name](str(certificate), str(certificate), port)
    return Server(name, command, port, certificate.parent, environ)


@dataclass(slots=True)
class Series:
    """The rounds of one measurement of one server; times in nanoseconds."""

    cpu: list[float] = field(default_factory=list)
    """CPU time of a ping, or of a handshake."""
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    """Packets of the server for a ping."""
    lost: int = 0

    def add(self, answer: dict[str, Any]) -> None:
        """Add a round."""
        self.cpu.append(answer["cpu"] / answer["count"])
        self.p50.append(answer["p50"])
        self.p99.append(answer["p99"])
        self.received.append(answer["sent"] / answer["count"])
        self.sent.append(answer["received"] / answer["count"])
        self.lost += answer["lost"]


class Results:
    """What was measured, by server and by what."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.series: dict[str, dict[str, Series]] = {}
        self.memory: dict[str, float] = {}
        """Bytes of a session."""
        self.idle: dict[str, int] = {}
        """Bytes of a server without sessions."""
        self.missing: dict[str, str] = {}

    def of(self, server: str, what: str) -> Series:
        """The rounds of a measurement."""
        return self.series.setdefault(server, {}).setdefault(what, Series())

    def ratio(self, server: str, other: str, what: str) -> float:
        """The median of the rounds' ratios of CPU time."""
        pairs = zip(self.of(server, what).cpu, self.of(other, what).cpu, strict=True)
        return statistics.median(a / b for a, b in pairs)


def measure(servers: list[Server], plan: Plan, say: Callable[[str], None]) -> Results:
    """Measure all of them, in turns. Raises `PeerError`."""
    results = Results(plan)
    for server in servers:
        results.idle[server.name] = server.memory()
        server.do("connect", count=1)
    for what in ONE_SESSION:
        _rounds(servers, results, what, say)
    _sessions(servers, results, say)
    _rounds(servers, results, IN_TURN, say)
    return results


def _rounds(servers: list[Server], results: Results, what: str, say: Callable[[str], None]) -> None:
    plan = results.plan
    sessions = plan.sessions if what == IN_TURN else 1
    for server in servers:
        say(f"{what}: {server.name}, warming up")
        server.do("ping", count=max(200, sessions), sessions=sessions, **PINGS[what])
    for number in range(plan.rounds):
        say(f"{what}: round {number + 1} of {plan.rounds}")
        for server in servers:
            answer = server.do("ping", count=plan.pings, sessions=sessions, **PINGS[what])
            results.of(server.name, what).add(answer)


def _sessions(servers: list[Server], results: Results, say: Callable[[str], None]) -> None:
    """Open the other sessions, step by step; what they take is the cost of a handshake."""
    plan = results.plan
    for server in servers:
        # The first ones pay for what is set up once.
        server.do("connect", count=10)
        server.do("disconnect", count=10)
    before = {server.name: server.memory() for server in servers}
    opened = 1
    for step in range(plan.steps):
        say(f"sessions: step {step + 1} of {plan.steps}")
        count = (plan.sessions - 1) * (step + 1) // plan.steps + 1 - opened
        opened += count
        for server in servers:
            answer = server.do("connect", count=count)
            results.of(server.name, HANDSHAKE).add(answer)
    for server in servers:
        results.memory[server.name] = (server.memory() - before[server.name]) / (plan.sessions - 1)


def lines(results: Results) -> Iterator[str]:
    """The tables."""
    names = list(results.series)
    modes = list(PINGS)
    yield f"{'server CPU a ping, us: median (least)':<40}" + " " * 46 + "handshake   KiB a   MB"
    yield f"{'':<18}" + "".join(f"{mode:>17}" for mode in modes) + "       ms      session  idle"
    for name in names:
        text = f"{name:<18}"
        for mode in modes:
            cpu = results.of(name, mode).cpu
            text += f"{statistics.median(cpu) / 1e3:9.1f} ({min(cpu) / 1e3:5.1f})"
        cpu = results.of(name, HANDSHAKE).cpu
        text += f"{statistics.median(cpu) / 1e6:9.2f}{results.memory[name] / 1024:10.1f}"
        yield text + f"{results.idle[name] / 1e6:8.1f}"
    yield ""
    yield f"{'RTT, us: p50 (p99)':<18}"
    for name in names:
        text = f"{name:<18}"
        for mode in modes:
            series = results.of(name, mode)
            p50, p99 = statistics.median(series.p50), statistics.median(series.p99)
            text += f"{p50 / 1e3:9.0f} ({p99 / 1e3:5.0f})"
        lost = sum(series.lost for series in results.series[name].values())
        yield text + (f"   {lost} lost" if lost else "")
    yield ""
    yield "packets a ping: received, sent"
    for name in names:
        series = [results.of(name, mode) for mode in modes]
        packets = [(statistics.median(one.received), statistics.median(one.sent)) for one in series]
        yield f"{name:<18}" + "".join(f"{a:9.2f}  {b:5.2f} " for a, b in packets)
    others = ("webtransport-go", "aioquic", *(name for name in names if name.endswith("@")))
    for other in others:
        if other in names and len(names) > 1:
            yield ""
            yield f"CPU against {other}"
            for name in names:
                if name != other:
                    ratios = [results.ratio(name, other, what) for what in (*modes, HANDSHAKE)]
                    yield f"{name:<18}" + "".join(f"{ratio:9.2f}{'':8}" for ratio in ratios)
    for name, why in results.missing.items():
        yield f"{name}: not measured: {why}"


def build() -> None:
    """Build the generator. Raises `MissingError`."""
    if shutil.which("go") is None:
        raise MissingError("the load generator needs Go (https://go.dev), and there is none")
    done = subprocess.run(
        ["go", "build", "-o", str(GENERATOR), "."],
        cwd=ROOT / "bench" / "generator",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MissingError(f"the load generator cannot be built:\n{done.stderr.strip()}")


def main() -> int:
    """Returns the exit status: 1 if a process failed, 3 without Go."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a short run, of about 10 s a server")
    parser.add_argument(
        "--server",
        action="append",
        choices=SERVERS,
        metavar="NAME",
        help=f"only this one; may be repeated: {', '.join(SERVERS)}",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="each of our servers also from this checkout, as NAME@",
    )
    parser.add_argument(
        "--pin", action="store_true", help="have servers and generators share one CPU"
    )
    arguments = parser.parse_args()
    if arguments.pin:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    began = time.monotonic()

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{time.monotonic() - began:4.0f} s  {text}", end="", file=sys.stderr)

    missing = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        certificate = Path(folder) / "certificate.pem"
        write_certificate(certificate)
        servers = []
        try:
            build()
            for name in arguments.server or SERVERS:
                try:
                    say(f"starting {name}")
                    roots = [ROOT]
                    if arguments.against and name.startswith("pingpong-"):
                        roots.append(arguments.against.resolve())
                    for root in roots:
                        server = start(name, certificate, root)
                        stack.callback(server.close)
                        server.name += "@" * (root != ROOT)
                        servers.append(server)
                except MissingError as error:
                    missing[name] = str(error)
            results = measure(servers, QUICK if arguments.quick else Plan(), say)
            results.missing = missing
        except (MissingError, PeerError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 3 if isinstance(error, MissingError) else 1
        finally:
            if sys.stderr.isatty():
                print("\r\x1b[K", end="", file=sys.stderr)
    print("\n".join(lines(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
