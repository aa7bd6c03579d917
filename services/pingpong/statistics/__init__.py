"""Tracks probes and their answers: losses, duplicates, latencies. No I/O, no clock."""

from .latencies import Distribution, Latencies
from .records import Answer, AnswerStatus, Losses, LossReport, Summary
from .statistics import HORIZON_NS, Statistics
from .totals import Totals, minus

__all__ = [
    "HORIZON_NS",
    "Answer",
    "AnswerStatus",
    "Distribution",
    "Latencies",
    "LossReport",
    "Losses",
    "Statistics",
    "Summary",
    "Totals",
    "minus",
]
