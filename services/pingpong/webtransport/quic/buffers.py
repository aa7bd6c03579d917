"""The limit of what all connections of an endpoint buffer together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from ..errors import ErrorCode
from .engine import EndpointCounters


class Buffering(Protocol):
    """A connection of an endpoint."""

    buffered_bytes: int
    """Bytes that were buffered at the last count."""

    def count_buffers(self) -> int:
        """Count the bytes that are buffered, here and above."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection."""


def limit_buffers(
    connections: Collection[Buffering], limit: int, counters: EndpointCounters
) -> int:
    """Count what connections buffer; above the limit, close those that buffer most.

    Returns the bytes that are buffered then.
    """
    buffered = sum(connection.count_buffers() for connection in connections)
    if buffered <= limit:
        return buffered
    # Free some more, or the next few bytes would count all connections again.
    enough = limit * 9 // 10
    while buffered > enough:
        largest = max(connections, key=lambda connection: connection.buffered_bytes)
        buffered -= largest.buffered_bytes
        largest.buffered_bytes = 0
        counters.buffers_exceeded += 1
        largest.close(ErrorCode.H3_EXCESSIVE_LOAD, "this connection buffers too much data")
    return buffered
