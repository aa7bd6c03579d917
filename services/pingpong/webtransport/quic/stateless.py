"""Packets that are sent without a connection, each made from the packet that it answers.

None is larger than that packet, so the server cannot be used for amplification attacks (RFC 9000,
section 8.1).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.connection import TRANSPORT_CLOSE_FRAME_CAPACITY
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
)
from aioquic.quic.packet_builder import QuicPacketBuilder

from .connection_ids import FIXED_BIT, RESET_TOKEN_SIZE

MIN_RESET_SIZE = 5 + RESET_TOKEN_SIZE
"""Bytes of the smallest stateless reset (section 10.3)."""
MAX_RESET_SIZE = 43
"""Bytes of the largest stateless reset that is sent."""

_RANDOM_BITS = 0x3F


class TokenBucket:
    """A token bucket of `rate` a second, with a burst of the same number."""

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: float) -> None:
        self._rate = self._left = rate
        self._since = 0.0

    def take(self, now: float) -> bool:
        """Take a token at `now`, in seconds; false if there is none."""
        # Packets that another worker forwarded may be a little older than the last one.
        passed = max(0.0, now - self._since)
        self._since += passed
        self._left = min(self._rate, self._left + passed * self._rate)
        if self._left < 1:
            return False
        self._left -= 1
        return True


def version_negotiation(header: QuicHeader, versions: Sequence[int]) -> bytes:
    """A Version Negotiation packet (section 6.1)."""
    return bytes(
        encode_quic_version_negotiation(
            source_cid=header.destination_cid,
            destination_cid=header.source_cid,
            supported_versions=list(versions),
        )
    )


def retry(header: QuicHeader, retry_id: bytes, token: bytes) -> bytes:
    """A Retry packet with a token and a new connection id (section 17.2.5)."""
    return bytes(
        encode_quic_retry(
            version=header.version or 0,
            source_cid=retry_id,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
    )


def connection_refused(header: QuicHeader, code: int) -> list[bytes]:
    """CONNECTION_CLOSE with `code`, in an Initial packet, for a connection that is not created."""
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=header.version or 0)
    builder = QuicPacketBuilder(
        host_cid=header.destination_cid,
        is_client=False,
        max_datagram_size=SMALLEST_MAX_DATAGRAM_SIZE,
        peer_cid=header.source_cid,
        version=header.version or 0,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    buffer = builder.start_frame(
        QuicFrameType.TRANSPORT_CLOSE, capacity=TRANSPORT_CLOSE_FRAME_CAPACITY
    )
    buffer.push_uint_var(code)
    buffer.push_uint_var(QuicFrameType.PADDING)
    buffer.push_uint_var(0)
    return list(builder.flush()[0])


def stateless_reset(size: int, token: bytes) -> bytes:
    """A stateless reset for a packet of `size` bytes of an unknown connection.

    It is smaller than that packet, which must be larger than `MIN_RESET_SIZE`. So two endpoints
    without state do not answer each other for ever (section 10.3.3).
    """
    noise = os.urandom(min(size - 1, MAX_RESET_SIZE) - RESET_TOKEN_SIZE)
    return bytes((noise[0] & _RANDOM_BITS | FIXED_BIT,)) + noise[1:] + token
