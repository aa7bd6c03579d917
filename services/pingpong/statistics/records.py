"""The results of probes: answers, losses and summaries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .latencies import Distribution


class AnswerStatus(Enum):
    """The status of an answer."""

    OK = "ok"
    """The first answer to its probe, in time."""
    LATE = "late"
    """The first answer to its probe, after the probe's timeout."""
    DUPLICATE = "duplicate"
    """The probe was answered before."""
    UNKNOWN = "unknown"
    """No such probe was sent, or it was forgotten."""


class Answer(NamedTuple):
    """One answer."""

    seq: int
    """As passed to `Statistics.sent`; as received if the status is UNKNOWN."""
    status: AnswerStatus
    reordered: bool
    """Whether a later probe was answered before (RFC 4737); false for duplicates."""
    rtt_ns: int | None
    """The round-trip time without the server's processing time; None if the status is UNKNOWN."""
    server_ns: int | None
    """The server's processing time; None if it is not reported, or the status is UNKNOWN."""
    kind: str = ""
    """As passed to `Statistics.sent`; "" if the status is UNKNOWN."""


class Losses(NamedTuple):
    """Final losses by direction: to the server, back, and unknown."""

    out: int
    back: int
    unknown: int


class LossReport(NamedTuple):
    """Final losses since the last report."""

    by_kind: dict[str, int]
    """Lost probes, by kind."""
    out: int
    back: int
    unknown: int
    """By direction: losses, also of earlier reports, whose direction is now known, or final."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts at one moment.

    `sent` = `received` + `lost` + `waiting`, and `lost` = `lost_out` + `lost_back` +
    `lost_unknown`. `sent` does not include send errors, `received` does not include duplicates.
    """

    sent: int = 0
    received: int = 0
    late: int = 0
    """Answered after the timeout; included in `received`."""
    lost: int = 0
    lost_out: int | None = 0
    """Lost on the way to the server; None if the server does not count."""
    lost_back: int | None = 0
    """Lost on the way back; None if the server does not count."""
    lost_unknown: int = 0
    waiting: int = 0
    """Not answered, and not timed out."""
    duplicates: int = 0
    reordered: int = 0
    send_errors: int = 0
    unknown: int = 0
    """Answers to unknown probes."""
    elapsed_ns: int = 0
    """Since the first probe was sent."""
    rtt: Distribution | None = None
    """Round-trip times of all answers, including late ones; None if there are none."""
    server: Distribution | None = None
    """The server's processing times; None if they are not reported."""

    @property
    def loss(self) -> float:
        """The loss ratio, 0 to 1, of the probes that were answered or timed out."""
        settled = self.sent - self.waiting
        return self.lost / settled if settled else 0.0
