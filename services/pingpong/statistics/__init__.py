"""What became of every probe, and how long the answers took: with no I/O, and no clock."""

from .latencies import Distribution, Latencies
from .outcomes import Losses, Outcome, Summary, Verdict
from .statistics import Statistics
from .totals import Totals, minus

__all__ = [
    "Distribution",
    "Latencies",
    "Losses",
    "Outcome",
    "Statistics",
    "Summary",
    "Totals",
    "Verdict",
    "minus",
]
