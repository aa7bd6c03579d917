"""What the live view draws, for any target in any terminal."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pingpong.client.ping.live.history import Cell, Mark
from pingpong.client.ping.live.rendering import Frame, Row, Screen, draw
from pingpong.link import State
from pingpong.statistics import Distribution, Totals

NOTHING = Totals().summary(0)
MS = 1_000_000
TIMES = Distribution(9, MS, 1.5 * MS, 1 * MS, 20 * MS, 300 * MS, 4000 * MS, 0.1)
CELLS = [
    Cell(Mark.ANSWERED, MS),
    Cell(Mark.ANSWERED, MS),
    Cell(Mark.LATE, 1000 * MS),
    Cell(Mark.LOST),
    Cell(Mark.NOT_SENT),
    Cell(Mark.WAITING),
]
UP = Row(
    label="a.example",
    state=State.UP,
    cause=None,
    seconds=5.0,
    counts=dataclasses.replace(NOTHING, sent=20, received=15, lost=4, lost_out=1, lost_back=3),
    times=TIMES,
    last_ns=1_234_567,
    cells=CELLS,
    skipped=0,
    outages=0,
    outage_ns=0,
)
NEW = dataclasses.replace(
    UP, label="b.example", state=State.CONNECTING, counts=NOTHING, times=None, last_ns=None,
    cells=[], seconds=0.2,
)  # fmt: skip
DOWN = dataclasses.replace(UP, state=State.DOWN, cause="the server is gone", seconds=83)


def picture(*rows: Row, width: int = 140, height: int = 24, **options: bool) -> list[str]:
    frame = Frame(
        rows,
        "datagram, 64 bytes, every 1 s",
        3723.4,
        has_keyboard=options.pop("has_keyboard", True),
        is_frozen=options.pop("is_frozen", False),
    )
    return [line.plain for line in draw(frame, Screen(width, height, **options))]


def test_a_line_a_target() -> None:
    header, empty, titles, first, second, note, *rest = picture(UP, NEW)
    assert header.startswith("pingpong ping  2 targets, 1 not connected  datagram, 64 bytes, every")
    assert header.endswith(" 1:02:03")
    assert empty == ""
    assert "sent recv loss out back last avg p50 p95 p99 last" in " ".join(titles.split())
    assert first.split() == [
        *("●", "a.example", "20", "15", "20%", "1", "3", "1.23", "1.50", "1.00", "20.0", "300"),
        "▁▁█×-·",
    ]
    assert second.split() == ["○", "b.example", "0", "0", "-", "0", "0", *["-"] * 5]
    assert note == "  └ not connected for 200 ms"
    assert rest[-1].startswith("q quit   p freeze   r reset")
    # What has a title stands below it, at its right.
    assert titles.index("recv") + 4 == first.index("15") + 2


def test_graphs_stand_below_where_there_is_no_room_beside() -> None:
    lines = picture(UP, NEW, width=80)
    assert lines[4] == "  ▁▁█×-·"
    assert all(len(line) <= 80 for line in lines)
    assert "last" in lines[2]
    # But not where there are too few lines for that.
    many = picture(*[UP] * 12, width=80, height=18)
    assert sum(line.endswith("▁▁█×-·") for line in many) == 12
    assert "out" not in many[2].split()


def test_what_is_wrong_has_a_line() -> None:
    assert "  └ down for 1 min 23 s: the server is gone" in picture(DOWN)
    failed = dataclasses.replace(NEW, cause="no such name")
    assert "  └ not connected for 200 ms: no such name" in picture(failed)
    back = dataclasses.replace(UP, outages=1, outage_ns=2_310 * MS)
    assert "  └ up for 5.00 s, after 1 outage of 2.31 s" in picture(back)
    often = dataclasses.replace(UP, outages=3, outage_ns=2_310 * MS)
    assert "  └ up for 5.00 s, after 3 outages, 2.31 s in all" in picture(often)
    ended = dataclasses.replace(UP, state=State.ENDED, cause="the server is gone")
    assert "  └ ended: the server is gone" in picture(ended)
    assert "1 target, 12 skipped" in picture(dataclasses.replace(UP, skipped=12))[0].replace(
        "all connected, ", ""
    )


def test_more_targets_than_lines() -> None:
    lines = picture(*[UP] * 9, DOWN, height=8)
    assert len(lines) == 8
    assert "  and 7 more, 1 not connected: enlarge the window to see them" in lines
    assert lines[-1].startswith("q quit")


def test_unknown_directions() -> None:
    counts = dataclasses.replace(NOTHING, sent=2, received=2, lost_out=None, lost_back=None)
    (line,) = [line for line in picture(dataclasses.replace(UP, counts=counts)) if "●" in line]
    assert line.split()[5:7] == ["?", "?"]


def test_names_keep_their_ends() -> None:
    long = dataclasses.replace(UP, label=f"{'x' * 100} (10.0.0.12)")
    (line,) = [line for line in picture(long, width=80) if "●" in line]
    assert "xx…" in line
    assert "0.0.12) " in line


def test_late_answers_are_marked_without_colour() -> None:
    assert any("▁▁!×-·" in line for line in picture(UP, has_colour=False))


def test_without_unicode_or_keys() -> None:
    lines = picture(UP, DOWN, NEW, has_unicode=False, has_keyboard=False, is_frozen=True)
    assert all(line.isascii() for line in lines)
    assert any("__#x-" in line for line in lines)
    assert lines[-1].startswith("Ctrl-C quit")
    assert "  frozen  3 targets" in lines[0]


@pytest.mark.parametrize("colour", ["green", "yellow", "red"])
def test_colours(colour: str) -> None:
    frame = Frame([UP], "what", 1.0)
    styles = {str(span.style) for line in draw(frame, Screen(140, 24)) for span in line.spans}
    assert any(colour in style for style in styles)


rows = st.builds(
    Row,
    label=st.text("abc.:/[]()…", min_size=1, max_size=70),
    state=st.sampled_from(State),
    cause=st.none() | st.text("abc ", max_size=200),
    seconds=st.floats(0, 1e6),
    counts=st.just(UP.counts) | st.just(NOTHING),
    times=st.none() | st.just(TIMES),
    last_ns=st.none() | st.integers(0, 10**11),
    cells=st.lists(st.sampled_from(CELLS), max_size=200),
    skipped=st.integers(0, 9),
    outages=st.integers(0, 3),
    outage_ns=st.integers(0, 10**12),
)


@given(
    st.lists(rows, max_size=12),
    st.integers(1, 250),
    st.integers(1, 60),
    st.booleans(),
    st.booleans(),
)
def test_it_fits_any_terminal(
    targets: list[Row], width: int, height: int, has_colour: bool, has_unicode: bool
) -> None:
    lines = picture(
        *targets, width=width, height=height, has_colour=has_colour, has_unicode=has_unicode
    )
    assert 1 <= len(lines) <= height
    assert all(len(line) <= max(width, 20) for line in lines)
    if height >= 6 and targets:
        # Somebody is shown, or the line that says why not.
        assert any("more" in line or line[:1] in set("●○✗■+?x.") for line in lines[3:])


@given(
    st.lists(
        st.text(
            st.one_of(st.characters(), st.sampled_from("你好🏓\u0301e\x1b\u202e")), max_size=60
        ),
        min_size=1,
        max_size=4,
    ),
    st.text(max_size=700),
    st.integers(20, 200),
)
def test_any_text_keeps_to_its_line_and_its_columns(
    labels: list[str], cause: str, width: int
) -> None:
    rows = [dataclasses.replace(DOWN, label=label, cause=cause) for label in labels]
    lines = picture(*rows, width=width)
    assert all(line.isprintable() for line in lines)
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) <= 24


def test_numbers_stand_below_each_other_beside_wide_names() -> None:
    rows = [dataclasses.replace(UP, label=label) for label in ("你好" * 9, "e\u0301" * 3, "a" * 40)]
    for width in (60, 80, 100, 140):
        found = [line for line in picture(*rows, width=width) if line.startswith("●")]
        ends = {cell_len(line[: line.index(" 20 ")]) for line in found}
        assert len(ends) == 1
