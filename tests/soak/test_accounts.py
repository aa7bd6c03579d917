from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.accounts import (
    ALLOWANCES,
    EXACT,
    MIB,
    Pings,
    Reading,
    messages_missing,
    not_flat,
    not_same_series,
    slots_missing,
    unaccounted,
)

FIGURES = {
    "rss": 100.0 * MIB,
    "kept": 90.0 * MIB,
    "malloc": 20.0 * MIB,
    "blocks": 200_000,
    "objects": 10_000,
    "fds": 20,
    "threads": 2,
    "tasks": 9,
    "connections": 4,
    "sessions": 4,
}


def complaints(**end: float) -> list[str]:
    return list(not_flat("serve", Reading(FIGURES), Reading({**FIGURES, **end})))


def test_all_figures_are_judged() -> None:
    assert FIGURES.keys() == ALLOWANCES.keys()
    assert complaints() == []


@pytest.mark.parametrize(
    ("figure", "most"),
    [("rss", 104 * MIB), ("kept", 92.8 * MIB), ("blocks", 206_000), ("objects", 10_700)],
)
def test_memory_and_objects_may_grow_by_their_allowance(figure: str, most: float) -> None:
    assert complaints(**{figure: most}) == []
    assert complaints(**{figure: FIGURES[figure] / 2}) == []
    (complaint,) = complaints(**{figure: most + 0.1 * MIB})
    assert complaint.startswith(f"serve: {figure} ")
    assert "allowed" in complaint


def test_a_complaint_says_begin_end_and_allowed() -> None:
    assert complaints(rss=110 * MIB) == ["serve: rss 100.0M → 110.0M, 104.0M allowed"]
    assert complaints(fds=21) == ["serve: fds 20 → 21, exactly 20 allowed"]


@pytest.mark.parametrize("figure", [name for name, one in ALLOWANCES.items() if one is EXACT])
def test_what_is_exact_neither_grows_nor_shrinks(figure: str) -> None:
    for change in (-1, 1):
        (complaint,) = complaints(**{figure: FIGURES[figure] + change})
        assert complaint.startswith(f"serve: {figure} ")


def test_the_types_that_have_grown_are_named() -> None:
    begin = Reading(FIGURES, {"a.Session": 4, "a.Stream": 2, "dict": 500})
    end = Reading({**FIGURES, "objects": 20_000}, {"a.Session": 4, "a.Stream": 9_002, "dict": 499})
    (complaint,) = not_flat("serve", begin, end)
    assert "+9000 a.Stream" in complaint


def test_series_are_the_same_ones() -> None:
    begin: set[tuple[str, ...]] = {("up", "target=a"), ("up", "target=b")}
    assert list(not_same_series("probe", begin, set(begin))) == []
    end: set[tuple[str, ...]] = {("up", "target=a"), ("up", "target=c")}
    (complaint,) = not_same_series("probe", begin, end)
    assert "2 → 2 series" in complaint
    assert "target=b" in complaint
    assert "target=c" in complaint


SETTLED = Pings(sent=100, ok=90, late=4, lost=6, send_error=3)


def test_pings_add_up() -> None:
    assert list(unaccounted("a", SETTLED)) == []
    assert Pings(200, 180, 8, 12, 0, 6) == SETTLED + SETTLED


@pytest.mark.parametrize("field", ["sent", "ok", "late", "lost"])
@pytest.mark.parametrize("change", [-1, 1])
def test_one_ping_too_many_or_too_few_is_found(field: str, change: int) -> None:
    pings = replace(SETTLED, **{field: getattr(SETTLED, field) + change})
    (complaint,) = unaccounted("a datagram", pings)
    assert complaint.startswith("a datagram: sent ")


def test_before_a_rest_pings_may_be_waited_for_but_not_counted_twice() -> None:
    assert list(unaccounted("a", replace(SETTLED, ok=89), at_rest=False)) == []
    assert len(list(unaccounted("a", replace(SETTLED, ok=91), at_rest=False))) == 1


def test_malformed_answers_are_none_of_an_honest_server_s() -> None:
    (complaint,) = unaccounted("a", replace(SETTLED, malformed=1))
    assert "malformed" in complaint


@pytest.mark.parametrize(
    ("counted", "is_right"), [(995, False), (996, True), (1012, True), (1013, False)]
)
def test_each_slot_is_counted_once(counted: int, is_right: bool) -> None:
    """4 schedules may have one slot more or less; 8 pings were sent beside them, at most."""
    found = slots_missing("probe", slots=1000, counted=counted, sessions=8, schedules=4)
    assert (not list(found)) == is_right


def test_messages_are_answered_or_dropped() -> None:
    dropped = {"rate": 3, "closed": 2, "malformed": 50, "too_large": 7}
    # What is malformed was not received; nor is what is too large on a stream.
    assert list(messages_missing("serve", "datagram", 112, 100, dropped)) == []
    assert list(messages_missing("serve", "stream", 105, 100, dropped)) == []
    assert len(list(messages_missing("serve", "stream", 112, 100, dropped))) == 1
    assert len(list(messages_missing("serve", "uni", 106, 100, dropped))) == 1
