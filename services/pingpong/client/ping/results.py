"""What there is to say of a run of pings, at its end and meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from ...statistics import Summary
from ..link.peer import ConnectTimes, Peer


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without a connection."""

    duration_ns: int
    """From the last answer before it to the new session."""
    lost: int
    """Pings that the old session left without an answer."""
    not_sent: int
    """Pings whose time came while there was no connection."""


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
    """The time without a connection, all outages together; see `Outage.duration_ns`."""
    rate: float | None = None
    """Pings a second, of a flood."""
    error: str | None = None
    """What ended the run before its time, or has kept it from beginning."""
