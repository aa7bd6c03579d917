"""Who answers pings, and how long it took to get there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is pinged, and how: what one session's making has settled."""

    address: str
    """The IP address that the name led to."""
    mode: str
    """datagram, stream, streams or uni."""
    size: int
    """Of a message, in bytes."""
    protocol: str | None
    """The negotiated application protocol; None for plain ping-pong."""
    draft: str
    """The negotiated version of WebTransport, as in `draft-16`."""


@dataclass(frozen=True, slots=True)
class ConnectTimes:
    """How long each step of connecting took, in nanoseconds; None for a step that wasn't taken."""

    resolve_ns: int | None = None
    handshake_ns: int | None = None
    session_ns: int | None = None
