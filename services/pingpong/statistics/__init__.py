"""What became of every probe, and how long the answers took: with no I/O, and no clock."""

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
