"""Limits on what is buffered for a peer, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection. Sizes are bytes, times seconds.

    The three `initial_*` are the initial flow control limits of each session, if both sides enable
    session flow control (draft-16, section 5). They are also the window sizes after that.
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
    """Bytes of all streams and datagrams that are buffered until their session is established."""
    header_timeout: float = 10.0
    """Seconds in which the peer has to complete its SETTINGS, a request, or a stream header.

    Streams and datagrams are buffered for their session for the same time. A server sends GOAWAY
    on a connection without a session after twice that time, and closes it after three times.
    """
