"""What PromQL refers to: metrics, labels and their values, held to what the services offer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pingpong.client.probe import metrics as client
from pingpong.server import metrics as server
from pingpong.telemetry.metrics import Spec

SCRAPED = frozenset({"namespace", "job", "instance", "pod", "node"})
"""Labels that scraping adds."""

_SELECTOR = re.compile(r"\b(pingpong_[a-z_]+)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")


def specs() -> dict[str, Spec]:
    """What a series is of, by the series' name: a histogram has several."""
    found = {}
    for spec in (*client.SPECS, *server.SPECS):
        suffixes = ("_bucket", "_sum", "_count") if spec.kind == "histogram" else ("",)
        found.update(dict.fromkeys((f"{spec.name}{suffix}" for suffix in suffixes), spec))
    return found


def series(expression: str) -> set[str]:
    """The names of the series that an expression is made of."""
    return {match[1] for match in _SELECTOR.finditer(expression)}


def metrics(expression: str) -> set[str]:
    """The names of the metrics that an expression is made of."""
    return {specs()[name].name for name in series(expression)}


def selectors(expression: str) -> list[str]:
    """The selectors in an expression, as text."""
    return [match[0] for match in _SELECTOR.finditer(expression)]


def problems(expression: str) -> list[str]:
    """What an expression asks for that nobody offers: a sentence each."""
    return [*_of_selectors(expression), *_of_groupings(expression)]


def _of_selectors(expression: str) -> Iterator[str]:
    for name, matchers in _SELECTOR.findall(expression):
        spec = specs().get(name)
        if spec is None:
            yield f"no metric has series {name}"
            continue
        rest = _MATCHER.sub("", matchers).strip(", ")
        if rest:
            yield f"{name}: {rest!r} is no matcher"
        for label, operator, value in _MATCHER.findall(matchers):
            known = {**spec.labels, **dict.fromkeys(SCRAPED)}
            if name.endswith("_bucket"):
                known["le"] = None
            if label not in known:
                yield f"{name} has no label {label}"
            elif (values := known[label]) is not None:
                for each in value.split("|") if "~" in operator else [value]:
                    if each not in values:
                        yield f"{name}: {label} is never {each!r}"


def _of_groupings(expression: str) -> Iterator[str]:
    known = {*SCRAPED, *re.findall(r'label_replace\(.*?, "(\w+)", "', expression)}
    for name in series(expression):
        if spec := specs().get(name):
            known |= spec.labels.keys()
            known |= {"le"} if name.endswith("_bucket") else set()
    for labels in _GROUPING.findall(expression):
        for label in filter(None, re.split(r"\s*,\s*", labels.strip())):
            if label not in known:
                yield f"nothing in it has a label {label}: {expression}"
