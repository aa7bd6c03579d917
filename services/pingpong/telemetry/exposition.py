"""Metrics as text: Prometheus's format 0.0.4, and OpenMetrics 1.0 where a scrape asks for it.

A text is made in pieces, so that a scrape of a hundred targets keeps no packet waiting.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice

from .metrics import BucketCounts, Family, Spec

_ROWS = 200
"""Rows in a piece; a histogram's row is a text of many lines."""
_HISTOGRAMS = 20

_OPENMETRICS = "application/openmetrics-text"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Format(enum.Enum):
    """A format; its value is the content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"


def choose_format(accept: str) -> Format:
    """The format that an Accept header prefers (RFC 9110, section 12.5.1); text where it is even.

    Text also where something else is asked for: Prometheus goes by the content type, and a person
    with curl wants an answer.
    """
    qualities = {Format.TEXT: 0.0, Format.OPENMETRICS: 0.0}
    for media_range in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in media_range.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(values.get("q", 1))
        except ValueError:
            continue
        if media_type == _OPENMETRICS and values.get("version") in (None, "1.0.0"):
            format = Format.OPENMETRICS
        elif media_type == "text/plain" and values.get("version") in (None, "0.0.4"):
            format = Format.TEXT
        else:
            continue
        qualities[format] = max(qualities[format], quality)
    is_preferred = qualities[Format.OPENMETRICS] > qualities[Format.TEXT]
    return Format.OPENMETRICS if is_preferred else Format.TEXT


def render(families: Iterable[Family], format: Format) -> Iterator[str]:
    """Render families in pieces, each of them less than a millisecond's work."""
    for family in families:
        yield _head(family.spec, format)
        lines = _lines(family)
        rows = _HISTOGRAMS if family.spec.kind == "histogram" else _ROWS
        while piece := "".join(islice(lines, rows)):
            yield piece
    if format is Format.OPENMETRICS:
        yield "# EOF\n"


def _head(spec: Spec, format: Format) -> str:
    name: str = spec.name
    kind: str = spec.kind
    if format is Format.OPENMETRICS:
        # There the name of a family is what its samples' names begin with.
        if kind in ("counter", "info"):
            name = name.rpartition("_")[0]
        text = spec.help.translate(_ESCAPES)
    else:
        if kind == "info":
            kind = "gauge"
        text = spec.help.translate(_HELP_ESCAPES)
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _lines(family: Family) -> Iterator[str]:
    """A text for each row, of one line or, for a histogram, several."""
    name = family.spec.name
    names = tuple(family.spec.labels)
    bounds = [*(_number(bound) for bound in family.spec.buckets), "+Inf"]
    for values, value in family.rows.items():
        labels = _labels(names, values)
        if isinstance(value, BucketCounts):
            prefix = f'{name}_bucket{{{labels}{"," if labels else ""}le="'
            braces = f"{{{labels}}}" if labels else ""
            below = list(accumulate(value.counts))
            yield (
                "".join([f'{prefix}{le}"}} {n}\n' for le, n in zip(bounds, below, strict=True)])
                + f"{name}_sum{braces} {_number(value.sum)}\n{name}_count{braces} {below[-1]}\n"
            )
        elif labels:
            yield f"{name}{{{labels}}} {_number(value)}\n"
        else:
            yield f"{name} {_number(value)}\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(
        [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)]
    )


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
