"""A session's life as a table (draft-16, sections 3.2 to 6).

    client   EXPECTED ── request ──────────────────> REQUESTED ── 2xx ──────> ESTABLISHED
    server   EXPECTED ── request ──> PENDING ──────> REQUESTED ── accept() ─> ESTABLISHED
    both     any state ── reject(), another status, close(), capsule, FIN, reset, error,
                          STOP_SENDING, lost connection ──> CLOSED

`session` looks up each event in the table and then acts on it. An event that a state does not
allow is an error: of the user a `StateError`, of the peer a `ProtocolError` with a wire code.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from .errors import (
    ConnectionProtocolError,
    ErrorCode,
    ProtocolError,
    StateError,
    StreamProtocolError,
)


class State(Enum):
    """The state of a session."""

    __hash__ = object.__hash__  # Members are singletons; Enum's own hash costs a call.

    EXPECTED = "expected"
    """The CONNECT stream is open, its request is not complete."""
    PENDING = "pending"
    """Server: the request waits for the client's SETTINGS (section 7.1)."""
    REQUESTED = "requested"
    """The request waits for the server's answer."""
    ESTABLISHED = "established"
    """Datagrams and streams can be sent both ways."""
    CLOSED = "closed"


class Event(Enum):
    """An event of a session. The values of the user's events are used in error texts."""

    __hash__ = object.__hash__

    # From the user.
    SEND_REQUEST = "be requested"
    ACCEPT = "be accepted"
    REJECT = "be rejected"
    SEND_DATAGRAM = "send a datagram"
    OPEN_STREAM = "open a stream"
    # From the peer, on the CONNECT stream.
    HEADERS = "HEADERS"
    DATA = "DATA"
    FIN = "FIN"
    # Derived from these.
    SETTINGS = "the client's SETTINGS arrived"
    ACCEPTED = "status 2xx"
    END = "the session closes: close(), another status, a reset, an error"


_PEERS: Mapping[Event, tuple[type[ProtocolError], ErrorCode]] = {
    Event.HEADERS: (ConnectionProtocolError, ErrorCode.H3_FRAME_UNEXPECTED),
    Event.DATA: (ConnectionProtocolError, ErrorCode.H3_FRAME_UNEXPECTED),
    Event.FIN: (StreamProtocolError, ErrorCode.H3_REQUEST_INCOMPLETE),
}

Table = Mapping[State, Mapping[Event, State]]

_BOTH = {
    State.ESTABLISHED: {
        Event.SEND_DATAGRAM: State.ESTABLISHED,
        Event.OPEN_STREAM: State.ESTABLISHED,
        Event.DATA: State.ESTABLISHED,
        Event.FIN: State.CLOSED,
        Event.END: State.CLOSED,
    },
    State.CLOSED: {
        # Data that was in flight when the session closed is ignored.
        Event.HEADERS: State.CLOSED,
        Event.DATA: State.CLOSED,
        Event.FIN: State.CLOSED,
        Event.END: State.CLOSED,
    },
}

CLIENT: Table = MappingProxyType(
    {
        State.EXPECTED: {
            Event.SEND_REQUEST: State.REQUESTED,
            Event.END: State.CLOSED,
        },
        State.REQUESTED: {
            # Until the status is parsed.
            Event.HEADERS: State.REQUESTED,
            Event.ACCEPTED: State.ESTABLISHED,
            Event.FIN: State.CLOSED,
            Event.END: State.CLOSED,
        },
        **_BOTH,
    }
)

SERVER: Table = MappingProxyType(
    {
        State.EXPECTED: {
            Event.HEADERS: State.PENDING,
            Event.END: State.CLOSED,
        },
        State.PENDING: {
            Event.SETTINGS: State.REQUESTED,
            # Buffered until the session is accepted (section 3.2).
            Event.DATA: State.PENDING,
            # Applies once the request was processed.
            Event.FIN: State.PENDING,
            Event.END: State.CLOSED,
        },
        State.REQUESTED: {
            Event.ACCEPT: State.ESTABLISHED,
            Event.REJECT: State.CLOSED,
            Event.DATA: State.REQUESTED,
            Event.FIN: State.CLOSED,
            Event.END: State.CLOSED,
        },
        **_BOTH,
    }
)

STOP_CODES: Mapping[State, ErrorCode] = MappingProxyType(
    {
        # A server may answer without reading the rest of the request (RFC 9114, section 4.1).
        State.PENDING: ErrorCode.H3_NO_ERROR,
        State.REQUESTED: ErrorCode.H3_NO_ERROR,
        # The peer closed the session, and STOP_SENDING arrived before its WT_CLOSE_SESSION.
        State.ESTABLISHED: ErrorCode.WT_SESSION_GONE,
    }
)
"""The STOP_SENDING codes on the CONNECT stream that do not close the session (yet)."""


def not_allowed(state: State, event: Event) -> StateError | ProtocolError:
    """The error for an event that a state does not allow."""
    if event not in _PEERS:
        return StateError(f"a session that is {state.value} cannot {event.value}")
    error, code = _PEERS[event]
    return error(code, f"{event.value} on the CONNECT stream of a session that is {state.value}")


def after(table: Table, state: State, event: Event) -> State:
    """The next state. Raises the error of `not_allowed` if the state does not allow the event."""
    following = table[state].get(event)
    if following is None:
        raise not_allowed(state, event)
    return following
