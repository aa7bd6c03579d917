"""What is called when something happens on a link."""

from __future__ import annotations

from dataclasses import dataclass

from ..ping import Mode
from ..statistics import Answer, LossReport
from .availability import Outage
from .failures import LinkError


@dataclass(frozen=True, slots=True)
class ConnectTimes:
    """How long each step of connecting took, in nanoseconds; None for a step that wasn't taken."""

    resolve_ns: int | None = None
    handshake_ns: int | None = None
    session_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is pinged, and how: what the making of a session has satisfied."""

    address: str
    """The IP address that the name led to."""
    protocol: str | None
    """The negotiated application protocol; None for plain ping-pong."""
    draft: str
    """The negotiated version of WebTransport, as in `draft-16`."""
    times: ConnectTimes = ConnectTimes()
    not_after: float | None = None
    """When the server's certificate expires, in seconds since 1970."""


class Observer:
    """Called with what happens on a link, in its order; each call does nothing unless overridden.

    `seq` counts the probes of a link from 1, in all sessions together, without gaps.
    """

    # The target.

    def up(self, peer: Peer, outage: Outage | None) -> None:
        """The first answer came, or the first one after an outage."""

    def down(self, cause: str) -> None:
        """The target does not answer any more, or its session is over and no other one stands."""

    # Sessions.

    def dialed(self, peer: Peer) -> None:
        """A session was made."""

    def connect_failed(self, error: LinkError) -> None:
        """No session could be made."""

    def connected(self, peer: Peer) -> None:
        """Probes go over a session; before that there was none."""

    def moved(self, before: Peer, peer: Peer, cause: str) -> None:
        """Probes go over another session, beside which the one before still stands."""

    def draining(self) -> None:
        """The server asks to leave. Another session is made first."""

    def closed(self, reason: str) -> None:
        """A session is over, or is left: `reason` is one of `session.CLOSE_REASONS`."""

    # Probes.

    def sent(self, seq: int, mode: Mode) -> None:
        """A probe was sent."""

    def not_sent(self, seq: int, mode: Mode, reason: str) -> None:
        """A probe could not be sent."""

    def unconnected(self, seq: int, mode: Mode) -> None:
        """A probe's time came while there was no session."""

    def skipped(self, slots: int) -> None:
        """This process was stopped, or held up, and this number of slots passed meanwhile."""

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """An answer of `size` bytes came; `is_first`: to the first probe of its session and mode."""

    def duplicated(self, count: int) -> None:
        """The network delivered this number of packets again: QUIC lets none of them pass."""

    def malformed(self, mode: Mode) -> None:
        """Something came that is the answer to no probe."""

    def unanswered(self, seq: int, *, final: bool) -> None:
        """A probe's timeout passed; where that is final, its session is over: no answer can come."""

    def lost(self, report: LossReport) -> None:
        """Probes are lost for good, or more is known of where."""
