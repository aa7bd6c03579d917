from __future__ import annotations

import gzip
import math
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pingpong.telemetry.exposition import Format, Text, choose_format
from pingpong.telemetry.metrics import BucketCounts, Row, Spec

PINGS = Spec(
    "x_pings_total", "counter", 'Pings "sent" \\ lost.', {"target": None, "mode": ("a", "b")}
)
LEVEL = Spec("x_level_ratio", "gauge", "A level.")
RTT = Spec("x_rtt_seconds", "histogram", "Round trips.", {"target": None})
BUILD = Spec("x_build_info", "info", "What runs.", {"version": None})

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def counts(*values: float) -> BucketCounts:
    buckets = BucketCounts((0.001, 0.5, 1.0))
    for value in values:
        buckets.observe(value)
    return buckets


def metrics(targets: int) -> Iterable[Metric]:
    names = [f"target {n}" for n in range(targets)]
    yield from PINGS.slices(((name, mode), 3) for name in names for mode in "ab")
    yield LEVEL.metric([((), 0.5)])
    yield from RTT.slices(((name,), counts(0.001, 3)) for name in names)
    yield BUILD.metric([(("1.0",), 1)])


def text(given: Iterable[Metric], format: Format = Format.TEXT) -> str:
    made = Text(format, compressed=False)
    for metric in given:
        made.add(metric)
    return b"".join(made.finish()).decode()


@pytest.mark.parametrize("format", Format)
def test_a_metric_in_slices_has_one_head(format: Format) -> None:
    lines = text(metrics(500), format).splitlines()
    heads = [line for line in lines if line.startswith("#")]
    is_openmetrics = format is Format.OPENMETRICS
    assert len(heads) == 2 * 4 + is_openmetrics
    assert (lines[-1] == "# EOF") == is_openmetrics
    assert len(lines) - len(heads) == 2 * 500 + 1 + 6 * 500 + 1
    assert not [line for line in lines if "_created" in line]


def test_compressed_it_is_gzip_and_in_chunks() -> None:
    made = Text(Format.TEXT, compressed=True)
    plain = Text(Format.TEXT, compressed=False)
    for metric in metrics(500):
        made.add(metric)
        plain.add(metric)
    chunks = plain.finish()
    assert len(chunks) > 1
    compressed = b"".join(made.finish())
    assert gzip.decompress(compressed) == b"".join(chunks)
    assert len(compressed) < len(b"".join(chunks)) / 10


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], Any]


def samples(parsed: Iterable[Metric]) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in parsed
        for sample in metric.samples
    }


@given(
    st.lists(
        st.tuples(st.text(), st.floats(0, allow_infinity=False), st.lists(st.floats(0, 9))),
        unique_by=lambda row: row[0],
    )
)
def test_prometheus_clients_parsers_read_back_what_was_rendered(
    rows: list[tuple[str, float, list[float]]],
) -> None:
    # The parser splits its text at more line ends than the format has.
    rows = [row for row in rows if len(f"{row[0]}x".replace("\n", "").splitlines()) == 1]
    pings: list[Row] = [((name, "a"), value) for name, value, _ in rows]
    rtts: list[Row] = [((name,), counts(*values)) for name, _, values in rows]
    expected: Samples = {}
    for name, value, values in rows:
        expected["x_pings_total", (("mode", "a"), ("target", name))] = value
        for bound, below in (("0.001", 0.001), ("0.5", 0.5), ("1.0", 1.0), ("+Inf", math.inf)):
            labels = (("le", bound), ("target", name))
            expected["x_rtt_seconds_bucket", labels] = sum(1 for one in values if one <= below)
        expected["x_rtt_seconds_count", (("target", name),)] = len(values)
        expected["x_rtt_seconds_sum", (("target", name),)] = pytest.approx(sum(values))
    parse: Callable[[str], Iterable[Metric]] = parse_openmetrics
    for format, read in ((Format.TEXT, parse_text), (Format.OPENMETRICS, parse)):
        made = text([*PINGS.slices(pings), *RTT.slices(rtts)], format)
        assert samples(read(made)) == expected


@pytest.mark.promtool
def test_promtool_finds_nothing_to_complain_about(promtool: Path) -> None:
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=text(metrics(200)),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/html,*/*;q=0.8", Format.TEXT),
        ("text/plain;version=0.0.4", Format.TEXT),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8", Format.OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", Format.TEXT),
        ("application/openmetrics-text;version=x", Format.TEXT),
        (PROMETHEUS_2, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
    ],
)
def test_format_by_accept(accept: str, format: Format) -> None:
    assert choose_format(accept) is format
