"""What shows what becomes of a target's pings."""

from __future__ import annotations

from ...link import Observer, Peer
from .results import ShownOutage


class Display(Observer):
    """Shows what happens, as it happens; each call does nothing unless overridden.

    `connected` is the first session only; `moved` is called where the target was not down.
    """

    def recovered(self, peer: Peer, outage: ShownOutage) -> None:
        """The target answers again."""

    def failed(self, cause: str) -> None:
        """An attempt to connect to a target that is down failed, and another one will be made."""
