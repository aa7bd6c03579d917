"""What a peer may make this side keep, and for how long: every number that bounds memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection. Sizes are bytes, times seconds.

    The three `initial_*` are what each session is granted at its start, where both
    sides turn session flow control on (draft-16, section 5); the same numbers are the
    windows that are kept open afterwards.
    """

    max_sessions: int = 16
    initial_max_data: int = 1 << 20
    initial_max_streams_bidi: int = 128
    initial_max_streams_uni: int = 128
    max_field_section: int = 16 << 10
    max_settings: int = 4 << 10
    max_buffered_streams: int = 32
    max_buffered_datagrams: int = 64
    max_buffered_bytes: int = 128 << 10
    """All that waits on a connection for sessions that are not there yet."""
    header_timeout: float = 10.0
    """How long the peer may take over its SETTINGS, over a request, or over a stream's header.

    Just as long a stream or a datagram may wait for its session. A server's connection without a
    session is asked to leave (GOAWAY) after twice, and closed after three times as long.
    """
