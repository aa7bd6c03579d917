"""Facts that the core hands to its caller: frozen, and complete when they are made.

Data, streams and datagrams are not events but plain calls on a handler (see `session`):
they are the hot path, and an object for each would cost more than what it carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import error_name
from .text import printable

Headers = Sequence[tuple[bytes, bytes]]
"""A field section: names in lower case, in the order of the wire."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a session, as the CONNECT's field section says (draft-16, section 3.2).

    `protocols` are the application protocols that the client offers, the most wanted
    first; empty where it offers none, or where its list was malformed.
    """

    authority: str
    path: str
    origin: str | None = None
    protocols: tuple[str, ...] = ()
    headers: Headers = ()

    def header(self, name: bytes) -> bytes | None:
        """The first value of a field, None where it is not there."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """How a session ended.

    `code` and `reason` come from WT_CLOSE_SESSION (0 and "" where a plain FIN ended it,
    draft-16, section 6). `code` is None where the session ended without either:
    `error` then says why, for people, and `wire_code` is the HTTP/3 code, if there was
    one. `status` is the HTTP status of a session that was refused.
    """

    code: int | None = None
    reason: str = ""
    by_peer: bool = True
    error: str = ""
    wire_code: int | None = None
    status: int | None = None

    @property
    def clean(self) -> bool:
        """Whether a side closed it on purpose; false after a failure."""
        return self.code is not None

    @classmethod
    def from_connection(cls, closed: ConnectionClosed) -> SessionClosed:
        """How a session ended whose connection did."""
        if closed.timed_out:
            text = "the connection timed out: the peer was not heard any more"
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
    """How a connection ended.

    `code` is a QUIC transport error code, or an HTTP/3 one where `is_application`.
    `timed_out` is true where neither side closed it: the peer was not heard for the idle time.
    """

    code: int
    reason: str = ""
    by_peer: bool = False
    is_application: bool = False
    timed_out: bool = False

    @property
    def code_name(self) -> str:
        """The code for people."""
        return error_name(self.code) if self.is_application else f"QUIC 0x{self.code:x}"
