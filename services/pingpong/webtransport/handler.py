"""Who is told what happens: the base classes for users of connections and sessions.

Everything is told by a plain call in the turn in which the packet arrived, so that an
answer can leave in the same turn. What a handler raises is a fault of the handler: it
ends the connection with H3_INTERNAL_ERROR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ProtocolError, error_name
from .events import ConnectionClosed, SessionClosed
from .streams import SilentStreamHandler, Stream, StreamHandler
from .text import printable

if TYPE_CHECKING:
    from .connection import Connection
    from .session import Session


class SessionHandler:
    """What a session tells its user, by plain calls; each does nothing unless overridden."""

    __slots__ = ()

    def session_established(self, session: Session) -> None:
        """The server has accepted: streams and datagrams go both ways from now on."""

    def session_draining(self, session: Session) -> None:
        """The peer asks to finish and leave, by WT_DRAIN_SESSION or GOAWAY (section 4.6)."""

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """The session is over, and all its streams with it. Nothing is called after this.

        Those that had not ended are still in `session.streams`; they end right after.
        """

    def datagram_received(self, session: Session, data: bytes) -> None:
        """A datagram's payload."""

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """The peer has opened a stream; returns who is told what it brings.

        Unless overridden, the stream is refused with code 0.
        """
        stream.stop()
        stream.reset()
        return SilentStreamHandler()

    def credit_received(self, session: Session) -> None:
        """More streams may be opened now: ask `can_open_stream` again."""


class UnaskedHandler(SessionHandler):
    """Of a request, until the connection's handler is asked about it."""

    __slots__ = ()

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        """It came to nothing; not worth telling where the whole connection is gone."""
        if session.connection.closed is None:
            session.connection.handler.request_refused(session, closed)


class ConnectionHandler:
    """What a connection tells its user, by plain calls; each does nothing unless overridden."""

    __slots__ = ()

    def connection_ready(self, connection: Connection) -> None:
        """The peer's settings are here: a client knows its `draft` and may open sessions."""

    def session_requested(self, session: Session) -> None:
        """Server: decide with `accept` or `reject`, now or later."""
        session.reject(404)

    def request_refused(self, session: Session, closed: SessionClosed) -> None:
        """Server: a request ended that `session_requested` was not asked about.

        It was malformed or above a limit, and `closed` says how it was answered, or the client
        took it back (`closed.by_peer`).
        """

    def requests_over(self, connection: Connection) -> None:
        """No CONNECT stream is left: nothing of a session's close is on its way any more."""

    def connection_unused(self, connection: Connection) -> None:
        """Server: no session was asked for in time, and the connection is about to be closed."""

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """The peer broke the rules, and has been answered as the specification says."""

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        """The connection is gone, and its sessions have been told. The last call."""


def lost_with(closed: ConnectionClosed) -> SessionClosed:
    """How a session ended whose connection did."""
    if closed.timed_out:
        text = "the connection timed out: the peer was not heard any more"
    else:
        whose = "by the peer" if closed.by_peer else "by this side"
        name = error_name(closed.code) if closed.is_application else f"QUIC 0x{closed.code:x}"
        text = f"the connection was closed {whose}: {name}"
        if closed.reason:
            text = f"{text}, {printable(closed.reason)}"
    return SessionClosed(by_peer=closed.by_peer, error=text, wire_code=closed.code)
