"""What a person reads of a `pingpong ping`; what a program reads is in `json_report`."""

from __future__ import annotations

from ...link import ConnectTimes, Peer
from ...ping import Mode
from ...statistics import Answer, AnswerStatus, Distribution, Summary
from . import formatting
from .results import RunSummary, ShownOutage


class TextReport:
    """Lines for a person, in the manner of ping(8).

    Each method returns a line, or several, without the last line's end, or None where there is
    nothing to say. `at_ns` is the Unix time in nanoseconds, where timestamps are wanted. Where
    several targets are pinged, `label` says which, in `width` columns.
    """

    def __init__(self, url: str, label: str = "", width: int = 0) -> None:
        self._url = url
        self._prefix = f"{label:<{width}} : " if label else ""

    def connected(self, peer: Peer, mode: Mode, size: int) -> str:
        """Return ping(8)'s first line; `mode` is how pings travel, `size` how many bytes they have."""
        return (
            f"PING {self._url} ({peer.address}): {mode}, {formatting.count(size, 'byte')}, "
            f"{peer.protocol or 'plain'}, {peer.draft}"
        )

    def answer(
        self, peer: Peer, answer: Answer, size: int, *, at_ns: int | None = None
    ) -> str | None:
        """Return the line of an answer; None for one to an unknown probe."""
        if answer.rtt_ns is None:
            return None
        line = (
            f"{formatting.count(size, 'byte')} from {peer.address}: "
            f"seq={answer.seq} time={formatting.milliseconds(answer.rtt_ns)} ms"
        )
        if answer.server_ns is not None:
            line += f" (server {formatting.milliseconds(answer.server_ns)} ms)"
        if answer.status is AnswerStatus.LATE:
            line += " late"
        if answer.reordered:
            line += " reordered"
        if answer.status is AnswerStatus.DUPLICATE:
            line += " (DUP!)"
        return self._line(line, at_ns)

    def no_answer(self, seq: int, *, final: bool = False, at_ns: int | None = None) -> str:
        """Return the line of a probe whose timeout passed, or whose session is over."""
        return self._line(f"no answer{'' if final else ' yet'}: seq={seq}", at_ns)

    def not_sent(self, seq: int, reason: str, *, at_ns: int | None = None) -> str:
        """Return the line of a probe that could not be sent."""
        return self._line(f"not sent: seq={seq} ({reason})", at_ns)

    def lost(self, cause: str, *, at_ns: int | None = None) -> str:
        """Return the line of a target that does not answer any more."""
        return self._line(f"{cause}; connecting again", at_ns)

    def failed(self, cause: str, *, at_ns: int | None = None) -> str:
        """Return the line of an attempt to connect that failed."""
        return self._line(f"still not connected: {cause}", at_ns)

    def recovered(self, peer: Peer, outage: ShownOutage, *, at_ns: int | None = None) -> str:
        """Return the line of a target that answers again."""
        line = f"{peer.address} answers again"
        if outage.is_reconnected:
            line = f"connected again to {peer.address}"
        if outage.duration_ns is not None:
            line += f" after {formatting.duration(outage.duration_ns)}"
        pings = []
        if outage.lost:
            # A session that lives may bring the answers late.
            pings.append(
                f"{outage.lost} {'lost' if outage.is_reconnected else 'unanswered so far'}"
            )
        if outage.not_sent:
            pings.append(f"{outage.not_sent} not sent")
        return self._line(f"{line}: {', '.join(pings)}" if pings else line, at_ns)

    def draining(self, *, at_ns: int | None = None) -> str:
        """Return the line of a server that asks to leave."""
        return self._line("the server asks to leave: connecting again before that", at_ns)

    def moved(self, peer: Peer, *, at_ns: int | None = None) -> str:
        """Return the line of a session that took over from another."""
        return self._line(f"moved to a new session with {peer.address}", at_ns)

    def skipped(self, slots: int, *, at_ns: int | None = None) -> str:
        """Return the line of slots that passed while the process was stopped."""
        return self._line(f"{formatting.count(slots, 'ping')} skipped while stopped", at_ns)

    def summary(self, run: RunSummary) -> str:
        """Return the lines of the summary, without those that have nothing to say."""
        title = f"--- {self._url} pingpong statistics ---"
        if run.peer is None:
            reason = f": {run.error}" if run.error else f" {run.unconnected}"
            return f"{title}\nnot connected{reason}"
        lines = [
            title,
            _counts(run),
            _times(run.pings.rtt, run.pings.server),
            _outages(run),
            _connect(run.times, run.peer.draft, run.connections),
        ]
        return "\n".join(line for line in lines if line)

    def _line(self, text: str, at_ns: int | None) -> str:
        return f"{formatting.stamp(at_ns)}{self._prefix}{text}"


# The summary's lines


def _counts(run: RunSummary) -> str:
    pings = run.pings
    parts = [f"{pings.sent} sent", f"{pings.received} received"]
    if pings.late:
        parts.append(f"{pings.late} late")
    if pings.waiting:
        parts.append(f"{pings.waiting} waiting")
    if pings.duplicates:
        parts.append(f"+{formatting.count(pings.duplicates, 'duplicate')}")
    if pings.reordered:
        parts.append(f"{pings.reordered} reordered")
    if pings.send_errors:
        parts.append(f"{pings.send_errors} not sent")
    if run.skipped:
        parts.append(f"{run.skipped} skipped")
    if run.malformed:
        parts.append(f"{run.malformed} malformed")
    if pings.sent:
        parts.append(f"{formatting.percent(pings.loss)} loss{directions(pings)}")
    parts.append(f"time {formatting.whole_milliseconds(pings.elapsed_ns)} ms")
    if run.rate is not None:
        parts.append(f"{run.rate:.0f} pings/s")
    return ", ".join(parts)


def directions(pings: Summary) -> str:
    """Write which way pings were lost, in brackets; nothing where none was, or it is not known."""
    if not pings.lost or pings.lost_out is None or pings.lost_back is None:
        return ""
    unknown = f", {pings.lost_unknown} unknown" if pings.lost_unknown else ""
    return f" ({pings.lost_out} out, {pings.lost_back} back{unknown})"


def _times(rtt: Distribution | None, server: Distribution | None) -> str:
    if rtt is None:
        return ""
    numbers = formatting.all_milliseconds
    line = (
        f"rtt min/avg/max/mdev = {numbers(rtt.min, rtt.avg, rtt.max, rtt.mdev)} ms, "
        f"p50/p95/p99 = {numbers(rtt.p50, rtt.p95, rtt.p99)} ms"
    )
    return line if server is None else f"{line}, server {formatting.milliseconds(server.avg)} ms"


def _outages(run: RunSummary) -> str:
    if not run.outages:
        return ""
    total = formatting.duration(run.outage_ns)
    if run.outages == 1:
        return f"1 outage of {total}"
    return f"{run.outages} outages, {total} in all"


def _connect(times: ConnectTimes, draft: str, connections: int) -> str:
    steps = {
        "resolve": times.resolve_ns,
        "handshake": times.handshake_ns,
        "session": times.session_ns,
    }
    parts = [
        f"{step} {formatting.milliseconds(time)} ms"
        for step, time in steps.items()
        if time is not None
    ]
    if connections > 1:
        parts.append(f"{connections} connections")
    return f"connect: {', '.join([*parts, draft])}"
