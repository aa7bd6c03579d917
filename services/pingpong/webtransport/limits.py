"""What a peer may make this side keep: every number that bounds memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection. Sizes are bytes.

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
    early_streams: int = 32
    early_datagrams: int = 64
    early_bytes: int = 128 << 10
    """All that waits on a connection for sessions that are not there yet."""
