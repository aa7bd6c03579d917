"""What was measured, and its tables and plots."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

GO, AIOQUIC = "webtransport-go", "aioquic"
OURS = {"aioquic": "pingpong-aioquic", "quinn": "pingpong-quinn"}
OTHERS = ("aiopquic", "pywebtransport")
HANDSHAKE, APART, IN_TURN = "handshake", "3 ms apart", "in turn"
ONE_AT_A_TIME = ("datagram", "stream", "new stream")
MODES = (*ONE_AT_A_TIME, "32 outstanding", APART, IN_TURN)
COLUMNS = (*MODES, HANDSHAKE)


@dataclass(slots=True)
class Series:
    """The rounds of one measurement; times in nanoseconds, of a ping or a handshake."""

    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    """Packets of the server."""
    lost: int = 0

    def add(self, answer: dict[str, Any], role: str) -> None:
        """Add a round, with the CPU time of the server or of the client."""
        count = answer["count"]
        self.cpu.append(answer[role] / count)
        self.p50.append(answer["p50"])
        self.p99.append(answer["p99"])
        self.received.append(answer["sent"] / count)
        self.sent.append(answer["received"] / count)
        self.lost += answer["lost"]

    @property
    def spread(self) -> float:
        """The distance of the quartiles of CPU time, in parts of the median."""
        low, median, high = _quartiles(self.cpu)
        return (high - low) / median


def _quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


Table = list[list[str]]


@dataclass(slots=True)
class Results:
    """The series of each server and each client, by what was measured."""

    about: list[str]
    sessions: int
    servers: dict[str, dict[str, Series]] = field(default_factory=dict)
    clients: dict[str, dict[str, Series]] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)
    """Bytes of a session."""
    idle: dict[str, list[float]] = field(default_factory=dict)
    """Bytes of a server before its first session."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a server or client was not measured."""

    def ratios(
        self, one: str, other: str, what: str, of: Callable[[Series], list[float]]
    ) -> list[float]:
        """The ratios of the rounds; none if one of the two was not measured."""
        a, b = (self.servers.get(name, {}).get(what) for name in (one, other))
        if a is None or b is None:
            return []
        return [x / y for x, y in zip(of(a), of(b), strict=True)]

    # Tables.

    def server_table(self) -> Table:
        """CPU time and RTT of each server."""
        turn = f"{self.sessions} in turn"
        rows = [["server", *MODES[:-1], turn, "handshake, ms", "KiB a session", "idle, MB"]]
        for name, series in self.servers.items():
            row = [name]
            for what in MODES:
                one = series.get(what)
                row.append(f"{_us(one.cpu)} · {_us(one.p50, 0)}" if one else "")
            row.append(_ms(series[HANDSHAKE].cpu) if HANDSHAKE in series else "")
            memory, idle = self.memory.get(name), self.idle.get(name)
            row.append(f"{statistics.median(memory) / 1024:.0f}" if memory else "")
            row.append(f"{statistics.median(idle) / 1e6:.0f}" if idle else "")
            rows.append(row)
        return rows

    def spread_table(self) -> Table:
        """The least CPU time, its quartiles, and the 99th percentile of RTT."""
        rows = [["server", *MODES, HANDSHAKE]]
        for name, series in self.servers.items():
            row = [name]
            for what in COLUMNS:
                one = series.get(what)
                if one is None:
                    row.append("")
                    continue
                unit = 1e6 if what == HANDSHAKE else 1e3
                low, _, high = (each / unit for each in _quartiles(one.cpu))
                digits = 2 if what == HANDSHAKE else 1
                p99 = "" if what == HANDSHAKE else f" · {_us(one.p99, 0)}"
                row.append(
                    f"{min(one.cpu) / unit:.{digits}f}; {low:.{digits}f}–{high:.{digits}f}{p99}"
                )
            rows.append(row)
        return rows

    def packet_table(self) -> Table:
        """Packets that a server receives and sends for a ping."""
        rows = [["server", *MODES]]
        for name, series in self.servers.items():
            row = [name]
            for what in MODES:
                one = series.get(what)
                text = ""
                if one and any(one.received):
                    received, sent = statistics.median(one.received), statistics.median(one.sent)
                    text = f"{received:.2f} · {sent:.2f}"
                row.append(text)
            if any(row[1:]):
                rows.append(row)
        return rows

    def ratio_table(self, others: Iterable[str]) -> Table:
        """CPU time against other servers."""
        rows = [["CPU", "against", *COLUMNS]]
        for other in others:
            for name in self.servers:
                if name == other or (not name.startswith("pingpong-") and "@" in other):
                    continue
                cells = [self.ratios(name, other, what, lambda one: one.cpu) for what in COLUMNS]
                if any(cells):
                    rows.append(
                        [name, other, *(_ratio(cell, quartiles="@" in other) for cell in cells)]
                    )
        return rows

    def client_table(self) -> Table:
        """CPU time of each client, and its ratio to aioquic's."""
        columns = ("datagram", "32 outstanding", HANDSHAKE)
        rows = [["client", "datagram", "32 outstanding", "handshake, ms"]]
        for name, series in self.clients.items():
            row = [name]
            for what in columns:
                text = (_ms if what == HANDSHAKE else _us)(series[what].cpu)
                if AIOQUIC in self.clients and name != AIOQUIC:
                    pairs = zip(series[what].cpu, self.clients[AIOQUIC][what].cpu, strict=True)
                    text += f" ({statistics.median(a / b for a, b in pairs):.2f})"
                row.append(text)
            rows.append(row)
        return rows

    def wanted_table(self) -> Table:
        """What is wanted of each engine, what was measured, and whether that is enough."""
        rows = [["what", "engine", "wanted", "measured", "met"]]
        for what, engine, limit, value, digits in self._wanted():
            met = "yes" if value <= limit else "no"
            rows.append([what, engine, f"≤ {limit}", f"{value:.{digits}f}", met])
        for other in OTHERS:
            if other in self.servers and OURS["quinn"] in self.servers:
                worse = self._not_beaten(other)
                rows.append(
                    [
                        f"CPU, RTT and handshake below {other}'s",
                        *("quinn", "all"),
                        f"all but {', '.join(worse)}" if worse else "all",
                        "no" if worse else "yes",
                    ]
                )
        return rows

    def _wanted(self) -> Iterator[tuple[str, str, float, float, int]]:
        for engine, name in OURS.items():
            if name not in self.servers:
                continue
            is_quinn = engine == "quinn"
            for what in ONE_AT_A_TIME:
                yield from self._wanted_ratio(engine, AIOQUIC, what, 0.45 if is_quinn else 0.85)
            if is_quinn:
                for what in ONE_AT_A_TIME:
                    yield from self._wanted_ratio(engine, GO, what, 0.95)
            yield from self._wanted_ratio(engine, GO, "32 outstanding", 0.8 if is_quinn else 1.6)
            yield from self._layers(engine)
            if is_quinn:
                for what in ONE_AT_A_TIME:
                    ratios = self.ratios(name, GO, what, lambda one: one.p50)
                    if ratios:
                        median = statistics.median(ratios)
                        yield f"RTT p50, {what}, against {GO}", engine, 1.0, median, 2
                yield from self._wanted_ratio(engine, GO, IN_TURN, 0.8)
            yield from self._wanted_ratio(engine, GO, HANDSHAKE, 0.5 if is_quinn else 1.5)
            kib = statistics.median(self.memory[name]) / 1024
            yield f"KiB a session, of {self.sessions}", engine, 40 if is_quinn else 62, kib, 0
            if is_quinn:
                idle = statistics.median(self.idle[name]) / 1e6
                yield "MB of an idle server", engine, 60, idle, 0

    def _wanted_ratio(
        self, engine: str, other: str, what: str, limit: float
    ) -> Iterator[tuple[str, str, float, float, int]]:
        ratios = self.ratios(OURS[engine], other, what, lambda one: one.cpu)
        if ratios:
            yield f"CPU, {what}, against {other}", engine, limit, statistics.median(ratios), 2

    def _layers(self, engine: str) -> Iterator[tuple[str, str, float, float, int]]:
        """What a ping costs above the bare engine, in units of the pump without QUIC."""
        names = (OURS[engine], f"bare-{engine}", "bare-udp")
        if not all(name in self.servers for name in names):
            return
        rounds = zip(*(self.servers[name]["datagram"].cpu for name in names), strict=True)
        added = statistics.median((ours - bare) / pump for ours, bare, pump in rounds)
        yield "our layers, in units of the pump without QUIC", engine, 0.7, added, 2

    def _not_beaten(self, other: str) -> list[str]:
        ours = OURS["quinn"]
        measures: list[tuple[str, str, Callable[[Series], list[float]]]] = [
            *((f"CPU {what}", what, lambda one: one.cpu) for what in COLUMNS),
            *((f"RTT {what}", what, lambda one: one.p50) for what in MODES),
        ]
        return [
            text
            for text, what, of in measures
            if statistics.median(self.ratios(ours, other, what, of) or [0]) >= 1
        ]

    def noise(self) -> str:
        """How far the rounds of a measurement are apart."""
        spreads = [one.spread for series in self.servers.values() for one in series.values()]
        return (
            f"Half of the rounds of a measurement lie within {statistics.median(spreads) / 2:.0%}"
            f" of each side of their median; of the noisiest one, within {max(spreads) / 2:.0%}."
        )

    def lost(self) -> int:
        """Pings without an answer, in whose place others were sent."""
        everything = [*self.servers.values(), *self.clients.values()]
        return sum(one.lost for series in everything for one in series.values())


def _us(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values) / 1e3:.{digits}f}"


def _ms(values: list[float]) -> str:
    return f"{statistics.median(values) / 1e6:.2f}"


def _ratio(ratios: list[float], *, quartiles: bool) -> str:
    if not ratios:
        return ""
    low, median, high = _quartiles(ratios)
    return f"{median:.3f} ({low:.3f}–{high:.3f})" if quartiles else f"{median:.2f}"


def markdown(table: Table) -> Iterator[str]:
    """A table, aligned to be read as text too."""
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    for number, row in enumerate(table):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
        if not number:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"


def bars(results: Results, what: str, width: int = 50) -> Iterator[str]:
    """A plot of CPU time as text."""
    values = {name: series[what].cpu for name, series in results.servers.items() if what in series}
    medians = {name: statistics.median(cpu) / 1e3 for name, cpu in values.items()}
    longest, most = max(map(len, medians)), max(medians.values())
    for name, value in sorted(medians.items(), key=lambda item: item[1]):
        yield f"{name:<{longest}}  {'█' * max(1, round(value / most * width))} {value:.1f}"


PANELS = (
    ("datagram", 1e3, "µs a ping: datagram"),
    ("new stream", 1e3, "µs a ping: a new stream each"),
    ("32 outstanding", 1e3, "µs a ping: datagram, 32 outstanding"),
    (HANDSHAKE, 1e6, "ms a handshake"),
)


def picture(results: Results) -> str:
    """A plot of CPU time as SVG: a panel for each of four measurements."""
    names = [name for name in results.servers if not name.startswith("bare-")]
    row, panel, label = 20, 400, 130
    height = 34 + row * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * panel} {2 * height}"'
        ' font-family="sans-serif" font-size="12">',
        "<title>CPU time of servers of WebTransport</title>",
        "<style>text{fill:#222}.bar{fill:#9aa5b1}.ours{fill:#2f7ed8}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>",
    ]
    for number, (what, unit, title) in enumerate(PANELS):
        left, top = number % 2 * panel, number // 2 * height
        parts.append(f'<text x="{left + label}" y="{top + 18}" font-weight="bold">{title}</text>')
        medians = [statistics.median(results.servers[name][what].cpu) / unit for name in names]
        scale = (panel - label - 60) / max(medians)
        for at, (name, value) in enumerate(zip(names, medians, strict=True)):
            y = top + 28 + row * at
            kind = "bar ours" if name.startswith("pingpong-") else "bar"
            parts += [
                f'<text x="{left + label - 6}" y="{y + 12}" text-anchor="end">{name}</text>',
                f'<rect class="{kind}" x="{left + label}" y="{y}" height="15"'
                f' width="{value * scale:.0f}"/>',
                f'<text x="{left + label + value * scale + 5:.0f}" y="{y + 12}">{value:.3g}</text>',
            ]
    return "\n".join([*parts, "</svg>", ""])
