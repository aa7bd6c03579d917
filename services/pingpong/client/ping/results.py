"""What there is to say of a run of pings, at its end and meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ...link import ConnectTimes, Peer
from ...statistics import Summary
from ...webtransport import Address, PathStatistics
from . import formatting


@dataclass(frozen=True, slots=True)
class ShownOutage:
    """A `link.Outage` as `ping` shows it: with the pings in it."""

    duration_ns: int | None
    """See `link.Outage`; None where there was no answer before."""
    lost: int
    """Pings that were not answered in time, or at all."""
    not_sent: int
    """Pings that could not be sent, there being no connection for example."""
    is_reconnected: bool = True
    """Whether another session was made; else the one before answers again."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What became of a run, so far or in the end."""

    pings: Summary
    peer: Peer | None
    """Who was pinged last; None where no session was ever made."""
    times: ConnectTimes
    """Of the last connection."""
    connections: int = 1
    """How many sessions were made, one after the other."""
    skipped: int = 0
    """Slots of the schedule that could not be kept."""
    malformed: int = 0
    """Messages that are no answer to any ping."""
    outages: int = 0
    outage_ns: int = 0
    """The time without an answer, all outages together; see `ShownOutage.duration_ns`."""
    rate: float | None = None
    """Pings a second, of a flood."""
    error: str | None = None
    """What ended the run before its time, or has kept it from beginning."""
    path: PathStatistics | None = None
    """QUIC's statistics of the path to the peer."""
    engine: str | None = None
    """The QUIC engine."""
    unconnected: str | None = None
    """Where it was stopped before the first session, without an error: what was tried."""


def unconnected(waited_ns: int, addresses: Collection[Address]) -> str:
    """Describe an attempt that was stopped: how long it took, and where it went."""
    waited = f"after {formatting.duration(waited_ns)}"
    if not addresses:
        return f"{waited}: still looking up the name"
    tried = ", ".join(f"{address[0]} UDP port {address[1]}" for address in addresses)
    return f"{waited}: no answer yet from {tried}"
