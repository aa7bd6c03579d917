"""What a program reads of a `pingpong ping`."""

from __future__ import annotations

import json
from typing import Any

from ...link import Peer
from ...statistics import Answer, AnswerStatus, Distribution
from ...webtransport import PathStatistics
from .results import RunSummary


class JsonReport:
    """One JSON object a reply, and one for the summary, each on a line of its own.

    A reply has `seq bytes from rtt_ms server_ms late duplicate reordered`, and before them `time`
    where timestamps are wanted (seconds since 1970). A summary has `sent`, by which it can be told
    from a reply, and what the method of that name makes. Both begin with `target` where several
    are pinged. Times are in milliseconds; null is what is not known.
    """

    def __init__(self, url: str, label: str = "") -> None:
        self._url = url
        self._target = {"target": label} if label else {}

    def answer(
        self, peer: Peer, answer: Answer, size: int, *, at_ns: int | None = None
    ) -> str | None:
        """Return the object of an answer; None for one to an unknown probe."""
        if answer.rtt_ns is None:
            return None
        reply: dict[str, Any] = {**self._target}
        if at_ns is not None:
            # To the microsecond, as in the text: a float cannot hold today's nanoseconds.
            reply["time"] = at_ns // 1000 / 1e6
        reply |= {
            "seq": answer.seq,
            "bytes": size,
            "from": peer.address,
            "rtt_ms": _milliseconds(answer.rtt_ns),
            "server_ms": _milliseconds(answer.server_ns),
            "late": answer.status is AnswerStatus.LATE,
            "duplicate": answer.status is AnswerStatus.DUPLICATE,
            "reordered": answer.reordered,
        }
        return json.dumps(reply)

    def summary(self, run: RunSummary) -> str:
        """Return the object of the summary."""
        pings, peer = run.pings, run.peer
        return json.dumps(
            {
                **self._target,
                "url": self._url,
                "sent": pings.sent,
                "received": pings.received,
                "late": pings.late,
                "lost": pings.lost,
                "lost_out": pings.lost_out,
                "lost_back": pings.lost_back,
                "lost_unknown": pings.lost_unknown,
                "waiting": pings.waiting,
                "send_errors": pings.send_errors,
                "skipped": run.skipped,
                "malformed": run.malformed,
                "duplicates": pings.duplicates,
                "reordered": pings.reordered,
                "rate": None if run.rate is None else round(run.rate, 3),
                "time_ms": _milliseconds(pings.elapsed_ns),
                "rtt_ms": _distribution(pings.rtt),
                "server_ms": _distribution(pings.server),
                "connect_ms": {
                    "resolve": _milliseconds(run.times.resolve_ns),
                    "handshake": _milliseconds(run.times.handshake_ns),
                    "session": _milliseconds(run.times.session_ns),
                },
                "quic": None if run.path is None else _path(run.path),
                "engine": run.engine,
                "connections": run.connections,
                "outages": run.outages,
                "outage_ms": _milliseconds(run.outage_ns),
                "address": None if peer is None else peer.address,
                "draft": None if peer is None else peer.draft,
                "protocol": None if peer is None else peer.protocol,
                "error": run.error or (run.unconnected and f"not connected {run.unconnected}"),
            }
        )


def _milliseconds(time_ns: float | None) -> float | None:
    """Convert to milliseconds, with the nanosecond as the last digit."""
    return None if time_ns is None else round(time_ns / 1e6, 6)


def _path(path: PathStatistics) -> dict[str, float | None]:
    return {
        "rtt_ms": _milliseconds(path.smoothed_rtt * 1e9),
        "congestion_window": path.congestion_window,
        "lost_packets": path.lost_packets,
    }


def _distribution(times: Distribution | None) -> dict[str, float | None] | None:
    if times is None:
        return None
    names = ("min", "avg", "p50", "p95", "p99", "max", "mdev")
    return {name: _milliseconds(getattr(times, name)) for name in names}
