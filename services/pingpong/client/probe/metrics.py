"""What `pingpong probe` measures: names, help texts, labels, and the values of each target.

The values are plain integers, counted where they arise and read when a scrape comes. A target's
are one object: what a scrape says of it begins, and ends, with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from prometheus_client import Metric

from ...link import CLOSE_REASONS, CONNECT_RESULTS
from ...ping import Mode
from ...telemetry.metrics import BucketCounts, Spec
from ...telemetry.process import service_specs

MODES = get_args(Mode)
RESULTS = ("ok", "late", "lost", "malformed", "send_error")
DIRECTIONS = ("out", "back", "unknown")
PHASES = ("resolve", "handshake", "session")
DISCOVERY_RESULTS = ("ok", "empty", "nxdomain", "timeout", "servfail", "forbidden", "error")

FIRST_RTT_BUCKETS = (0.0001, 0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 3.0)
SERVER_TIME_BUCKETS = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.004, 0.016, 0.064, 0.256, 1.0)
CONNECT_BUCKETS = (0.00025, 0.001, 0.004, 0.016, 0.064, 0.256, 1.0, 5.0)
OUTAGE_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0)
"""All of them seconds; those of round trips are a setting."""

_P = "pingpong_client_"
_TARGET = {"target": None}
_TARGET_MODE = {"target": None, "mode": MODES}

SENT = Spec(f"{_P}probes_sent_total", "counter", "Probes that left for the network.", _TARGET_MODE)
COMPLETED = Spec(
    f"{_P}probes_completed_total",
    "counter",
    "Probes by what became of them. late: answered after the timeout; lost: no answer within 15 s"
    " after it, or by the session's end; send_error: not sent, there being no session for example,"
    " so not among those sent; malformed: answers that belong to no probe, beside the others.",
    {**_TARGET_MODE, "result": RESULTS},
)
RTT = Spec(
    f"{_P}rtt_seconds",
    "histogram",
    "Round trips of answered probes, without the server's own time, and without each session's"
    " first probe.",
    _TARGET_MODE,
)
FIRST_RTT = Spec(
    f"{_P}first_rtt_seconds",
    "histogram",
    "Round trips of the first probe of each session, sent as soon as the session is there.",
    _TARGET_MODE,
)
SERVER_TIME = Spec(
    f"{_P}server_time_seconds",
    "histogram",
    "The server's own time with a probe, as it says; not in the round trip.",
    _TARGET,
)
LOST = Spec(
    f"{_P}lost_total",
    "counter",
    "Lost probes by direction, as far as the server's count proves it; unknown: after the last"
    " answer of a session, or of a server that doesn't count.",
    {**_TARGET, "direction": DIRECTIONS},
)
DUPLICATES = Spec(
    f"{_P}duplicates_total",
    "counter",
    "Answers that came again: the server answered twice, or the network delivered a packet twice.",
    _TARGET,
)
REORDERED = Spec(
    f"{_P}reordered_total",
    "counter",
    "Answered probes that a later one of the same mode has overtaken.",
    _TARGET_MODE,
)
CONNECT_DURATION = Spec(
    f"{_P}connect_duration_seconds",
    "histogram",
    "How long the steps of connecting took that succeeded.",
    {**_TARGET, "phase": PHASES},
)
CONNECTS = Spec(
    f"{_P}connects_total",
    "counter",
    "Attempts to connect, by what became of them.",
    {**_TARGET, "result": CONNECT_RESULTS},
)
SESSION_UP = Spec(
    f"{_P}session_up",
    "gauge",
    "1 while the target has a session that answers.",
    _TARGET,
)
CERTIFICATE_NOT_AFTER = Spec(
    f"{_P}peer_certificate_not_after_timestamp_seconds",
    "gauge",
    "When the certificate expires that the target showed last, in seconds since 1970.",
    _TARGET,
)
SESSIONS_CLOSED = Spec(
    f"{_P}sessions_closed_total",
    "counter",
    "Sessions that ended: drain, the server wanted them to leave; closed, by either side; idle,"
    " nothing came any more; error, anything else.",
    {"reason": CLOSE_REASONS},
)
OUTAGE = Spec(
    f"{_P}outage_seconds",
    "histogram",
    "Outages that are over, from the last answer before to the first one after, without the time in"
    " which the client was stopped, or paused before it connected again.",
)
TARGETS = Spec(f"{_P}targets", "gauge", "Targets that are probed.")
DISCOVERY = Spec(
    f"{_P}discovery_total",
    "counter",
    "Lookups of targets, by what became of them.",
    {"result": DISCOVERY_RESULTS},
)
DISCOVERY_LAST_SUCCESS = Spec(
    f"{_P}discovery_last_success_timestamp_seconds",
    "gauge",
    "When a lookup of targets last succeeded, in seconds since 1970; 0 before.",
)
SKIPPED = Spec(
    f"{_P}schedule_skipped_total",
    "counter",
    "Probes whose time passed while this process was held up: nothing was measured then.",
)
EVENT_LOOP_LAG, LOG_LINES_DROPPED, BUILD_INFO = service_specs(_P)

SPECS = (
    *(SENT, COMPLETED, RTT, FIRST_RTT, SERVER_TIME, LOST, DUPLICATES, REORDERED),
    *(CONNECT_DURATION, CONNECTS, SESSION_UP, CERTIFICATE_NOT_AFTER),
    *(SESSIONS_CLOSED, OUTAGE, TARGETS, DISCOVERY, DISCOVERY_LAST_SUCCESS),
    *(SKIPPED, EVENT_LOOP_LAG, LOG_LINES_DROPPED, BUILD_INFO),
)
"""All of them."""


class ModeCounts:
    """What became of a target's probes in one mode."""

    __slots__ = ("completed", "first_rtt", "reordered", "rtt", "sent")

    def __init__(self, rtt_buckets: tuple[float, ...]) -> None:
        self.sent = 0
        self.completed = dict.fromkeys(RESULTS, 0)
        self.rtt = BucketCounts(rtt_buckets)
        self.first_rtt = BucketCounts(FIRST_RTT_BUCKETS)
        self.reordered = 0


class TargetCounts:
    """All that is counted of one target; only the modes that it is probed in have series."""

    __slots__ = (
        "connect_duration",
        "connects",
        "duplicates",
        "is_up",
        "lost",
        "modes",
        "not_after",
        "server_time",
    )

    def __init__(self, modes: Iterable[str], rtt_buckets: tuple[float, ...]) -> None:
        self.modes = {mode: ModeCounts(rtt_buckets) for mode in modes}
        self.server_time = BucketCounts(SERVER_TIME_BUCKETS)
        self.duplicates = 0
        self.lost = dict.fromkeys(DIRECTIONS, 0)
        self.connect_duration = {phase: BucketCounts(CONNECT_BUCKETS) for phase in PHASES}
        self.connects = dict.fromkeys(CONNECT_RESULTS, 0)
        self.is_up = False
        self.not_after: float | None = None
        """When its certificate expires, in seconds since 1970; None before one was seen."""


class ProbeMetrics:
    """The values of all targets, and of what they have together.

    Of `SPECS` the rest (the last lookup that succeeded, lag, build) is read where it is known.
    """

    def __init__(self) -> None:
        self.targets: dict[str, TargetCounts] = {}
        self.sessions_closed = dict.fromkeys(CLOSE_REASONS, 0)
        self.outages = BucketCounts(OUTAGE_BUCKETS)
        self.lookups = dict.fromkeys(DISCOVERY_RESULTS, 0)
        self.skipped = 0

    def count_lookup(self, result: str) -> None:
        """A lookup has ended; one of `DISCOVERY_RESULTS`."""
        self.lookups[result] += 1

    def collect(self) -> Iterator[Metric]:
        """The values now, in slices: between two of them probes go on, and targets come and go."""
        # In this order no more are completed than were sent.
        yield from COMPLETED.slices(
            ((*labels, result), count)
            for labels, counts in self._modes()
            for result, count in counts.completed.items()
        )
        yield from SENT.slices((labels, counts.sent) for labels, counts in self._modes())
        yield from RTT.slices((labels, counts.rtt) for labels, counts in self._modes())
        yield from FIRST_RTT.slices((labels, counts.first_rtt) for labels, counts in self._modes())
        yield from REORDERED.slices((labels, counts.reordered) for labels, counts in self._modes())
        yield from self._of_targets()
        closed = self.sessions_closed.items()
        yield SESSIONS_CLOSED.metric(((reason,), count) for reason, count in closed)
        yield OUTAGE.metric([((), self.outages)])
        yield TARGETS.metric([((), len(self.targets))])
        yield DISCOVERY.metric(((result,), count) for result, count in self.lookups.items())
        yield SKIPPED.metric([((), self.skipped)])

    def _of_targets(self) -> Iterator[Metric]:
        targets = list(self.targets.items())
        yield from SERVER_TIME.slices(((name,), one.server_time) for name, one in targets)
        yield from DUPLICATES.slices(((name,), one.duplicates) for name, one in targets)
        yield from LOST.slices(
            ((name, direction), count)
            for name, one in targets
            for direction, count in one.lost.items()
        )
        yield from CONNECT_DURATION.slices(
            ((name, phase), counts)
            for name, one in targets
            for phase, counts in one.connect_duration.items()
        )
        yield from CONNECTS.slices(
            ((name, result), count)
            for name, one in targets
            for result, count in one.connects.items()
        )
        yield from SESSION_UP.slices(((name,), int(one.is_up)) for name, one in targets)
        yield from CERTIFICATE_NOT_AFTER.slices(
            ((name,), one.not_after) for name, one in targets if one.not_after is not None
        )

    def _modes(self) -> Iterator[tuple[tuple[str, str], ModeCounts]]:
        for name, target in list(self.targets.items()):
            for mode, counts in target.modes.items():
                yield (name, mode), counts
