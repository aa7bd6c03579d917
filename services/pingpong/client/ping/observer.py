"""Who is told what becomes of a target's pings."""

from __future__ import annotations

from ...statistics import Outcome
from ..link.peer import Peer
from .results import Outage


class Observer:
    """Told what happens, by plain calls; each does nothing unless overridden."""

    def connected(self, peer: Peer) -> None:
        """The first session is established."""

    def recovered(self, peer: Peer, outage: Outage) -> None:
        """There is a session again."""

    def moved(self, peer: Peer) -> None:
        """Pings go through a new session, before the old one, which was to be left, is over."""

    def draining(self) -> None:
        """The server asks to leave: a new session is made beside this one."""

    def lost(self, cause: str, *, final: bool) -> None:
        """There is no session any more, and unless that is final another one is made."""

    def failed(self, cause: str) -> None:
        """An attempt to connect failed, and another one will be made."""

    def sent(self, seq: int) -> None:
        """A ping was sent."""

    def not_sent(self, seq: int, reason: str) -> None:
        """A ping could not be sent."""

    def unconnected(self, seq: int) -> None:
        """A ping's time came while there was no connection."""

    def answered(self, outcome: Outcome, size: int) -> None:
        """An answer of `size` bytes came."""

    def unanswered(self, seq: int, *, final: bool) -> None:
        """A ping's timeout passed; where that is final, no answer can come any more."""

    def skipped(self, slots: int) -> None:
        """The process was stopped, and so many slots of the schedule passed meanwhile."""
