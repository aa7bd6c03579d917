"""Probes sent one after the other, for the tests of statistics."""

from __future__ import annotations

from pingpong.statistics import Statistics

TIMEOUT = 100
HORIZON = 300


def burst(count: int) -> Statistics:
    """Statistics with probes 1, 2, 3… sent at 1, 2, 3…"""
    statistics = Statistics(TIMEOUT)
    for n in range(1, count + 1):
        statistics.sent(n, n)
    return statistics


def losses(statistics: Statistics, now: int) -> tuple[int | None, int | None, int]:
    summary = statistics.summary(now)
    return summary.lost_out, summary.lost_back, summary.lost_unknown
