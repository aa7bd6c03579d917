"""What a person reads of a `pingpong ping`, and what a program reads.

Both reports have the same methods. Each returns a line, or several, without the last line's end,
or None where there is nothing to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from .latencies import Distribution
from .statistics import Outcome, Summary, Verdict


@dataclass(frozen=True, slots=True)
class Target:
    """Who is pinged, and how."""

    url: str
    address: str
    """The IP address that the name led to."""
    mode: str
    """datagram, stream, streams or uni."""
    size: int
    """Of a message, in bytes."""
    protocol: str | None
    """The negotiated application protocol; None for plain ping-pong."""
    draft: str
    """The negotiated version of WebTransport, as in `draft-16`."""


@dataclass(frozen=True, slots=True)
class ConnectTimes:
    """How long each step of connecting took, in nanoseconds; None for a step that wasn't taken."""

    resolve_ns: int | None
    handshake_ns: int | None
    session_ns: int | None


class Report(Protocol):
    """What a report can tell.

    `at_ns` is the Unix time in nanoseconds, where timestamps are wanted.
    """

    def start(self) -> str | None:
        """Tell what is going to be pinged."""

    def answer(self, outcome: Outcome, size: int, *, at_ns: int | None = None) -> str | None:
        """Tell of an answer of `size` bytes. Nothing is said of one to an unknown probe."""

    def no_answer(self, seq: int, *, at_ns: int | None = None) -> str | None:
        """Tell that a probe's timeout passed without an answer."""

    def not_sent(self, seq: int, reason: str, *, at_ns: int | None = None) -> str | None:
        """Tell that a probe could not be sent, and why."""

    def summary(
        self, summary: Summary, connect: ConnectTimes, *, skipped: int = 0, malformed: int = 0
    ) -> str | None:
        """Tell what became of all probes.

        `skipped` is how many slots of the schedule could not be kept, and `malformed` how many
        messages came that are no answer to any probe.
        """


class TextReport:
    """Lines for a person, in the manner of ping(8)."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def start(self) -> str:
        """Return ping(8)'s first line."""
        target = self._target
        return (
            f"PING {target.url} ({target.address}): {target.mode}, {_count(target.size, 'byte')}, "
            f"{target.protocol or 'plain'}, {target.draft}"
        )

    def answer(self, outcome: Outcome, size: int, *, at_ns: int | None = None) -> str | None:
        """Return the line of an answer; None for one to an unknown probe."""
        if outcome.rtt_ns is None:
            return None
        line = (
            f"{_stamp(at_ns)}{_count(size, 'byte')} from {self._target.address}: "
            f"seq={outcome.seq} time={_number(outcome.rtt_ns)} ms"
        )
        if outcome.server_ns is not None:
            line += f" (server {_number(outcome.server_ns)} ms)"
        if outcome.verdict is Verdict.LATE:
            line += " late"
        if outcome.reordered:
            line += " reordered"
        if outcome.verdict is Verdict.DUPLICATE:
            line += " (DUP!)"
        return line

    def no_answer(self, seq: int, *, at_ns: int | None = None) -> str:
        """Return the line of a probe whose timeout passed."""
        return f"{_stamp(at_ns)}no answer yet: seq={seq}"

    def not_sent(self, seq: int, reason: str, *, at_ns: int | None = None) -> str:
        """Return the line of a probe that could not be sent."""
        return f"{_stamp(at_ns)}not sent: seq={seq} ({reason})"

    def summary(
        self, summary: Summary, connect: ConnectTimes, *, skipped: int = 0, malformed: int = 0
    ) -> str:
        """Return the lines of the summary, without those that have nothing to say."""
        lines = [
            f"--- {self._target.url} pingpong statistics ---",
            _counts(summary, skipped, malformed),
            _times(summary.rtt, summary.server),
            _connect(connect, self._target.draft),
        ]
        return "\n".join(line for line in lines if line)


class JsonReport:
    """One JSON object a reply, and one for the summary, each on a line of its own.

    Times are in milliseconds; null is what is not known.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    def start(self) -> None:
        """Return None: the summary names the draft and the protocol."""
        return None

    def answer(self, outcome: Outcome, size: int, *, at_ns: int | None = None) -> str | None:
        """Return the object of an answer; None for one to an unknown probe."""
        if outcome.rtt_ns is None:
            return None
        reply: dict[str, Any] = {
            "seq": outcome.seq,
            "bytes": size,
            "from": self._target.address,
            "rtt_ms": _milliseconds(outcome.rtt_ns),
            "server_ms": _milliseconds(outcome.server_ns),
            "late": outcome.verdict is Verdict.LATE,
            "duplicate": outcome.verdict is Verdict.DUPLICATE,
            "reordered": outcome.reordered,
        }
        if at_ns is not None:
            # To the microsecond, as in the text: a float cannot hold today's nanoseconds.
            reply = {"time": at_ns // 1000 / 1e6} | reply
        return json.dumps(reply)

    def no_answer(self, seq: int, *, at_ns: int | None = None) -> None:
        """Return None: there is no reply. The summary counts it."""
        return None

    def not_sent(self, seq: int, reason: str, *, at_ns: int | None = None) -> None:
        """Return None: there is no reply. The summary counts it."""
        return None

    def summary(
        self, summary: Summary, connect: ConnectTimes, *, skipped: int = 0, malformed: int = 0
    ) -> str:
        """Return the object of the summary."""
        return json.dumps(
            {
                "sent": summary.sent,
                "received": summary.received,
                "late": summary.late,
                "lost": summary.lost,
                "lost_out": summary.lost_out,
                "lost_back": summary.lost_back,
                "lost_unknown": summary.lost_unknown,
                "waiting": summary.waiting,
                "send_errors": summary.send_errors,
                "skipped": skipped,
                "malformed": malformed,
                "duplicates": summary.duplicates,
                "reordered": summary.reordered,
                "time_ms": _milliseconds(summary.elapsed_ns),
                "rtt_ms": _distribution(summary.rtt),
                "server_ms": _distribution(summary.server),
                "connect_ms": {
                    "resolve": _milliseconds(connect.resolve_ns),
                    "handshake": _milliseconds(connect.handshake_ns),
                    "session": _milliseconds(connect.session_ns),
                },
                "draft": self._target.draft,
                "protocol": self._target.protocol,
            }
        )


# The summary's lines


def _counts(summary: Summary, skipped: int, malformed: int) -> str:
    parts = [f"{summary.sent} sent", f"{summary.received} received"]
    if summary.late:
        parts.append(f"{summary.late} late")
    if summary.waiting:
        parts.append(f"{summary.waiting} waiting")
    if summary.duplicates:
        parts.append(f"+{_count(summary.duplicates, 'duplicate')}")
    if summary.reordered:
        parts.append(f"{summary.reordered} reordered")
    if summary.send_errors:
        parts.append(_count(summary.send_errors, "send error"))
    if skipped:
        parts.append(f"{skipped} skipped")
    if malformed:
        parts.append(f"{malformed} malformed")
    if summary.sent:
        parts.append(f"{_percent(summary.loss)} loss{_directions(summary)}")
    parts.append(f"time {_rounded(summary.elapsed_ns)} ms")
    return ", ".join(parts)


def _directions(summary: Summary) -> str:
    if not summary.lost or summary.lost_out is None or summary.lost_back is None:
        return ""
    unknown = f", {summary.lost_unknown} unknown" if summary.lost_unknown else ""
    return f" ({summary.lost_out} out, {summary.lost_back} back{unknown})"


def _times(rtt: Distribution | None, server: Distribution | None) -> str:
    if rtt is None:
        return ""
    line = (
        f"rtt min/avg/max/mdev = {_numbers(rtt.min, rtt.avg, rtt.max, rtt.mdev)} ms, "
        f"p50/p95/p99 = {_numbers(rtt.p50, rtt.p95, rtt.p99)} ms"
    )
    return line if server is None else f"{line}, server {_number(server.avg)} ms"


def _connect(times: ConnectTimes, draft: str) -> str:
    steps = {
        "resolve": times.resolve_ns,
        "handshake": times.handshake_ns,
        "session": times.session_ns,
    }
    parts = [f"{step} {_number(time)} ms" for step, time in steps.items() if time is not None]
    return f"connect: {', '.join([*parts, draft])}"


# Numbers


def _number(time_ns: float) -> str:
    """Write a time in milliseconds as ping(8) does: the larger, the fewer decimals."""
    for decimals, limit in ((3, 1), (2, 10), (1, 100)):
        # Rounded first: 0.9996 is 1.00, and not 1.000.
        text = f"{time_ns / 1e6:.{decimals}f}"
        if float(text) < limit:
            return text
    return _rounded(time_ns)


def _numbers(*times_ns: float) -> str:
    return "/".join(map(_number, times_ns))


def _rounded(time_ns: float) -> str:
    return f"{time_ns / 1e6:.0f}"


def _percent(fraction: float) -> str:
    """Write a percentage with one decimal, or as many as it takes not to claim none or all."""
    percentage = fraction * 100
    for decimals in range(1, 10):
        text = f"{percentage:.{decimals}f}"
        if float(text) not in (0, 100) or percentage in (0, 100):
            break
    return f"{text.rstrip('0').rstrip('.')}%"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _stamp(at_ns: int | None) -> str:
    """Write a Unix time as ping(8) -D does, to the microsecond."""
    if at_ns is None:
        return ""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    return f"[{seconds}.{rest // 1000:06}] "


def _milliseconds(time_ns: float | None) -> float | None:
    """Convert to milliseconds, with the nanosecond as the last digit."""
    return None if time_ns is None else round(time_ns / 1e6, 6)


def _distribution(times: Distribution | None) -> dict[str, float | None] | None:
    if times is None:
        return None
    names = ("min", "avg", "p50", "p95", "p99", "max", "mdev")
    return {name: _milliseconds(getattr(times, name)) for name in names}
