"""Whether the other side is still there: what every session of a client goes by."""

from __future__ import annotations

IDLE_TIMEOUT = 15.0
"""Seconds that this side waits for any word of the server; its own timeout may be shorter."""
KEEP_ALIVES = 3
"""Packets that the server is sent in the time after which either side gives up, at least."""

_GONE_AFTER = 0.5
"""Seconds through which a "connection refused" must come back before it is believed."""


class Refusals:
    """The "connection refused"s of a socket, which say that nobody listens any more.

    They can be forged, but then the server answers in between, and nothing is sent again. Times
    are seconds of one clock.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: float | None = None

    @property
    def doubtful(self) -> bool:
        """Whether one came since the last answer."""
        return self._since is not None

    def answered(self) -> None:
        """The server answers: what was said before was not so."""
        self._since = None

    def refused(self, now: float) -> bool:
        """Another one came. Returns whether it is to be believed."""
        if self._since is None:
            self._since = now
            return False
        return now - self._since >= _GONE_AFTER
