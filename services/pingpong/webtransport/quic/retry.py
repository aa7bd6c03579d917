"""Retry tokens, which validate a client's address (RFC 9000, section 8.1.2)."""

from __future__ import annotations

import ipaddress
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .engine import Address

LIFETIME = 15.0
"""Seconds for which a token is valid: a client sends it back at once (section 8.1.4)."""

_NONCE_SIZE = 12
_TAG_SIZE = 16
_head = struct.Struct("!dB")
_bound = struct.Struct("!HB")


class RetryTokens:
    """Creates and validates Retry tokens.

    A token is valid for one client address and port, for the connection id of the Retry packet,
    and for a short time. It is encrypted and authenticated with `key` (32 bytes), so all workers
    with that key can validate it. The address is part of the content, not of the key, so that a
    token of another client can be told from a forged one. Times are in seconds of the machine's
    monotonic clock, which all its processes share.
    """

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def make(self, address: Address, original_id: bytes, retry_id: bytes, now: float) -> bytes:
        """A token for a client whose first packet was for `original_id`; it has to use
        `retry_id`."""
        nonce = os.urandom(_NONCE_SIZE)
        bound = _bound_to(address, retry_id)
        content = _head.pack(now, len(bound)) + bound + original_id
        return nonce + self._aead.encrypt(nonce, content, None)

    def validate(self, address: Address, retry_id: bytes, token: bytes, now: float) -> bytes | None:
        """Validate a token. Returns the connection id of the client's first packet.

        Returns None if it is not a Retry token of ours (RFC 9000, section 8.1.3). Raises
        `ValueError` if it belongs to another client or is too old (section 8.1.2).
        """
        if len(token) < _NONCE_SIZE + _TAG_SIZE + _head.size:
            return None
        try:
            content = self._aead.decrypt(token[:_NONCE_SIZE], token[_NONCE_SIZE:], None)
        except InvalidTag:
            return None
        issued, size = _head.unpack_from(content)
        original_at = _head.size + size
        if content[_head.size : original_at] != _bound_to(address, retry_id):
            raise ValueError("the token is another client's")
        # Also if it seems to be of the future: then it was made before this machine rebooted.
        if abs(now - issued) > LIFETIME:
            raise ValueError("the token is too old")
        return content[original_at:]


def _bound_to(address: Address, retry_id: bytes) -> bytes:
    host, port = address[:2]
    packed = ipaddress.ip_address(host).packed
    return _bound.pack(port, len(packed)) + packed + retry_id
