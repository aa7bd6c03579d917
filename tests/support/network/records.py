"""The truth: what a link did to each packet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from .path import Verdict

_RECORD = struct.Struct("=IBBBBHHHxxQQQ")


class Direction(IntEnum):
    """Which way a packet goes."""

    OUT = 0
    """From the client to the server."""
    BACK = 1


class Record(NamedTuple):
    """What became of one packet, or of one copy of it."""

    number: int
    """In the order in which packets came to the link; a copy has its original's."""
    direction: Direction
    verdict: Verdict
    is_copy: bool
    protocol: int
    """IP's number of it."""
    size: int
    """Of the IP packet, in bytes."""
    source: int
    """The port it was sent from; of an ICMP echo its identifier."""
    destination: int
    """The port it was sent to; of an ICMP echo its sequence number."""
    received: int
    """When it came to the link: time.monotonic_ns()."""
    due: int
    """When it was to leave the link; `received` where it did not."""
    sent: int
    """When it left the link; 0 where it did not."""

    @property
    def delay(self) -> float:
        """Seconds on the link. Only of what was delivered."""
        assert self.verdict is Verdict.DELIVERED
        return (self.sent - self.received) / 1e9

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        return _RECORD.pack(
            self.number,
            self.direction,
            self.verdict,
            self.is_copy,
            self.protocol,
            self.size,
            self.source,
            self.destination,
            self.received,
            self.due,
            self.sent,
        )


def unpack(data: bytes) -> Iterator[Record]:
    """The records that were written one behind another."""
    for number, direction, verdict, is_copy, *rest in _RECORD.iter_unpack(data):
        yield Record(number, Direction(direction), Verdict(verdict), bool(is_copy), *rest)
