"""Renders the live view: from the state of each target to lines that fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from ....link import State
from ....statistics import Distribution, Summary
from ....webtransport import printable
from .. import formatting
from .history import ASCII_BARS, BARS, Cell, Mark, levels

MIN_GRAPH = 24
"""Minimum width of a graph beside the numbers. With less room it goes below them."""
_MIN_GRAPH_BESIDE = 8
"""A graph beside the numbers that is narrower than this is omitted."""
_MIN_LABEL = 12
_DISPENSABLE = 4
"""Columns of this rank and above are omitted to make room for a graph."""
_MAX_CAUSE = 500
_BAD_LOSS = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """The state of a target."""

    label: str
    state: State
    cause: str | None
    """Why it is not up."""
    seconds: float
    """Time in this state."""
    counts: Summary
    times: Distribution | None
    last_ns: int | None
    cells: list[Cell]
    skipped: int
    """Slots that this process missed."""
    outages: int
    outage_ns: int


@dataclass(frozen=True, slots=True)
class Frame:
    """The content of one frame."""

    rows: Sequence[Row]
    what: str
    """The ping options: `datagram, 64 bytes, every 1 s`."""
    seconds: float
    """Time since the start."""
    has_keyboard: bool = True
    is_frozen: bool = False


@dataclass(frozen=True, slots=True)
class Screen:
    """The terminal's size and features."""

    width: int
    height: int
    has_colour: bool = True
    has_unicode: bool = True


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of numbers. Columns of the highest `rank` are omitted first."""

    title: str
    rank: int
    texts: list[str]
    styles: list[str]

    def width(self, gap: int) -> int:
        return gap + max(len(self.title), *(len(text) for text in self.texts), 3)


@dataclass(frozen=True, slots=True)
class _Layout:
    columns: list[_Column]
    gap: int
    """Columns between two numbers."""
    label_width: int
    graph_width: int
    is_below: bool
    """Whether graphs are below the numbers, not beside them."""
    has_blank_lines: bool
    """Whether there is an empty line between two targets."""


def draw(frame: Frame, screen: Screen) -> list[Text]:
    """Render a frame, in at most as many lines as the screen has."""
    rows = frame.rows
    width = max(screen.width, 20)
    room = max(screen.height - 4, 1)  # without the header, the titles and the footer
    notes = [_note(row, screen) for row in rows]
    layout = _lay_out(rows, sum(note is not None for note in notes), width, room)
    has_graph = layout.graph_width >= _MIN_GRAPH_BESIDE

    body: list[Text] = []
    shown = 0
    for index, row in enumerate(rows):
        lines = [Text("")] if layout.has_blank_lines and index else []
        lines.append(_row(index, row, layout, screen))
        if has_graph:
            graph = Text("  ").append_text(_graph(row.cells, layout.graph_width, screen))
            if layout.is_below:
                lines.append(graph)
            else:
                lines[-1].append_text(graph)
        note = notes[index]
        if note is not None:
            lines.append(note)
        is_last = index == len(rows) - 1
        if len(body) + len(lines) + (not is_last) > room:
            break
        body += lines
        shown += 1
    if shown < len(rows):
        body.append(_more(rows[shown:]))
    titles = Text(" " * (2 + layout.label_width), "dim")
    for column in layout.columns:
        titles.append(column.title.rjust(column.width(layout.gap)))
    if has_graph and not layout.is_below:
        is_wide = layout.graph_width > 14
        titles.append(f"  last {layout.graph_width} pings" if is_wide else "  last")
    picture = [_header(frame, width), Text(""), titles, *body]
    if screen.height > len(picture) + 1:
        picture.append(Text(""))
    picture.append(_footer(frame, screen, width))
    for line in picture:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis" if screen.has_unicode else "crop")
    return picture[: screen.height]


def _lay_out(rows: Sequence[Row], notes: int, width: int, room: int) -> _Layout:
    """Lay out numbers and graphs in `width` columns and `room` lines, `notes` of which are
    used."""
    longest = max((cell_len(_label(row)) for row in rows), default=0)
    columns = _columns(rows)
    gap = 2 if _width_of(columns, 2) + 2 + longest <= width else 1
    label_width = min(longest, _MIN_LABEL)

    def drop_least(rank: int, beside: int) -> None:
        """Omit columns until `beside` columns are free, or only ranks below `rank` are left."""
        while width - 2 - _width_of(columns, gap) < beside:
            least = max(columns, key=lambda column: column.rank, default=None)
            if least is None or least.rank < rank:
                break
            columns.remove(least)

    drop_least(0, label_width)
    graph_width = width - 4 - longest - _width_of(columns, gap)
    is_below = graph_width < MIN_GRAPH
    if is_below and 2 * len(rows) + notes > room:
        # A graph is more useful than the least important numbers and a long name.
        is_below = False
        drop_least(_DISPENSABLE, label_width + 2 + MIN_GRAPH)
        graph_width = max(min(MIN_GRAPH, width - 4 - label_width - _width_of(columns, gap)), 0)
    if is_below:
        graph_width = width - 3
        label_width = width - 2 - _width_of(columns, gap)
    else:
        label_width = width - 4 - graph_width - _width_of(columns, gap)
    label_width = max(min(label_width, longest), 0)
    if not is_below:
        graph_width = width - 4 - label_width - _width_of(columns, gap)
    has_blank_lines = is_below and 3 * len(rows) + notes - 1 <= room
    return _Layout(columns, gap, label_width, graph_width, is_below, has_blank_lines)


def _columns(rows: Sequence[Row]) -> list[_Column]:
    def column(title: str, rank: int, texts: list[str], styles: list[str] | None = None) -> _Column:
        return _Column(title, rank, texts, styles or [""] * len(texts))

    def times(name: str) -> list[str]:
        return [
            "-" if row.times is None else formatting.milliseconds(getattr(row.times, name))
            for row in rows
        ]

    def lost(name: str) -> list[str]:
        found = [getattr(row.counts, name) for row in rows]
        return ["?" if number is None else str(number) for number in found]

    counts = [row.counts for row in rows]
    loss = [formatting.percent(count.loss) if count.sent else "-" for count in counts]
    worse = ["red" if c.loss >= _BAD_LOSS else "yellow" if c.loss > 0 else "" for c in counts]
    return [
        column("sent", 5, [str(count.sent) for count in counts]),
        column("recv", 6, [str(count.received) for count in counts]),
        column("loss", 0, loss, worse),
        column("out", 7, lost("lost_out")),
        column("back", 7, lost("lost_back")),
        column(
            "last",
            1,
            ["-" if r.last_ns is None else formatting.milliseconds(r.last_ns) for r in rows],
        ),
        column("avg", 4, times("avg")),
        column("p50", 2, times("p50")),
        column("p95", 3, times("p95")),
        column("p99", 2, times("p99")),
    ]


def _width_of(columns: list[_Column], gap: int) -> int:
    return sum(column.width(gap) for column in columns)


def _row(index: int, row: Row, layout: _Layout, screen: Screen) -> Text:
    mark, style = {
        State.UP: ("●" if screen.has_unicode else "+", "green"),
        State.CONNECTING: ("○" if screen.has_unicode else "?", "yellow"),
        State.DOWN: ("✗" if screen.has_unicode else "x", "red"),
        State.ENDED: ("■" if screen.has_unicode else ".", "dim"),
    }[row.state]
    line = Text(no_wrap=True)
    line.append(f"{mark} ", style)
    label = _shorten(_label(row), layout.label_width, "…" if screen.has_unicode else "~")
    line.append(set_cell_size(label, layout.label_width), "bold")
    for column in layout.columns:
        line.append(column.texts[index].rjust(column.width(layout.gap)), column.styles[index])
    return line


def _label(row: Row) -> str:
    return printable(row.label, None)


def _shorten(label: str, width: int, ellipsis: str) -> str:
    """Omit the middle: names differ at their beginning, addresses at their end.

    `width` is in terminal columns; a character may take none, one or two.
    """
    if cell_len(label) <= width:
        return label
    head = max(width - 1, 0) // 2
    tail = max(width - 1 - head, 0)
    end = label
    while cell_len(end) > tail:
        end = end[1:]
    return f"{set_cell_size(label, head)}{ellipsis}{end}"


def _note(row: Row, screen: Screen) -> Text | None:
    """A line below a target that is down, or had outages."""
    branch = "  └ " if screen.has_unicode else "  > "
    since = formatting.duration(row.seconds * 1e9)
    reason = printable(row.cause, _MAX_CAUSE) if row.cause else ""
    if row.state is State.DOWN:
        return Text(f"{branch}down for {since}: {reason}", "red")
    if row.state is State.CONNECTING:
        cause = f": {reason}" if reason else ""
        return Text(f"{branch}not connected for {since}{cause}", "yellow")
    if row.state is State.ENDED:
        return Text(f"{branch}ended: {reason}", "red") if reason else None
    if not row.outages:
        return None
    total = formatting.duration(row.outage_ns)
    outages = (
        f"1 outage of {total}" if row.outages == 1 else f"{row.outages} outages, {total} in all"
    )
    return Text(f"{branch}up for {since}, after {outages}", "dim")


def _graph(cells: list[Cell], width: int, screen: Screen) -> Text:
    cells = cells[-width:]
    bars = BARS if screen.has_unicode else ASCII_BARS
    lost = "×" if screen.has_unicode else "x"
    graph = Text()
    for cell, level in zip(cells, levels(cells, len(bars)), strict=True):
        if cell.mark is Mark.ANSWERED:
            graph.append(bars[level], "green")
        elif cell.mark is Mark.LATE:
            graph.append(bars[level] if screen.has_colour else "!", "yellow")
        elif cell.mark is Mark.LOST:
            graph.append(lost, "bold red")
        elif cell.mark is Mark.NOT_SENT:
            graph.append("-", "red")
        else:
            graph.append("·" if screen.has_unicode else " ", "dim")
    return graph


def _more(rows: Sequence[Row]) -> Text:
    """The line for targets that do not fit."""
    down = _not_connected(rows)
    text = f"  and {len(rows)} more{f', {down} not connected' if down else ''}: enlarge the window to see them"
    return Text(text, "red" if down else "dim")


def _not_connected(rows: Sequence[Row]) -> int:
    return sum(row.state in (State.CONNECTING, State.DOWN) for row in rows)


def _header(frame: Frame, width: int) -> Text:
    down = _not_connected(frame.rows)
    minutes, seconds = divmod(int(frame.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02}"
    skipped = sum(row.skipped for row in frame.rows)
    line = Text("pingpong ping", "bold")
    # The most important first: what does not fit is omitted.
    for text, style in (
        ("  frozen" if frame.is_frozen else "", "bold yellow"),
        (f"  {formatting.count(len(frame.rows), 'target')}, ", ""),
        (f"{down} not connected" if down else "all connected", "red" if down else "green"),
        (f", {skipped} skipped" if skipped else "", "yellow"),
        (f"  {frame.what}", "dim"),
        (", times in ms", "dim"),
    ):
        if line.cell_len + cell_len(text) + 2 + len(clock) > width:
            break
        line.append(text, style)
    line.append(" " * max(width - line.cell_len - len(clock), 1))
    line.append(clock, "bold")
    return line


def _footer(frame: Frame, screen: Screen, width: int) -> Text:
    line = Text()
    for key, what in (
        (("q", "quit"), ("p", "freeze"), ("r", "reset"))
        if frame.has_keyboard
        else (("Ctrl-C", "quit"),)
    ):
        line.append(key, "bold").append(f" {what}   ", "dim")
    bars = BARS if screen.has_unicode else ASCII_BARS
    legend = Text("   ")
    legend.append(f"{bars[0]}{bars[3]}{bars[-1]}", "green").append(" time  ", "dim")
    legend.append(bars[-1] if screen.has_colour else "!", "yellow").append(" late  ", "dim")
    legend.append("×" if screen.has_unicode else "x", "bold red").append(" lost  ", "dim")
    legend.append("-", "red").append(" not sent", "dim")
    if line.cell_len + legend.cell_len <= width:
        line.append(" " * (width - line.cell_len - legend.cell_len)).append_text(legend)
    return line
