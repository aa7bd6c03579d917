from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.telemetry.metrics import BucketCounts, Family, Spec, merge, metrics_table

PINGS = Spec("x_pings_total", "counter", "Pings.", {"target": None, "mode": ("datagram", "stream")})
LEVEL = Spec("x_level", "gauge", "A level.")
RTT = Spec("x_rtt_seconds", "histogram", "Round trips.", {"target": None}, (0.1, 0.5, 1.0))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "x pings_total"}, "not a name"),
        ({"name": "X_pings_total"}, "not a name"),
        ({"name": "x_pings"}, "_total"),
        ({"name": "x_pings_total", "kind": "gauge"}, "_total"),
        ({"name": "x_build", "kind": "info"}, "_info"),
        ({"name": "x_build_info", "kind": "gauge"}, "_info"),
        ({"name": "x_rtt_sum", "kind": "gauge"}, "not a name"),
        ({"help": ""}, "help"),
        ({"help": "two\nlines"}, "help"),
        ({"labels": {"le": None}}, "'le'"),
        ({"labels": {"tar get": None}}, "'tar get'"),
        ({"labels": {"mode": ()}}, "mode has no values"),
        ({"buckets": (1.0,)}, "buckets"),
        ({"name": "x_rtt", "kind": "histogram"}, "buckets"),
        ({"name": "x_rtt", "kind": "histogram", "buckets": (1.0, 1.0)}, "rise"),
    ],
)
def test_a_spec_that_prometheus_would_not_like_is_refused(
    arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Spec(**{"name": "x_pings_total", "kind": "counter", "help": "Pings.", **arguments})


def test_series_are_all_combinations() -> None:
    assert list(PINGS.series(target="a")) == [("a", "datagram"), ("a", "stream")]
    assert list(LEVEL.series()) == [()]


def test_series_need_a_value_for_an_open_label() -> None:
    with pytest.raises(ValueError, match="target needs a value"):
        list(PINGS.series())


def test_check_knows_the_closed_sets() -> None:
    PINGS.check(("a", "stream"))
    with pytest.raises(ValueError, match="mode cannot be 'pigeon'"):
        PINGS.check(("a", "pigeon"))
    with pytest.raises(ValueError, match="has the labels"):
        PINGS.check(("a",))


def test_a_family_takes_each_series_once_and_with_all_its_labels() -> None:
    family = PINGS.family([(("a", "stream"), 1)])
    family.add(["a", "datagram"], 2)
    assert family.rows == {("a", "stream"): 1, ("a", "datagram"): 2}
    with pytest.raises(ValueError, match="repeated"):
        family.add(("a", "stream"), 3)
    with pytest.raises(ValueError, match="wrong"):
        family.add(("a",), 3)


def test_a_family_keeps_the_buckets_of_its_moment() -> None:
    counts = BucketCounts(RTT.buckets)
    counts.observe(0.2)
    family = RTT.family([(("a",), counts)])
    counts.observe(0.2)
    kept = family.rows[("a",)]
    assert isinstance(kept, BucketCounts)
    assert kept.count == 1
    assert counts.count == 2


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (0.1, 0), (0.11, 1), (0.5, 1), (1.0, 2), (1.01, 3)]
)
def test_a_bucket_contains_its_upper_bound(value: float, bucket: int) -> None:
    counts = BucketCounts((0.1, 0.5, 1.0))
    counts.observe(value)
    assert [index for index, count in enumerate(counts.counts) if count] == [bucket]
    assert (counts.count, counts.sum) == (1, value)


@given(st.lists(st.floats(0, 2)), st.lists(st.floats(0, 2)))
def test_buckets_added_are_those_of_all_values(one: list[float], other: list[float]) -> None:
    bounds = (0.1, 0.5, 1.0)
    both, left, right = BucketCounts(bounds), BucketCounts(bounds), BucketCounts(bounds)
    for value in one:
        left.observe(value)
        both.observe(value)
    for value in other:
        right.observe(value)
        both.observe(value)
    left.add(right)
    assert left.counts == both.counts
    assert left.sum == pytest.approx(both.sum)


def test_buckets_with_other_bounds_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="bounds"):
        BucketCounts((1.0,)).add(BucketCounts((2.0,)))


def test_counters_and_histograms_of_workers_are_summed() -> None:
    first, second = BucketCounts(RTT.buckets), BucketCounts(RTT.buckets)
    first.observe(0.05)
    second.observe(0.7)
    second.observe(9)
    merged = merge(
        [
            [PINGS.family([(("a", "stream"), 1)]), RTT.family([(("a",), first)])],
            [
                PINGS.family([(("a", "stream"), 5), (("b", "stream"), 3)]),
                RTT.family([(("a",), second)]),
            ],
        ]
    )
    pings, rtt = merged
    assert pings.rows == {("a", "stream"): 6, ("b", "stream"): 3}
    summed = rtt.rows[("a",)]
    assert isinstance(summed, BucketCounts)
    assert summed.counts == [1, 0, 1, 1]
    assert summed.sum == pytest.approx(9.75)


@pytest.mark.parametrize(("policy", "value"), [("sum", 7), ("max", 4), ("min", 1)])
def test_gauges_of_workers_come_to_what_their_spec_says(policy: Any, value: int) -> None:
    spec = Spec("x_level", "gauge", "A level.", merge=policy)
    (merged,) = merge([[spec.family([((), n)])] for n in (1, 4, 2)])
    assert merged.rows == {(): value}


def test_what_runs_is_the_same_however_many_workers_say_it() -> None:
    spec = Spec("x_build_info", "info", "What runs.", {"version": None})
    (merged,) = merge([[spec.family([(("1.0",), 1)])] for _ in range(3)])
    assert merged.rows == {("1.0",): 1}


def test_a_metric_that_only_one_worker_has_stays() -> None:
    merged = merge([[LEVEL.family([((), 1)])], [PINGS.family()]])
    assert [family.spec.name for family in merged] == ["x_level", "x_pings_total"]


def test_families_of_different_metrics_cannot_be_merged() -> None:
    other = Spec("x_level", "gauge", "A level.", {"target": None})
    with pytest.raises(ValueError, match="not the same"):
        merge([[LEVEL.family()], [other.family()]])
    with pytest.raises(ValueError, match="a histogram and a number"):
        RTT.family([(("a",), 1)]).merge(RTT.family([(("a",), BucketCounts(RTT.buckets))]))


def test_json_and_back_leaves_nothing_out() -> None:
    counts = BucketCounts(RTT.buckets)
    counts.observe(0.05)
    counts.observe(7)
    gauge = Spec("x_level", "gauge", "A level.", merge="max")
    for family in (
        PINGS.family([(("a", "stream"), 1), (('"\\\n', "datagram"), 2**60)]),
        RTT.family([(("a",), counts)]),
        gauge.family([((), 0.25)]),
    ):
        data = json.loads(json.dumps(family.to_json()))
        back = Family.from_json(data)
        assert back.to_json() == family.to_json()
        assert (back.spec.kind, back.spec.merge) == (family.spec.kind, family.spec.merge)
        assert tuple(back.spec.labels) == tuple(family.spec.labels)


def test_json_with_buckets_missing_is_refused() -> None:
    data = RTT.family([(("a",), BucketCounts(RTT.buckets))]).to_json()
    data["rows"][0][1].pop()
    with pytest.raises(ValueError, match="number of buckets"):
        Family.from_json(data)


def test_table() -> None:
    spec = Spec("x_y_total", "counter", "One | two.", {"target": None, "mode": ("a", "b")})
    assert metrics_table([spec]) == (
        "| metric | type | labels | meaning |\n"
        "|---|---|---|---|\n"
        "| `x_y_total` | counter | `target`, `mode` (a, b) | One \\| two. |\n"
    )
