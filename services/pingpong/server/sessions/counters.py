"""Counters of sessions and messages, and their labels."""

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
"""The modes of messages. The client's mode `streams` is `stream` here."""
ECHO = "echo"
"""The mode of dropped echoes."""

TOO_LARGE = "too_large"
"""The message or its answer is above a limit."""
QUEUE_FULL = "queue_full"
"""The queue of answers is full."""
UNREAD = "unread"
"""The peer has not read too many answers."""
CLOSED = "closed"
"""The session closed before the answer was sent."""
MALFORMED = "malformed"
"""The message is no ping."""
RATE = "rate"
"""The message is above the rate limit of the session."""
DROP_REASONS = (TOO_LARGE, QUEUE_FULL, UNREAD, CLOSED, MALFORMED, RATE)
"""All reasons why a message gets no answer."""

ANSWER_BUCKETS = (
    *(0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.25, 1.0),
)
"""Seconds, for a histogram of the server's processing time."""


class Result(StrEnum):
    """The result of a request: the label `result` of `sessions_total`."""

    ACCEPTED = "accepted"
    ORIGIN = "origin"
    UNAUTHORIZED = "unauthorized"
    PATH = "path"
    CAPACITY = "capacity"
    DRAINING = "draining"
    MALFORMED = "malformed"


@dataclass(slots=True)
class SessionCounters:
    """Counters of requests and sessions."""

    active: int = 0
    """Sessions that are open now."""
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))
    durations: BucketCounts = field(default_factory=lambda: BucketCounts(SESSION_BUCKETS))
    """Durations of closed sessions, in seconds."""

    def opened(self) -> None:
        """A session was accepted."""
        self.active += 1
        self.results[Result.ACCEPTED] += 1

    def closed(self, duration: float) -> None:
        """An accepted session closed after `duration` seconds."""
        self.active -= 1
        self.durations.observe(duration)


def _by_mode() -> dict[str, int]:
    return dict.fromkeys(MODES, 0)


@dataclass(slots=True)
class MessageCounters:
    """Counters of messages, by mode (and reason). They never decrease.

    `received` are valid messages; each is answered, or dropped for one of the reasons `rate`,
    `too_large` (datagrams), `queue_full`, `unread` and `closed`. Messages that are dropped as
    `malformed` or `too_large` (streams) are not in `received`. Of echoes only drops are counted,
    as mode `echo`.
    """

    received: dict[str, int] = field(default_factory=_by_mode)
    answered: dict[str, int] = field(default_factory=_by_mode)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    answer_durations: BucketCounts = field(default_factory=lambda: BucketCounts(ANSWER_BUCKETS))
    """Seconds from a message's arrival to its answer."""
    send_delay: SendDelay = field(default_factory=SendDelay)
    clock: Callable[[], int] = time.monotonic_ns
    """Nanoseconds; the clock of arrival times."""
    received_bytes: int = 0
    sent_bytes: int = 0

    def count_answers(self, mode: str, count: int, size: int) -> None:
        """Count sent answers, with `size` bytes in total."""
        self.answered[mode] += count
        self.sent_bytes += size
