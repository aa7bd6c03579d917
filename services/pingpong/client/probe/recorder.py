"""Counts and logs the events of one target."""

from __future__ import annotations

import time

from ...link import LinkError, Observer, Outage, Peer
from ...ping import Mode
from ...statistics import Answer, AnswerStatus, LossReport
from ...telemetry.failure_log import FailureLogThrottle
from ...telemetry.logs import get_logger
from .metrics import ProbeMetrics, TargetCounts


class Recorder(Observer):
    """Counts all events of a target, and logs its changes.

    `failures` throttles the log of failed connects; all targets share it.
    """

    def __init__(
        self, name: str, metrics: ProbeMetrics, counts: TargetCounts, failures: FailureLogThrottle
    ) -> None:
        self._name = name
        self._metrics = metrics
        self._counts = counts
        self._failures = failures
        self._log = get_logger("pingpong.client").bind(target=name)

    def up(self, peer: Peer, outage: Outage | None) -> None:
        """The target answers, for the first time or again."""
        self._counts.is_up = True
        facts: dict[str, object] = {"address": peer.address}
        if outage is not None:
            seconds = outage.duration_ns * 1e-9
            self._metrics.outages.observe(seconds)
            facts |= {"outage_seconds": round(seconds, 3), "cause": outage.cause}
        self._log.info("target_up", **facts)

    def down(self, cause: str) -> None:
        """The target stopped answering."""
        if self._counts.is_up:
            self._counts.is_up = False
            self._log.warning("target_down", cause=cause)

    def dialed(self, peer: Peer) -> None:
        """A session was opened."""
        counts, times = self._counts, peer.times
        counts.connects["ok"] += 1
        counts.not_after = peer.not_after
        for phase, took in (
            ("resolve", times.resolve_ns),
            ("handshake", times.handshake_ns),
            ("session", times.session_ns),
        ):
            if took is not None:
                counts.connect_duration[phase].observe(took * 1e-9)
        self._failures.succeeded(self._name, time.monotonic())

    def connect_failed(self, error: LinkError) -> None:
        """No session could be opened."""
        counts = self._counts
        counts.connects[error.result] += 1
        if error.resolve_ns is not None:
            counts.connect_duration["resolve"].observe(error.resolve_ns * 1e-9)
        if error.not_after is not None:
            counts.not_after = error.not_after
        failed = self._failures.failed(self._name, error.result, time.monotonic())
        if failed is not None:
            self._log.warning(
                "connect_failed", result=error.result, error=str(error), count=failed.count
            )

    def moved(self, before: Peer, peer: Peer, cause: str) -> None:
        """Another session is used for probes."""
        self._log.info("session_moved", cause=cause, before=before.address, address=peer.address)

    def closed(self, reason: str) -> None:
        """A session ended."""
        self._metrics.sessions_closed[reason] += 1

    def sent(self, seq: int, mode: Mode) -> None:
        """A probe was sent."""
        self._counts.modes[mode].sent += 1

    def not_sent(self, seq: int, mode: Mode, reason: str) -> None:
        """A probe could not be sent."""
        self._counts.modes[mode].completed["send_error"] += 1

    def unconnected(self, seq: int, mode: Mode) -> None:
        """A probe was not sent, without a session."""
        self._counts.modes[mode].completed["send_error"] += 1

    def skipped(self, slots: int) -> None:
        """Probes were not sent: the process was suspended or blocked."""
        self._metrics.skipped += slots

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """An answer arrived."""
        if answer.status is AnswerStatus.DUPLICATE:
            self._counts.duplicates += 1
            return
        counts = self._counts.modes[answer.kind]
        counts.completed[answer.status.value] += 1
        if answer.reordered:
            counts.reordered += 1
        assert answer.rtt_ns is not None
        (counts.first_rtt if is_first else counts.rtt).observe(answer.rtt_ns * 1e-9)
        if answer.server_ns is not None:
            self._counts.server_time.observe(answer.server_ns * 1e-9)

    def duplicated(self, count: int) -> None:
        """The network duplicated packets."""
        self._counts.duplicates += count

    def malformed(self, mode: Mode) -> None:
        """An answer matches no probe; in a mode that is not in use, it counts for the first one."""
        modes = self._counts.modes
        counts = modes.get(mode) or next(iter(modes.values()))
        counts.completed["malformed"] += 1

    def lost(self, report: LossReport) -> None:
        """Probes are finally lost, or the direction of losses is known."""
        for mode, count in report.by_kind.items():
            self._counts.modes[mode].completed["lost"] += count
        for direction in ("out", "back", "unknown"):
            self._counts.lost[direction] += getattr(report, direction)
