"""Metrics: specifications, histograms, and the sum over workers.

Values are counted in plain integers and `BucketCounts`. In a scrape, collectors (classes with
`collect`) read them into prometheus_client's `Metric` objects, and its encoders write the text. Its
`Counter` and `Histogram` objects are not used: they take a lock and a label lookup for each packet.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

Kind = Literal["counter", "gauge", "histogram", "info"]
Merge: TypeAlias = Callable[[float, float], float]

_SLICE = 100
"""Samples to write at most before the event loop may process packets."""


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """A metric's name and meaning.

    `labels` maps a label to all its values, or to None if they are known only at run time (the name
    of a target). `merge` combines a gauge's values of two workers; counters and histograms are
    summed.
    """

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    merge: Merge = operator.add

    def metric(self, rows: Iterable[Row]) -> Metric:
        """Make prometheus_client's metric of these rows."""
        name = self.name.removesuffix("_info")  # InfoMetricFamily adds it
        family = _FAMILIES[self.kind](name, self.help, labels=tuple(self.labels))
        for labels, value in rows:
            if isinstance(value, BucketCounts):
                family.add_metric(labels, value.cumulative(), value.sum)
            else:
                family.add_metric(labels, {} if self.kind == "info" else value)
        metric: Metric = family
        return metric

    def slices(self, rows: Iterable[Row]) -> Iterator[Metric]:
        """Yield metrics of a few rows each, at least one metric."""
        rows = iter(rows)
        size = _SLICE // 20 if self.kind == "histogram" else _SLICE
        part = list(itertools.islice(rows, size))
        yield self.metric(part)
        while part := list(itertools.islice(rows, size)):
            yield self.metric(part)


class BucketCounts:
    """A histogram that is cheap enough for each packet: no lock, no labels."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        # The number of values in each bucket, not cumulative; the last is above all bounds.
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        """Count a value, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """Upper bounds as text, and the number of values up to each of them."""
        return list(zip(_texts(self.bounds), itertools.accumulate(self.counts), strict=True))


@lru_cache
def _texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    to_text: Callable[[float], str] = floatToGoString
    return tuple(to_text(bound) for bound in (*bounds, math.inf))


Row: TypeAlias = tuple[Sequence[str], float | BucketCounts]
"""A series: its label values in the order of the `Spec`, and its value."""

_FAMILIES: Mapping[Kind, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


def merge(workers: Iterable[Iterable[Metric]], gauges: Mapping[str, Merge]) -> list[Metric]:
    """Sum the metrics of all workers; `gauges` has the names of those that are combined otherwise."""
    merged: dict[str, Metric] = {}
    series: dict[str, dict[object, Sample]] = {}
    for metric in itertools.chain.from_iterable(workers):
        merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        combine: Merge = gauges.get(metric.name, operator.add)
        samples = series.setdefault(metric.name, {})
        for sample in metric.samples:
            key = (sample.name, *sample.labels.items())
            if present := samples.get(key):
                sample = sample._replace(value=combine(present.value, sample.value))
            samples[key] = sample
    for name, metric in merged.items():
        metric.samples = list(series[name].values())
    return list(merged.values())


def to_json(metrics: Iterable[Metric]) -> list[Any]:
    """The JSON form of metrics."""
    return [
        [metric.name, metric.documentation, metric.type, [one[:3] for one in metric.samples]]
        for metric in metrics
    ]


def from_json(data: Iterable[Any]) -> list[Metric]:
    """The metrics from their JSON form."""
    metrics = []
    for name, documentation, kind, samples in data:
        metrics.append(metric := Metric(name, documentation, kind))
        metric.samples = [Sample(*sample) for sample in samples]
    return metrics


def metrics_table(specs: Iterable[Spec]) -> str:
    """A Markdown table of metrics: name, type, labels with their values, meaning."""
    return _table(
        (
            spec.name,
            spec.kind,
            ", ".join(
                f"`{label}`" if values is None else f"`{label}` ({', '.join(values)})"
                for label, values in spec.labels.items()
            ),
            spec.help,
        )
        for spec in specs
    )


def collected_table(metrics: Iterable[Metric]) -> str:
    """The same for the metrics of prometheus_client's own collectors."""
    return _table(
        (
            metric.samples[0].name,
            metric.type,
            ", ".join(f"`{label}`" for label in metric.samples[0].labels),
            metric.documentation,
        )
        for metric in metrics
    )


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, meaning in rows:
        escaped = meaning.replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {labels} | {escaped} |")
    return "\n".join(lines) + "\n"
