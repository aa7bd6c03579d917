"""The metrics of `pingpong probe`: names, help texts, labels, and the values of each target.

The values are plain integers, which a scrape reads. All values of a target are in one object: its
series exist as long as the object does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import get_args

from prometheus_client import Metric

from ...link import CLOSE_REASONS, CONNECT_RESULTS
from ...ping import Mode
from ...telemetry.metrics import BucketCounts, Spec
from ...telemetry.process import service_specs
from ...webtransport import PathStatistics

MODES = get_args(Mode)
RESULTS = ("ok", "late", "lost", "malformed", "send_error")
DIRECTIONS = ("out", "back", "unknown")
PHASES = ("resolve", "handshake", "session")
DISCOVERY_RESULTS = ("ok", "empty", "nxdomain", "timeout", "servfail", "forbidden", "error")

FIRST_RTT_BUCKETS = (0.0001, 0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 3.0)
SERVER_TIME_BUCKETS = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.004, 0.016, 0.064, 0.256, 1.0)
CONNECT_BUCKETS = (0.00025, 0.001, 0.004, 0.016, 0.064, 0.256, 1.0, 5.0)
OUTAGE_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0)
"""Buckets in seconds; those of round trips are a setting."""

_P = "pingpong_client_"
_TARGET = {"target": None}
_TARGET_MODE = {"target": None, "mode": MODES}

SENT = Spec(f"{_P}probes_sent_total", "counter", "Probes sent to the network.", _TARGET_MODE)
COMPLETED = Spec(
    f"{_P}probes_completed_total",
    "counter",
    "Probes by result. late: answered after the timeout; lost: not answered within 15 s after the"
    " timeout, or before the session ended; send_error: not sent, for example without a session, and"
    " not in probes_sent_total; malformed: answers that match no probe, counted in addition.",
    {**_TARGET_MODE, "result": RESULTS},
)
RTT = Spec(
    f"{_P}rtt_seconds",
    "histogram",
    "Round-trip times of answered probes, without the server's time, and without the first probe of"
    " each session.",
    _TARGET_MODE,
)
FIRST_RTT = Spec(
    f"{_P}first_rtt_seconds",
    "histogram",
    "Round-trip times of the first probe of each session, sent as soon as the session is open.",
    _TARGET_MODE,
)
SERVER_TIME = Spec(
    f"{_P}server_time_seconds",
    "histogram",
    "Time from a probe's arrival to its answer, as the server reports it; not part of rtt_seconds.",
    _TARGET,
)
LOST = Spec(
    f"{_P}lost_total",
    "counter",
    "Lost probes by direction, as far as the server's counter shows it; unknown: after the last"
    " answer of a session, or with a server that does not count.",
    {**_TARGET, "direction": DIRECTIONS},
)
DUPLICATES = Spec(
    f"{_P}duplicates_total",
    "counter",
    "Duplicate answers: the server answered twice, or the network delivered a packet twice.",
    _TARGET,
)
REORDERED = Spec(
    f"{_P}reordered_total",
    "counter",
    "Answered probes that a later probe of the same mode overtook.",
    _TARGET_MODE,
)
CONNECT_DURATION = Spec(
    f"{_P}connect_duration_seconds",
    "histogram",
    "Duration of each successful step of connecting.",
    {**_TARGET, "phase": PHASES},
)
CONNECTS = Spec(
    f"{_P}connects_total",
    "counter",
    "Attempts to connect, by result.",
    {**_TARGET, "result": CONNECT_RESULTS},
)
QUIC_RTT = Spec(
    f"{_P}quic_rtt_seconds",
    "gauge",
    "Smoothed round-trip time that QUIC measured, of the current or last session.",
    _TARGET,
)
QUIC_WINDOW = Spec(
    f"{_P}quic_congestion_window_bytes",
    "gauge",
    "Bytes that QUIC's congestion control allows in flight, of the current or last session.",
    _TARGET,
)
QUIC_LOST = Spec(
    f"{_P}quic_lost_packets_total",
    "counter",
    "Packets of the client that QUIC declared lost, of all sessions with the target.",
    _TARGET,
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
    "Time at which the target's latest certificate expires, in seconds since 1970.",
    _TARGET,
)
SESSIONS_CLOSED = Spec(
    f"{_P}sessions_closed_total",
    "counter",
    "Sessions that ended, by reason. drain: the server drained them; closed: closed by either side;"
    " idle: nothing was received for the idle timeout; error: anything else.",
    {"reason": CLOSE_REASONS},
)
OUTAGE = Spec(
    f"{_P}outage_seconds",
    "histogram",
    "Duration of outages that have ended, from the last answer before to the first answer after,"
    " without the time in which the client was suspended, or paused before it reconnected.",
)
TARGETS = Spec(f"{_P}targets", "gauge", "Probed targets.")
DISCOVERY = Spec(
    f"{_P}discovery_total",
    "counter",
    "Lookups of targets, by result.",
    {"result": DISCOVERY_RESULTS},
)
DISCOVERY_LAST_SUCCESS = Spec(
    f"{_P}discovery_last_success_timestamp_seconds",
    "gauge",
    "Time of the last successful lookup of targets, in seconds since 1970; 0: none yet.",
)
SKIPPED = Spec(
    f"{_P}schedule_skipped_total",
    "counter",
    "Probes not sent because the client was suspended or blocked when they were due.",
)
EVENT_LOOP_LAG, LOG_LINES_DROPPED, BUILD_INFO = service_specs(_P)

SPECS = (
    *(SENT, COMPLETED, RTT, FIRST_RTT, SERVER_TIME, LOST, DUPLICATES, REORDERED),
    *(CONNECT_DURATION, CONNECTS, SESSION_UP, CERTIFICATE_NOT_AFTER),
    *(QUIC_RTT, QUIC_WINDOW, QUIC_LOST),
    *(SESSIONS_CLOSED, OUTAGE, TARGETS, DISCOVERY, DISCOVERY_LAST_SUCCESS),
    *(SKIPPED, EVENT_LOOP_LAG, LOG_LINES_DROPPED, BUILD_INFO),
)
"""All of them."""


class ModeCounts:
    """The values of a target in one mode."""

    __slots__ = ("completed", "first_rtt", "reordered", "rtt", "sent")

    def __init__(self, rtt_buckets: tuple[float, ...]) -> None:
        self.sent = 0
        self.completed = dict.fromkeys(RESULTS, 0)
        self.rtt = BucketCounts(rtt_buckets)
        self.first_rtt = BucketCounts(FIRST_RTT_BUCKETS)
        self.reordered = 0


class TargetCounts:
    """The values of a target; only the modes that are in use have series."""

    __slots__ = (
        "connect_duration",
        "connects",
        "duplicates",
        "is_up",
        "lost",
        "lost_packets",
        "modes",
        "not_after",
        "path_of",
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
        """When its certificate expires, in seconds since 1970; None if none was seen."""
        self.path_of: Callable[[], PathStatistics | None] = lambda: None
        """QUIC's statistics of the path."""
        self.lost_packets = 0
        """Lost packets besides those of `path_of`."""


class ProbeMetrics:
    """The values of all targets, and those of the client as a whole.

    The service adds the rest of `SPECS` (last lookup, lag, build).
    """

    def __init__(self) -> None:
        self.targets: dict[str, TargetCounts] = {}
        self.sessions_closed = dict.fromkeys(CLOSE_REASONS, 0)
        self.outages = BucketCounts(OUTAGE_BUCKETS)
        self.lookups = dict.fromkeys(DISCOVERY_RESULTS, 0)
        self.skipped = 0

    def count_lookup(self, result: str) -> None:
        """Count a lookup by its result, one of `DISCOVERY_RESULTS`."""
        self.lookups[result] += 1

    def collect(self) -> Iterator[Metric]:
        """The current values, in slices; targets may be added and removed between two of them."""
        # In this order, not more probes are completed than sent.
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
        paths = [(name, one.path_of(), one.lost_packets) for name, one in targets]
        yield from QUIC_RTT.slices(
            ((name,), path.smoothed_rtt) for name, path, _ in paths if path is not None
        )
        yield from QUIC_WINDOW.slices(
            ((name,), path.congestion_window) for name, path, _ in paths if path is not None
        )
        yield from QUIC_LOST.slices(
            ((name,), lost + (0 if path is None else path.lost_packets))
            for name, path, lost in paths
        )
        yield from CERTIFICATE_NOT_AFTER.slices(
            ((name,), one.not_after) for name, one in targets if one.not_after is not None
        )

    def _modes(self) -> Iterator[tuple[tuple[str, str], ModeCounts]]:
        for name, target in list(self.targets.items()):
            for mode, counts in target.modes.items():
                yield (name, mode), counts
