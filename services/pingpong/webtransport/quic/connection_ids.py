"""Connection ids that say where they lead, and the keys that several processes share.

Several workers on one UDP port each have connections of their own. A packet is to reach the
worker that has its connection, whatever address it comes from: so the first byte of every
connection id that a worker gives out is congruent to its number, modulo their count, and the
kernel, or the worker that gets the packet first, looks at that byte alone. The id that a client makes up
for its first packets is random, and chooses a worker by the same rule: those packets stay
together too.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import Self

CONNECTION_ID_SIZE = 8
"""Bytes of the connection ids that are given out here."""
RESET_TOKEN_SIZE = 16
"""Bytes of a stateless reset token (RFC 9000, section 10.3)."""
MAX_WORKERS = 64
"""Above it, chance would give some workers many more first packets than others."""

LONG_HEADER = 0x80
"""This bit of a packet's first byte is set in a long header (RFC 8999, section 5.1)."""
FIXED_BIT = 0x40
"""This one is set in all packets of the versions of QUIC that there are."""
LONG_ID_AT = 6
"""Where the destination connection id begins in a long header, of any version of QUIC."""
SHORT_ID_AT = 1
"""Where it begins in a short header."""

_KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """What workers of one port, and those that take their place, have to agree on.

    With the same keys, a Retry token that one has made is good for another, and a stateless
    reset ends the connections of a predecessor that is no more.
    """

    retry: bytes = field(default_factory=lambda: os.urandom(_KEY_SIZE), repr=False)
    reset: bytes = field(default_factory=lambda: os.urandom(_KEY_SIZE), repr=False)

    @classmethod
    def derive(cls, secret: bytes, context: str) -> Self:
        """Keys that a process which is started again comes to as well.

        `context` has to distinguish all servers that share the secret, such as pods with one
        certificate: what one of them resets could be alive at another (RFC 9000, section
        21.11).
        """

        def key(purpose: str) -> bytes:
            return hmac.digest(secret, f"pingpong {purpose}\0{context}".encode(), "sha256")

        return cls(retry=key("retry"), reset=key("stateless reset"))


def worker_of(packet: bytes, workers: int) -> int:
    """The number of the worker that a packet is for; 0 where it is too short to say.

    The kernel's filter (see `udp.steering`) comes to the same result.
    """
    at = LONG_ID_AT if packet and packet[0] & LONG_HEADER else SHORT_ID_AT
    return packet[at] % workers if len(packet) > at else 0


class ConnectionIds:
    """Makes connection ids that lead to one of several workers, and their reset tokens.

    Raises `ValueError` where there is no such worker.
    """

    __slots__ = ("_reset_key", "_worker", "_workers")

    def __init__(self, reset_key: bytes, worker: int = 0, workers: int = 1) -> None:
        if not 0 <= worker < workers <= MAX_WORKERS:
            raise ValueError(f"no worker {worker} of {workers}, {MAX_WORKERS} at most")
        self._reset_key = reset_key
        self._worker = worker
        self._workers = workers

    def make(self) -> bytes:
        """A new connection id, unpredictable but for where it leads."""
        connection_id = os.urandom(CONNECTION_ID_SIZE)
        if self._workers == 1:
            return connection_id
        first = connection_id[0] - connection_id[0] % self._workers + self._worker
        if first > 0xFF:
            first -= self._workers
        return bytes((first,)) + connection_id[1:]

    def reset_token(self, connection_id: bytes) -> bytes:
        """The token that resets the connection of this id (RFC 9000, section 10.3.2)."""
        return hmac.digest(self._reset_key, connection_id, "sha256")[:RESET_TOKEN_SIZE]
