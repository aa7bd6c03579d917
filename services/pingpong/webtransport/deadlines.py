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
"""The peer's SETTINGS; other keys of `Deadlines` are ids of streams, which are not negative."""
SESSION = -2
"""Server: a session, of a connection that has none."""
DATAGRAMS = -3
"""The sessions of datagrams that came early."""


class Deadlines:
    """By when what a connection waits for has to be complete.

    `seconds` is how long each may take. The first deadline is the engine's, as
    `QuicConnection.deadline`: a timer a connection. A peer's stream limits bound how many there
    are.
    """

    __slots__ = ("_due", "_quic", "_seconds")

    def __init__(self, quic: QuicConnection, seconds: float) -> None:
        self._quic = quic
        self._seconds = seconds
        self._due: dict[int, float] = {}

    def begin(self, awaited: int, now: float | None = None, *, times: int = 1) -> None:
        """Set a deadline, `times` as far away as usual; a deadline that is set stays as it is.

        It counts from `now`, in seconds, or else from the arrival of the last packet.
        """
        if awaited not in self._due:
            now = self._quic.arrival * 1e-9 if now is None else now
            self._due[awaited] = now + times * self._seconds
            self._arm()

    def end(self, awaited: int) -> None:
        """Remove a deadline: what it was for is complete, or not expected any longer."""
        if self._due and self._due.pop(awaited, None) is not None:
            self._arm()

    def clear(self) -> None:
        """Remove all deadlines."""
        self._due.clear()
        self._arm()

    def take_overdue(self, now: float) -> list[int]:
        """Remove and return what is not complete at `now`, in seconds."""
        overdue = [awaited for awaited, due in self._due.items() if due <= now]
        for awaited in overdue:
            del self._due[awaited]
        self._arm()
        return overdue

    def _arm(self) -> None:
        self._quic.deadline = min(self._due.values(), default=None)


def timeout_error(awaited: int, *, names_session: bool) -> ProtocolError:
    """The error of a peer that has left something incomplete, on the narrowest scope.

    A request has a code of its own (RFC 9114, section 8.1), and any stream of a client's that is
    bidirectional might have become one; a stream that names a session which does not come, or has
    no complete header, was buffered for too long (draft-16, section 4.5).
    """
    if awaited == SETTINGS:
        return ConnectionProtocolError(ErrorCode.H3_MISSING_SETTINGS, "no SETTINGS in time")
    if names_session:
        return StreamProtocolError(ErrorCode.WT_BUFFERED_STREAM_REJECTED, "no session in time")
    if not awaited & 3:
        return StreamProtocolError(ErrorCode.H3_REQUEST_INCOMPLETE, "no request in time")
    return StreamProtocolError(ErrorCode.WT_BUFFERED_STREAM_REJECTED, "no header in time")
