"""The results of a benchmark, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

AIOQUIC, BARE, OURS = "aioquic", "bare", "ours"
SUBJECTS = (AIOQUIC, BARE, OURS)

MAX_OF_AIOQUIC = 0.8
MAX_OF_BARE = 1.25
MAX_SESSION_MEMORY = 8 * 1024
"""Maximum bytes of a session, without its bare connection."""


def _verdict(value: float, limit: float) -> str:
    return "ok" if value <= limit else "OVER"


@dataclass(slots=True)
class Samples:
    """The values of each subject, by round; rounds with the same index belong together."""

    rounds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SUBJECTS})

    def median(self, subject: str) -> float:
        """The median of a subject's values."""
        return statistics.median(self.rounds[subject])

    def ratio(self, of: str) -> float:
        """The median of the ratios of ours to another subject."""
        pairs = zip(self.rounds[OURS], self.rounds[of], strict=True)
        return statistics.median(ours / other for ours, other in pairs)


@dataclass(slots=True)
class PingRow:
    """What a ping costs in one mode, in nanoseconds."""

    role: str
    mode: str
    sessions: int
    outstanding: int
    cpu: Samples = field(default_factory=Samples)
    wall: Samples = field(default_factory=Samples)


@dataclass(slots=True)
class HandshakeRow:
    """What a handshake costs, in nanoseconds of CPU."""

    role: str
    cpu: Samples = field(default_factory=Samples)


@dataclass(slots=True)
class Results:
    """The results of a run. Memory is in bytes per connection, or session, of a server."""

    about: list[str]
    pings: list[PingRow] = field(default_factory=list)
    handshakes: list[HandshakeRow] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    """Of a connection with a session on it; with `bare`, of a connection."""
    measured_connections: int = 0
    added_session_memory: float = 0.0
    """Of each further session on one connection."""
    added_sessions: int = 0
    lost: int = 0
    """Pings without an answer, which were repeated."""

    @property
    def session_memory(self) -> float:
        """The memory of ours, less that of the bare connection."""
        return self.memory[OURS] - self.memory[BARE]

    def over(self) -> int:
        """The number of values above their limits. Limits are for servers."""
        ratios = [
            (row.cpu.ratio(of), limit)
            for row in self.pings
            if row.role == "server"
            for of, limit in ((AIOQUIC, MAX_OF_AIOQUIC), (BARE, MAX_OF_BARE))
        ]
        memory = (self.session_memory, self.added_session_memory)
        ratios += [(value, MAX_SESSION_MEMORY) for value in memory]
        return sum(value > limit for value, limit in ratios)

    def as_json(self) -> dict[str, Any]:
        """All results, with the values of each round."""
        return asdict(self) | {
            "limits": {
                "of_aioquic": MAX_OF_AIOQUIC,
                "of_bare": MAX_OF_BARE,
                "session_memory": MAX_SESSION_MEMORY,
            },
            "session_memory": self.session_memory,
            "over": self.over(),
        }

    def lines(self) -> Iterator[str]:
        """The table."""
        yield from self.about
        for role in ("server", "client"):
            yield ""
            yield from self._ping_lines(role, [row for row in self.pings if row.role == role])
        yield ""
        yield from self._handshake_lines()
        yield ""
        yield from self._memory_lines()
        over = self.over()
        yield ""
        if self.lost:
            yield f"{self.lost} pings were lost, and sent again: their rounds took longer."
        yield f"{over} over the limits." if over else "All within the limits."

    def _ping_lines(self, role: str, rows: Sequence[PingRow]) -> Iterator[str]:
        limits = f"<={MAX_OF_AIOQUIC:.2f}     <={MAX_OF_BARE:.2f}" if role == "server" else ""
        yield f"{role:<6}   sessions out-    CPU us a ping             ours /     ours /     us a ping"
        yield "mode              standing aioquic    bare    ours  aioquic    bare    aioquic    bare    ours"
        if limits:
            yield f"{'limit':<51} {limits}"
        for row in rows:
            cpu = "".join(f"{row.cpu.median(name) / 1000:8.1f}" for name in SUBJECTS)
            wall = "".join(f"{row.wall.median(name) / 1000:8.1f}" for name in SUBJECTS)
            ratios = ""
            for of, limit in ((AIOQUIC, MAX_OF_AIOQUIC), (BARE, MAX_OF_BARE)):
                ratio = row.cpu.ratio(of)
                verdict = _verdict(ratio, limit) if role == "server" else ""
                ratios += f" {ratio:5.2f} {verdict:<4}"
            yield f"{row.mode:<9}{row.sessions:>8}{row.outstanding:>8}{cpu} {ratios}{wall}"

    def _handshake_lines(self) -> Iterator[str]:
        yield "handshakes   CPU ms each               a second of one CPU"
        yield "            aioquic    bare    ours  aioquic    bare    ours"
        for row in self.handshakes:
            cpu = [row.cpu.median(name) for name in SUBJECTS]
            each = "".join(f"{value / 1e6:8.2f}" for value in cpu)
            rate = "".join(f"{1e9 / value:8.0f}" for value in cpu)
            yield f"{row.role:<11}{each} {rate}"

    def _memory_lines(self) -> Iterator[str]:
        yield f"server memory, KiB (limit {MAX_SESSION_MEMORY / 1024:.0f} for a session)"
        for name in SUBJECTS:
            what = "connection" if name == BARE else "connection and its session"
            yield f"{name + ', ' + what:<44}{self.memory[name] / 1024:8.1f}"
        for text, value in (
            (
                f"a session above its connection, of {self.measured_connections}",
                self.session_memory,
            ),
            (f"a further session, of {self.added_sessions}", self.added_session_memory),
        ):
            yield f"ours, {text:<38}{value / 1024:8.1f} {_verdict(value, MAX_SESSION_MEMORY)}"
