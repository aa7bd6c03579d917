"""The server: answers pings over WebTransport. `service` is where it begins."""

from __future__ import annotations


class ServeError(Exception):
    """The server cannot start; the text says in one line why, and what to do."""
