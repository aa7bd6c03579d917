from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable
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

from pingpong.telemetry.exposition import Format, choose_format, render
from pingpong.telemetry.metrics import BucketCounts, Family, Spec

PINGS = Spec(
    "x_pings_total", "counter", 'Pings "sent" \\ lost.', {"target": None, "mode": ("a", "b")}
)
LEVEL = Spec("x_level_ratio", "gauge", "A level.")
RTT = Spec("x_rtt_seconds", "histogram", "Round trips.", {"target": None}, (0.001, 0.5, 1.0))
LAG = Spec("x_lag_seconds", "histogram", "Lag.", buckets=(0.25,))
BUILD = Spec("x_build_info", "info", "What runs.", {"version": None})

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def counts(spec: Spec, *values: float) -> BucketCounts:
    buckets = BucketCounts(spec.buckets)
    for value in values:
        buckets.observe(value)
    return buckets


def families() -> list[Family]:
    return [
        PINGS.family([(("one", "a"), 3), (('"\\\n', "b"), 0)]),
        LEVEL.family([((), 0.5)]),
        RTT.family([(("one",), counts(RTT, 0.001, 0.2, 3)), (("two",), counts(RTT))]),
        LAG.family([((), counts(LAG, 0.25))]),
        BUILD.family([(("1.0",), 1)]),
    ]


def text(given: list[Family], format: Format = Format.TEXT) -> str:
    return "".join(render(given, format))


def test_text() -> None:
    assert text(families()) == (
        '# HELP x_pings_total Pings "sent" \\\\ lost.\n'
        "# TYPE x_pings_total counter\n"
        'x_pings_total{target="one",mode="a"} 3\n'
        'x_pings_total{target="\\"\\\\\\n",mode="b"} 0\n'
        "# HELP x_level_ratio A level.\n"
        "# TYPE x_level_ratio gauge\n"
        "x_level_ratio 0.5\n"
        "# HELP x_rtt_seconds Round trips.\n"
        "# TYPE x_rtt_seconds histogram\n"
        'x_rtt_seconds_bucket{target="one",le="0.001"} 1\n'
        'x_rtt_seconds_bucket{target="one",le="0.5"} 2\n'
        'x_rtt_seconds_bucket{target="one",le="1.0"} 2\n'
        'x_rtt_seconds_bucket{target="one",le="+Inf"} 3\n'
        'x_rtt_seconds_sum{target="one"} 3.201\n'
        'x_rtt_seconds_count{target="one"} 3\n'
        'x_rtt_seconds_bucket{target="two",le="0.001"} 0\n'
        'x_rtt_seconds_bucket{target="two",le="0.5"} 0\n'
        'x_rtt_seconds_bucket{target="two",le="1.0"} 0\n'
        'x_rtt_seconds_bucket{target="two",le="+Inf"} 0\n'
        'x_rtt_seconds_sum{target="two"} 0\n'
        'x_rtt_seconds_count{target="two"} 0\n'
        "# HELP x_lag_seconds Lag.\n"
        "# TYPE x_lag_seconds histogram\n"
        'x_lag_seconds_bucket{le="0.25"} 1\n'
        'x_lag_seconds_bucket{le="+Inf"} 1\n'
        "x_lag_seconds_sum 0.25\n"
        "x_lag_seconds_count 1\n"
        "# HELP x_build_info What runs.\n"
        "# TYPE x_build_info gauge\n"
        'x_build_info{version="1.0"} 1\n'
    )


def test_openmetrics_names_families_without_what_their_samples_end_with() -> None:
    lines = text(families(), Format.OPENMETRICS).splitlines()
    assert '# HELP x_pings Pings \\"sent\\" \\\\ lost.' in lines
    assert "# TYPE x_pings counter" in lines
    assert 'x_pings_total{target="one",mode="a"} 3' in lines
    assert "# TYPE x_build info" in lines
    assert 'x_build_info{version="1.0"} 1' in lines
    assert lines[-1] == "# EOF"
    assert not [line for line in lines if "_created" in line]


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
    given_families = [
        PINGS.family([((name, "a"), value) for name, value, _ in rows]),
        RTT.family([((name,), counts(RTT, *values)) for name, _, values in rows]),
    ]
    expected: Samples = {}
    for name, value, values in rows:
        expected["x_pings_total", (("mode", "a"), ("target", name))] = value
        for bound, below in (("0.001", 0.001), ("0.5", 0.5), ("1.0", 1.0), ("+Inf", math.inf)):
            labels = (("le", bound), ("target", name))
            expected["x_rtt_seconds_bucket", labels] = sum(1 for one in values if one <= below)
        expected["x_rtt_seconds_count", (("target", name),)] = len(values)
        expected["x_rtt_seconds_sum", (("target", name),)] = pytest.approx(sum(values))
    assert samples(parse_text(text(given_families))) == expected
    openmetrics = text(given_families, Format.OPENMETRICS)
    parsed: Iterable[Metric] = parse_openmetrics(openmetrics)  # type: ignore[no-untyped-call]
    assert samples(parsed) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (1e-9, "1e-09"),
        (2**70, str(2**70)),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    assert text([LEVEL.family([((), value)])]).splitlines()[-1] == f"x_level_ratio {shown}"


@pytest.mark.promtool
def test_promtool_finds_nothing_to_complain_about(promtool: Path) -> None:
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=text(families()),
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
        ("text/plain", Format.TEXT),
        ("text/plain;version=0.0.4", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8", Format.OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;q=much", Format.TEXT),
        ("text/plain;q=0.5,application/openmetrics-text;q=0.4", Format.TEXT),
        ("text/plain;q=0.4,application/openmetrics-text;q=0.5", Format.OPENMETRICS),
        (PROMETHEUS, Format.OPENMETRICS),
    ],
)
def test_format_by_accept(accept: str, format: Format) -> None:
    assert choose_format(accept) is format


def test_a_piece_is_never_long() -> None:
    """A hundred targets: the event loop goes round between pieces."""
    given_families = [
        PINGS.family([((str(n), mode), n) for n in range(1000) for mode in "ab"]),
        RTT.family([((str(n),), counts(RTT)) for n in range(1000)]),
    ]
    pieces = list(render(given_families, Format.TEXT))
    assert "".join(pieces).count("\n") == 4 + 2000 + 6000
    assert max(piece.count("\n") for piece in pieces) <= 200
