"""What sessions and their messages are counted under, and the counters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from ...ping import Mode
from ...telemetry.metrics import BucketCounts
from .send_delay import SendDelay

SESSION_BUCKETS = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0)
"""Seconds, for a histogram of how long sessions last."""

DATAGRAM: Mode = "datagram"
STREAM: Mode = "stream"
UNI: Mode = "uni"
MODES = (DATAGRAM, STREAM, UNI)
"""How a message comes; the client's mode `streams` is many of `stream` to the server."""
ECHO = "echo"
"""The mode under which drops of what is echoed are counted."""

TOO_LARGE = "too_large"
"""It, or its answer, is above a limit."""
QUEUE_FULL = "queue_full"
"""Too many answers wait to leave."""
UNREAD = "unread"
"""Too many answers were sent that the peer has not read."""
CLOSED = "closed"
"""Its answer still waited when the session ended."""
MALFORMED = "malformed"
"""It is no ping."""
RATE = "rate"
"""The session has had its messages of this second."""
DROP_REASONS = (TOO_LARGE, QUEUE_FULL, UNREAD, CLOSED, MALFORMED, RATE)
"""Why a message gets no answer: all there are."""

ANSWER_BUCKETS = (
    *(0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.25, 1.0),
)
"""Seconds, for a histogram of the server's own time with a message."""


class Result(StrEnum):
    """What became of a request: the label `result` of `sessions_total`."""

    ACCEPTED = "accepted"
    ORIGIN = "origin"
    UNAUTHORIZED = "unauthorized"
    PATH = "path"
    CAPACITY = "capacity"
    DRAINING = "draining"
    MALFORMED = "malformed"


@dataclass(slots=True)
class SessionCounters:
    """What became of requests, and of the sessions that they asked for."""

    active: int = 0
    """Sessions that are open now."""
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))
    durations: BucketCounts = field(default_factory=lambda: BucketCounts(SESSION_BUCKETS))
    """Seconds that sessions lasted, of those that are over."""

    def opened(self) -> None:
        """A session was accepted."""
        self.active += 1
        self.results[Result.ACCEPTED] += 1

    def closed(self, duration: float) -> None:
        """A session that was accepted is over; it lasted `duration` seconds."""
        self.active -= 1
        self.durations.observe(duration)


def _by_mode() -> dict[str, int]:
    return dict.fromkeys(MODES, 0)


@dataclass(slots=True)
class MessageCounters:
    """What was done with messages, by mode (and reason); all of them only grow.

    Received are those that deserve an answer; each is answered, or dropped for one of the
    reasons `rate`, `too_large` (for a datagram), `queue_full`, `unread` and `closed`. The reasons
    `malformed` and `too_large` (for a stream) are of those that were not received. Of what is
    echoed only drops are counted, as mode `echo`.
    """

    received: dict[str, int] = field(default_factory=_by_mode)
    answered: dict[str, int] = field(default_factory=_by_mode)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    answer_durations: BucketCounts = field(default_factory=lambda: BucketCounts(ANSWER_BUCKETS))
    """Seconds from a message's arrival to its answer, for each that was answered at once."""
    send_delay: SendDelay = field(default_factory=SendDelay)
    clock: Callable[[], int] = time.monotonic_ns
    """Nanoseconds; the clock of messages' arrivals."""
    received_bytes: int = 0
    sent_bytes: int = 0

    def count_answers(self, mode: str, count: int, size: int) -> None:
        """Count answers that were sent, of `size` bytes together."""
        self.answered[mode] += count
        self.sent_bytes += size
