"""Latency statistics in bounded memory: min, max, mean, deviation, percentiles."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

EXACT_SAMPLES = 100_000
"""The default number of samples that are stored exactly."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A latency distribution, in nanoseconds. Percentiles are by nearest rank.

    `mdev` is the standard deviation, as in ping(8).
    """

    count: int
    min: int
    avg: float
    p50: int
    p95: int
    p99: int
    max: int
    mdev: float


class Latencies:
    """Collects latencies, in nanoseconds, in bounded memory.

    Count, min, max, mean and deviation are always exact. Percentiles are exact for up to `exact`
    samples. With more, samples are counted in buckets of at most 1/128 of their value, and
    percentiles have an error of at most 0.4 % (1/256). Up to an hour there are some 4,600 buckets;
    empty ones take no memory.
    """

    __slots__ = ("_buckets", "_count", "_exact", "_max", "_min", "_samples", "_squares", "_sum")

    def __init__(self, exact: int = EXACT_SAMPLES) -> None:
        self._exact = exact
        self._samples = array("Q")
        self._buckets: dict[int, int] = {}
        self._count = 0
        # Integers are exact: in floating point the variance would lose precision by cancellation.
        self._sum = 0
        self._squares = 0
        self._min = 0
        self._max = 0

    def add(self, value: int) -> None:
        """Add a sample, which is not negative."""
        if not self._count or value < self._min:
            self._min = value
        if value > self._max:
            self._max = value
        self._count += 1
        self._sum += value
        self._squares += value * value
        if self._count <= self._exact:
            self._samples.append(value)
        else:
            index = _bucket(value)
            self._buckets[index] = self._buckets.get(index, 0) + 1

    def distribution(self) -> Distribution | None:
        """The distribution of the samples so far; None if there are none."""
        count = self._count
        if not count:
            return None
        p50, p95, p99 = self._percentiles(50, 95, 99)
        return Distribution(
            count=count,
            min=self._min,
            avg=self._sum / count,
            p50=p50,
            p95=p95,
            p99=p99,
            max=self._max,
            mdev=math.sqrt(count * self._squares - self._sum * self._sum) / count,
        )

    def _percentiles(self, *percents: int) -> list[int]:
        """The percentiles, for percentages in rising order."""
        # The smallest rank with at least that percentage at or below it.
        ranks = [-(-self._count * percent // 100) for percent in percents]
        if self._count <= self._exact:
            ordered = sorted(self._samples)
            return [ordered[rank - 1] for rank in ranks]
        # Done here and not in `add`, which must be fast.
        for value in self._samples:
            index = _bucket(value)
            self._buckets[index] = self._buckets.get(index, 0) + 1
        self._samples = array("Q")
        found: list[int] = []
        passed = 0
        for index in sorted(self._buckets):
            passed += self._buckets[index]
            while len(found) < len(ranks) and passed >= ranks[len(found)]:
                found.append(min(max(_middle(index), self._min), self._max))
        return found


def _bucket(value: int) -> int:
    """The bucket of a value: its highest 8 bits, and the number of bits that follow them."""
    shift = max(value.bit_length() - 8, 0)
    return shift << 8 | value >> shift


def _middle(index: int) -> int:
    """Return the value in the middle of a bucket."""
    shift = index >> 8
    return ((index & 0xFF) << shift) + (1 << shift >> 1)
