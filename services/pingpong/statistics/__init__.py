"""What became of every probe, and how long the answers took: with no I/O, and no clock."""

from .latencies import Distribution, Latencies
from .outcomes import Losses, Outcome, Settled, Summary, Verdict
from .statistics import HORIZON_NS, Statistics
from .totals import Totals, minus

__all__ = [
    "HORIZON_NS",
    "Distribution",
    "Latencies",
    "Losses",
    "Outcome",
    "Settled",
    "Statistics",
    "Summary",
    "Totals",
    "Verdict",
    "minus",
]
