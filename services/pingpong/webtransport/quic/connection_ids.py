"""Connection ids that encode the worker, and the keys that several workers share.

Several workers share a UDP port, each with its own connections. A packet must reach the worker of
its connection, even if the client's address changes. So the first byte of each connection id of a
worker, modulo the number of workers, is the worker's index. The kernel, or the worker that gets
the packet, needs only that byte. The random id of a client's first packets selects a worker in the
same way, so these packets go to one worker too.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

CONNECTION_ID_SIZE = 8
"""Bytes of our connection ids."""
RESET_TOKEN_SIZE = 16
"""Bytes of a stateless reset token (RFC 9000, section 10.3)."""
MAX_WORKERS = 64
"""With more workers, new connections would be distributed unevenly."""

LONG_HEADER = 0x80
"""The bit of the first byte that is set in a long header (RFC 8999, section 5.1)."""
FIXED_BIT = 0x40
"""The bit that is set in all packets of QUIC versions 1 and 2."""
LONG_ID_AT = 6
"""Offset of the destination connection id in a long header, in any version of QUIC."""
SHORT_ID_AT = 1
"""Offset of the destination connection id in a short header."""

_KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """Keys that the workers of a port share, with their replacements.

    With the same keys a worker accepts the Retry tokens of another, and its stateless resets end
    the connections of its predecessor.
    """

    retry: bytes = field(default_factory=lambda: os.urandom(_KEY_SIZE), repr=False)
    reset: bytes = field(default_factory=lambda: os.urandom(_KEY_SIZE), repr=False)

    @classmethod
    def derive(cls, secret: bytes, context: str) -> Self:
        """Derive keys, so that a restarted process gets the same ones.

        `context` must differ between servers that share the secret, such as pods with one
        certificate: otherwise one could reset the connections of another (RFC 9000, section
        21.11).
        """

        def key(purpose: str) -> bytes:
            return hmac.digest(secret, f"pingpong {purpose}\0{context}".encode(), "sha256")

        return cls(retry=key("retry"), reset=key("stateless reset"))


def worker_of(packet: bytes, workers: int) -> int:
    """The index of the worker that a packet is for; 0 if the packet is too short.

    The kernel's filter (see `udp.steering`) computes the same.
    """
    at = LONG_ID_AT if packet and packet[0] & LONG_HEADER else SHORT_ID_AT
    return packet[at] % workers if len(packet) > at else 0


class ConnectionIds:
    """Generates connection ids of one of several workers, and their reset tokens.

    Raises `ValueError` if there is no such worker.
    """

    __slots__ = ("_reset_hash", "_worker", "_workers")

    def __init__(self, reset_key: bytes, worker: int = 0, workers: int = 1) -> None:
        if not 0 <= worker < workers <= MAX_WORKERS:
            raise ValueError(f"no worker {worker} of {workers}, {MAX_WORKERS} at most")
        self._reset_hash = HMAC(reset_key, SHA256())
        self._worker = worker
        self._workers = workers

    def make(self) -> bytes:
        """A new random connection id of this worker."""
        connection_id = os.urandom(CONNECTION_ID_SIZE)
        if self._workers == 1:
            return connection_id
        first = connection_id[0] - connection_id[0] % self._workers + self._worker
        if first > 0xFF:
            first -= self._workers
        return bytes((first,)) + connection_id[1:]

    def reset_token(self, connection_id: bytes) -> bytes:
        """The token that resets the connection of this id (RFC 9000, section 10.3.2)."""
        # A copy costs a third of a new hash.
        token = self._reset_hash.copy()
        token.update(connection_id)
        return token.finalize()[:RESET_TOKEN_SIZE]
