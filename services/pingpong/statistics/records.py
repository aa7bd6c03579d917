"""What there is to say about answers, and about the probes of a session."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .latencies import Distribution


class AnswerStatus(Enum):
    """What an answer means."""

    OK = "ok"
    """The first answer to its probe, in time."""
    LATE = "late"
    """The first answer to its probe, after the probe's timeout."""
    DUPLICATE = "duplicate"
    """The probe has been answered before."""
    UNKNOWN = "unknown"
    """No such probe was sent, or it has been forgotten."""


class Answer(NamedTuple):
    """What there is to say about one answer."""

    seq: int
    """As it was given to `Statistics.sent`; as it came when the status is UNKNOWN."""
    status: AnswerStatus
    reordered: bool
    """Whether a probe sent later was answered before (as RFC 4737 has it; not of duplicates)."""
    rtt_ns: int | None
    """The round trip without the server's own time; None when the status is UNKNOWN."""
    server_ns: int | None
    """The server's own time; None where it isn't reported, and when the status is UNKNOWN."""
    kind: str = ""
    """As it was given to `Statistics.sent`; "" when the status is UNKNOWN."""


class Losses(NamedTuple):
    """Of the probes that were given up, how many were lost where."""

    out: int
    back: int
    unknown: int


class LossReport(NamedTuple):
    """What came to be known of probes that are lost for good: more than was known before."""

    by_kind: dict[str, int]
    """How many were given up, of each kind that has any."""
    out: int
    back: int
    unknown: int
    """Of all that were given up by now, these got lost there."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All that is known at one moment.

    `sent` = `received` + `lost` + `waiting`, and `lost` = `lost_out` + `lost_back` +
    `lost_unknown`. Send errors are not among `sent`, duplicates not among `received`.
    """

    sent: int = 0
    received: int = 0
    late: int = 0
    """Answered after the timeout; among `received`."""
    lost: int = 0
    lost_out: int | None = 0
    """Lost on the way to the server; None where the server doesn't count."""
    lost_back: int | None = 0
    """Lost on the way back; None where the server doesn't count."""
    lost_unknown: int = 0
    waiting: int = 0
    """Not answered, and within their timeout."""
    duplicates: int = 0
    reordered: int = 0
    send_errors: int = 0
    unknown: int = 0
    """Answers to no probe that is known."""
    elapsed_ns: int = 0
    """Since the first probe was sent."""
    rtt: Distribution | None = None
    """Of all that were received, late ones too; None when there are none, or none are kept."""
    server: Distribution | None = None
    """The server's own times; None where they aren't reported, or none are kept."""

    @property
    def loss(self) -> float:
        """The fraction that was lost, 0 to 1, of the probes that aren't waited for any more."""
        settled = self.sent - self.waiting
        return self.lost / settled if settled else 0.0
