"""The callbacks of a link."""

from __future__ import annotations

from dataclasses import dataclass

from ..ping import Mode
from ..statistics import Answer, LossReport
from .availability import Outage
from .failures import LinkError


@dataclass(frozen=True, slots=True)
class ConnectTimes:
    """The duration of each step of connecting, in nanoseconds; None if it was skipped."""

    resolve_ns: int | None = None
    handshake_ns: int | None = None
    session_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer of a session, and what was negotiated."""

    address: str
    """The IP address in use."""
    protocol: str | None
    """The negotiated application protocol; None for plain ping-pong."""
    draft: str
    """The negotiated version of WebTransport, as in `draft-16`."""
    times: ConnectTimes = ConnectTimes()
    not_after: float | None = None
    """When the server's certificate expires, in seconds since 1970; or None."""


class Observer:
    """Callbacks of a link, in the order of events; no-ops by default.

    `seq` numbers the probes of a link from 1, across sessions, without gaps.
    """

    # The target.

    def up(self, peer: Peer, outage: Outage | None) -> None:
        """The first answer arrived, or the first one after an outage."""

    def down(self, cause: str) -> None:
        """The target stopped answering, or its only session ended."""

    # Sessions.

    def dialed(self, peer: Peer) -> None:
        """A session was opened."""

    def connect_failed(self, error: LinkError) -> None:
        """An attempt to open a session failed."""

    def connected(self, peer: Peer) -> None:
        """Probes use a session; there was none before."""

    def moved(self, before: Peer, peer: Peer, cause: str) -> None:
        """Probes use another session; the old one is still open."""

    def draining(self) -> None:
        """The server drains the session. Another one is opened before it is closed."""

    def closed(self, reason: str) -> None:
        """A session closed: `reason` is one of `session.CLOSE_REASONS`."""

    # Probes.

    def sent(self, seq: int, mode: Mode) -> None:
        """A probe was sent."""

    def not_sent(self, seq: int, mode: Mode, reason: str) -> None:
        """A probe could not be sent."""

    def unconnected(self, seq: int, mode: Mode) -> None:
        """A probe was due while there was no session."""

    def skipped(self, slots: int) -> None:
        """This process was stopped or stalled, and missed this number of slots."""

    def answered(self, answer: Answer, size: int, is_first: bool) -> None:
        """An answer of `size` bytes arrived; `is_first`: the first of its session and mode."""

    def duplicated(self, count: int) -> None:
        """The network duplicated this number of packets. QUIC discards duplicates."""

    def malformed(self, mode: Mode) -> None:
        """A message arrived that is no answer to a probe."""

    def unanswered(self, seq: int, *, final: bool) -> None:
        """A probe timed out. If `final`, its session has ended, so no late answer can arrive."""

    def lost(self, report: LossReport) -> None:
        """Probes are lost, or the direction of losses became known."""
