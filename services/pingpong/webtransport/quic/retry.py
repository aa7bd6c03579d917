"""Tokens that prove that a client is where its packets say it is (RFC 9000, section 8.1.2)."""

from __future__ import annotations

import ipaddress
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .engine import Address

LIFETIME = 15.0
"""Seconds that a token is good for: a client sends it back at once (section 8.1.4)."""

_NONCE_SIZE = 12
_TAG_SIZE = 16
_head = struct.Struct("!dB")
_bound = struct.Struct("!HB")


class RetryTokens:
    """Makes and checks the tokens of Retry packets.

    A token is good for the address and port that it was sent to, with the connection id that
    the Retry packet named, and for a short time. It is encrypted and authenticated with `key`
    (32 bytes): every worker with the key can check it. What it is good for is part of its content,
    so that a token of ours in the wrong place differs from one that is not ours. Times are seconds
    of the machine's monotonic clock, which all its processes share.
    """

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def make(self, address: Address, original_id: bytes, retry_id: bytes, now: float) -> bytes:
        """A token for a client that used `original_id` first, and is to use `retry_id`."""
        nonce = os.urandom(_NONCE_SIZE)
        bound = _bound_to(address, retry_id)
        content = _head.pack(now, len(bound)) + bound + original_id
        return nonce + self._aead.encrypt(nonce, content, None)

    def validate(self, address: Address, retry_id: bytes, token: bytes, now: float) -> bytes | None:
        """The connection id that the client's first packet was for.

        None where the token is not from a Retry of ours: it validates nothing (RFC 9000, section
        8.1.3). Raises `ValueError` where it is, but is another client's or too old (section 8.1.2).
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
        # Either way: what seems to be of the future was made before this machine was started.
        if abs(now - issued) > LIFETIME:
            raise ValueError("the token is too old")
        return content[original_at:]


def _bound_to(address: Address, retry_id: bytes) -> bytes:
    host, port = address[:2]
    packed = ipaddress.ip_address(host).packed
    return _bound.pack(port, len(packed)) + packed + retry_id
