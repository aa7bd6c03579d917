"""What a peer has begun and has to complete, and by when.

A peer that stays silent, or sends a byte now and then, keeps what it has begun. So all of it
gets the same time from its first byte on, however many bytes come after: its SETTINGS, a
request, a stream's header, the session that a stream or a datagram names; and on a server the
session that a connection is for.
"""

from __future__ import annotations

from .errors import ConnectionProtocolError, ErrorCode, ProtocolError, StreamProtocolError
from .quic.engine import QuicConnection

SETTINGS = -1
"""The peer's SETTINGS. Other keys of `Deadlines` are stream ids, which are not negative."""
SESSION = -2
"""Server: a session, on a connection that has none."""
DATAGRAMS = -3
"""The sessions of buffered datagrams."""


class Deadlines:
    """The deadlines of what a connection waits for.

    `seconds` is the timeout of each. The earliest is `QuicConnection.deadline`, so a connection
    needs one timer. The peer's stream limits bound the number of deadlines.
    """

    __slots__ = ("_due", "_quic", "_seconds")

    def __init__(self, quic: QuicConnection, seconds: float) -> None:
        self._quic = quic
        self._seconds = seconds
        self._due: dict[int, float] = {}

    def begin(self, awaited: int, now: float | None = None, *, times: int = 1) -> None:
        """Start a deadline of `times` the usual timeout, unless it has been started.

        It counts from `now`, in seconds, or else from the arrival of the last packet.
        """
        if awaited not in self._due:
            quic = self._quic
            now = quic.arrival * 1e-9 if now is None else now
            self._due[awaited] = due = now + times * self._seconds
            if quic.deadline is None or due < quic.deadline:
                quic.deadline = due

    def end(self, awaited: int) -> None:
        """Cancel a deadline: what it is for is complete, or no longer expected."""
        due = self._due.pop(awaited, None)
        if due is not None and due == self._quic.deadline:
            self._arm()

    def clear(self) -> None:
        """Remove all deadlines."""
        self._due.clear()
        self._arm()

    def take_overdue(self, now: float) -> list[int]:
        """Remove and return the keys of the deadlines that have passed at `now`, in seconds."""
        overdue = [awaited for awaited, due in self._due.items() if due <= now]
        for awaited in overdue:
            del self._due[awaited]
        self._arm()
        return overdue

    def _arm(self) -> None:
        self._quic.deadline = min(self._due.values(), default=None)


def timeout_error(awaited: int, *, names_session: bool) -> ProtocolError:
    """The error for a deadline that passed, on the narrowest scope.

    An incomplete request has its own code (RFC 9114, section 8.1), and any bidirectional stream of
    a client could become one. A stream without a complete header, or whose session was not
    established, was buffered for too long (draft-16, section 4.5).
    """
    if awaited == SETTINGS:
        return ConnectionProtocolError(ErrorCode.H3_MISSING_SETTINGS, "no SETTINGS in time")
    if names_session:
        return StreamProtocolError(ErrorCode.WT_BUFFERED_STREAM_REJECTED, "no session in time")
    if not awaited & 3:
        return StreamProtocolError(ErrorCode.H3_REQUEST_INCOMPLETE, "no request in time")
    return StreamProtocolError(ErrorCode.WT_BUFFERED_STREAM_REJECTED, "no header in time")
