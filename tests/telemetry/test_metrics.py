from __future__ import annotations

import json

import pytest
from prometheus_client import Metric

from pingpong.telemetry.metrics import (
    BucketCounts,
    Merge,
    Spec,
    collected_table,
    from_json,
    merge,
    metrics_table,
    to_json,
)

PINGS = Spec("x_pings_total", "counter", "Pings.", {"target": None, "mode": ("datagram", "stream")})
LEVEL = Spec("x_level", "gauge", "A level.")
RTT = Spec("x_rtt_seconds", "histogram", "Round trips.", {"target": None})
BUILD = Spec("x_build_info", "info", "What runs.", {"version": None})
BOUNDS = (0.1, 0.5, 1.0)


def observed(*values: float) -> BucketCounts:
    counts = BucketCounts(BOUNDS)
    for value in values:
        counts.observe(value)
    return counts


def samples(*metrics: Metric) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics
        for sample in metric.samples
    }


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (0.1, 0), (0.11, 1), (0.5, 1), (1.0, 2), (1.01, 3)]
)
def test_a_bucket_contains_its_upper_bound(value: float, bucket: int) -> None:
    counts = observed(value)
    assert [index for index, count in enumerate(counts.counts) if count] == [bucket]
    assert (counts.count, counts.sum) == (1, value)


def test_a_metric_has_a_sample_for_each_series() -> None:
    assert samples(PINGS.metric([(("a", "stream"), 1), (("a", "datagram"), 2)])) == {
        ("x_pings_total", "a", "stream"): 1,
        ("x_pings_total", "a", "datagram"): 2,
    }
    assert samples(BUILD.metric([(("1.0",), 1)])) == {("x_build_info", "1.0"): 1}
    assert samples(LEVEL.metric([((), 0.5)])) == {("x_level",): 0.5}
    assert samples(RTT.metric([(("a",), observed(0.05, 0.7, 0.8, 9))])) == {
        ("x_rtt_seconds_bucket", "a", "0.1"): 1,
        ("x_rtt_seconds_bucket", "a", "0.5"): 1,
        ("x_rtt_seconds_bucket", "a", "1.0"): 3,
        ("x_rtt_seconds_bucket", "a", "+Inf"): 4,
        ("x_rtt_seconds_count", "a"): 4,
        ("x_rtt_seconds_sum", "a"): pytest.approx(10.55),
    }


def test_slices_are_small_and_each_has_the_values_of_its_time() -> None:
    counts = observed()
    slices = RTT.slices(((str(n),), counts) for n in range(1000))
    first = next(slices)
    counts.observe(0.2)
    rest = list(slices)
    assert max(len(metric.samples) for metric in (first, *rest)) <= 200
    found = samples(first, *rest)
    assert [found["x_rtt_seconds_count", str(n)] for n in (0, 999)] == [0, 1]
    assert len([key for key in found if key[0] == "x_rtt_seconds_count"]) == 1000


def test_without_series_there_is_still_a_metric() -> None:
    assert [(one.name, one.samples) for one in RTT.slices([])] == [("x_rtt_seconds", [])]


def test_counters_and_histograms_of_workers_are_summed() -> None:
    merged = merge(
        [
            [PINGS.metric([(("a", "stream"), 1)]), RTT.metric([(("a",), observed(0.05))])],
            [
                PINGS.metric([(("a", "stream"), 5), (("b", "stream"), 3)]),
                RTT.metric([(("a",), observed(0.7, 9))]),
            ],
        ],
        {},
    )
    both = RTT.metric([(("a",), observed(0.05, 0.7, 9))])
    assert samples(*merged) == {
        ("x_pings_total", "a", "stream"): 6,
        ("x_pings_total", "b", "stream"): 3,
        **samples(both),
    }
    assert [metric.type for metric in merged] == ["counter", "histogram"]


@pytest.mark.parametrize(("combine", "value"), [(None, 7), (max, 4), (min, 1)])
def test_gauges_of_workers_come_to_what_is_said_for_them(
    combine: Merge | None, value: float
) -> None:
    gauges = {} if combine is None else {"x_level": combine}
    workers = [[LEVEL.metric([((), n)])] for n in (1, 4, 2)]
    assert samples(*merge(workers, gauges)) == {("x_level",): value}
    assert [samples(*worker) for worker in workers] == [{("x_level",): n} for n in (1, 4, 2)]


def test_json_and_back_leaves_nothing_out() -> None:
    metrics = [
        PINGS.metric([(("a", "stream"), 1), (('"\\\n', "datagram"), 2**60)]),
        RTT.metric([(("a",), observed(0.05, 7))]),
        LEVEL.metric([((), 0.25)]),
    ]
    assert from_json(json.loads(json.dumps(to_json(metrics)))) == metrics


def test_tables() -> None:
    spec = Spec("x_y_total", "counter", "One | two.", {"target": None, "mode": ("a", "b")})
    head = "| metric | type | labels | meaning |\n|---|---|---|---|\n"
    assert metrics_table([spec]) == (
        f"{head}| `x_y_total` | counter | `target`, `mode` (a, b) | One \\| two. |\n"
    )
    assert collected_table([spec.metric([(("one", "a"), 1)])]) == (
        f"{head}| `x_y_total` | counter | `target`, `mode` | One \\| two. |\n"
    )
