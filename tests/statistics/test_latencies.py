from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pingpong.statistics import Distribution, Latencies


def obvious_distribution(values: list[int]) -> Distribution:
    ordered = sorted(values)
    count = len(values)
    mean = Fraction(sum(values), count)
    variance = Fraction(sum(value * value for value in values), count) - mean * mean

    def percentile(percent: int) -> int:
        # The smallest value that at least `percent` of a hundred are not above.
        return next(v for v in ordered if sum(w <= v for w in ordered) * 100 >= percent * count)

    return Distribution(
        count=count,
        min=ordered[0],
        avg=float(mean),
        p50=percentile(50),
        p95=percentile(95),
        p99=percentile(99),
        max=ordered[-1],
        mdev=math.sqrt(variance),
    )


class TestLatencies:
    @given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60))
    @example([0])
    @example([10**12, 10**12 + 1])
    def test_exact(self, values: list[int]) -> None:
        latencies = Latencies()
        for value in values:
            latencies.add(value)
        found, expected = latencies.distribution(), obvious_distribution(values)
        assert found is not None
        assert found.mdev == pytest.approx(expected.mdev, rel=1e-12)
        assert found.avg == pytest.approx(expected.avg, rel=1e-12)
        exact = ("count", "min", "p50", "p95", "p99", "max")
        assert [getattr(found, n) for n in exact] == [getattr(expected, n) for n in exact]

    @given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60), st.integers(0, 20))
    @example([1025], 0)
    @example([1022], 0)
    def test_bounded(self, values: list[int], bound: int) -> None:
        latencies = Latencies(bound)
        for n, value in enumerate(values):
            latencies.add(value)
            if n % 7 == 0:
                latencies.distribution()
        found, expected = latencies.distribution(), obvious_distribution(values)
        assert found is not None
        for name in ("p50", "p95", "p99"):
            exact = getattr(expected, name)
            assert abs(getattr(found, name) - exact) <= exact / 256
            assert found.min <= getattr(found, name) <= found.max
        assert (found.count, found.min, found.max) == (len(values), min(values), max(values))
        assert found.mdev == pytest.approx(expected.mdev, rel=1e-12)

    def test_none(self) -> None:
        assert Latencies().distribution() is None

    def test_memory_is_bounded(self) -> None:
        latencies = Latencies(100)
        rng = random.Random(1)
        for _ in range(50_000):
            latencies.add(int(rng.lognormvariate(14, 3)))
        assert len(latencies._samples) == 100
        latencies.distribution()
        assert len(latencies._samples) == 0
        assert len(latencies._buckets) < 4600
        assert sum(latencies._buckets.values()) == 50_000
