"""A session's life as a table (draft-16, sections 3.2 to 6).

    client   EXPECTED ── request ──────────────────> REQUESTED ── 2xx ──────> ESTABLISHED
    server   EXPECTED ── request ──> PENDING ──────> REQUESTED ── accept() ─> ESTABLISHED
    both     any state ── reject(), another status, close(), capsule, FIN, reset, error,
                          STOP_SENDING, lost connection ──> CLOSED

`session` asks the table what may happen and what follows; what to do about an event is its
own, and depends on the state too. An event that has no place in a state is an error, made
here: the user's is a `StateError`, the peer's has a wire code.
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
    """Where a session stands."""

    __hash__ = object.__hash__  # Members are singletons; Enum's own hash costs a call.

    EXPECTED = "expected"
    """The CONNECT stream has begun, its request is not complete."""
    PENDING = "pending"
    """Server: the request waits for the client's settings (section 7.1)."""
    REQUESTED = "requested"
    """The request waits for the server's answer."""
    ESTABLISHED = "established"
    """Datagrams and streams go both ways."""
    CLOSED = "closed"


class Event(Enum):
    """What happens to a session; of the user's events the value says what cannot be done."""

    __hash__ = object.__hash__

    # The user's.
    SEND_REQUEST = "be requested"
    ACCEPT = "be accepted"
    REJECT = "be rejected"
    SEND_DATAGRAM = "send a datagram"
    OPEN_STREAM = "open a stream"
    # The peer's, on the CONNECT stream.
    HEADERS = "HEADERS"
    DATA = "DATA"
    FIN = "FIN"
    # What they mean.
    SETTINGS = "the client's settings are here"
    ACCEPTED = "status 2xx"
    END = "whatever ends a session early: close(), another status, a reset, an error"


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
        # What was on its way when the session ended means nothing any more.
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
            # Until its status says more.
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
            # Kept until the session is accepted (section 3.2).
            Event.DATA: State.PENDING,
            # It counts once the request is decided.
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
        # A server may have no use for the rest of a request beside its answer (RFC 9114, 4.1).
        State.PENDING: ErrorCode.H3_NO_ERROR,
        State.REQUESTED: ErrorCode.H3_NO_ERROR,
        # The peer has closed the session, and may have overtaken its capsule that says how.
        State.ESTABLISHED: ErrorCode.WT_SESSION_GONE,
    }
)
"""With what code STOP_SENDING on the CONNECT stream is not, or not yet, the session's end."""


def not_allowed(state: State, event: Event) -> StateError | ProtocolError:
    """The error of an event that has no place in a state."""
    if event not in _PEERS:
        return StateError(f"a session that is {state.value} cannot {event.value}")
    error, code = _PEERS[event]
    return error(code, f"{event.value} on the CONNECT stream of a session that is {state.value}")


def after(table: Table, state: State, event: Event) -> State:
    """The state that follows. Raises what `not_allowed` gives where none does."""
    following = table[state].get(event)
    if following is None:
        raise not_allowed(state, event)
    return following
