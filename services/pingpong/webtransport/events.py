"""Values that are passed to handlers: requests, and how sessions and connections closed.

Data, streams and datagrams are plain calls of a handler (see `session`), not objects: they are the
hot path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import error_name
from .text import printable

Headers = Sequence[tuple[bytes, bytes]]
"""A field section: names in lower case, in wire order."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request of a session: the fields of the CONNECT (draft-16, section 3.2).

    `protocols` are the application protocols that the client offers, in order of preference; empty
    if it offers none or its list is malformed.
    """

    authority: str
    path: str
    origin: str | None = None
    protocols: tuple[str, ...] = ()
    headers: Headers = ()

    def header(self, name: str | bytes) -> bytes | None:
        """The first value of a field, or None; `name` is in lower case."""
        name = name.encode() if isinstance(name, str) else name
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """How a session closed.

    `code` and `reason` come from WT_CLOSE_SESSION; they are 0 and "" if a plain FIN closed it
    (draft-16, section 6). `code` is None if the session ended otherwise: then `error` says why in
    words, and `wire_code` is the HTTP/3 code, if there was one. `status` is the HTTP status of a
    session that was rejected.
    """

    code: int | None = None
    reason: str = ""
    by_peer: bool = True
    error: str = ""
    wire_code: int | None = None
    status: int | None = None

    @property
    def clean(self) -> bool:
        """Whether one side closed it; false after a failure."""
        return self.code is not None

    @classmethod
    def from_connection(cls, closed: ConnectionClosed) -> SessionClosed:
        """The close of a session whose connection closed."""
        if closed.timed_out:
            text = "the connection timed out: nothing was received from the peer"
        else:
            whose = "by the peer" if closed.by_peer else "by this side"
            text = f"the connection was closed {whose}: {closed.code_name}"
            if closed.reason:
                text = f"{text}, {printable(closed.reason)}"
        return cls(by_peer=closed.by_peer, error=text, wire_code=closed.code)

    def __str__(self) -> str:
        whose = "by the peer" if self.by_peer else "by this side"
        if self.code is None:
            return self.error or f"session ended {whose}"
        text = f"session closed {whose} with code {self.code}"
        return f"{text}: {printable(self.reason)}" if self.reason else text


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """How a connection closed.

    `code` is an HTTP/3 error code if `is_application`, otherwise a QUIC transport error code.
    `timed_out` is true if nothing was received from the peer for the idle timeout.
    """

    code: int
    reason: str = ""
    by_peer: bool = False
    is_application: bool = False
    timed_out: bool = False

    @property
    def code_name(self) -> str:
        """The name of the code, for display."""
        return error_name(self.code) if self.is_application else f"QUIC 0x{self.code:x}"
