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
_issued = struct.Struct("!d")
_bound = struct.Struct("!HB")


class RetryTokens:
    """Makes and checks the tokens of Retry packets.

    A token is good for the address and port that it was sent to, with the connection id that
    the Retry packet named, and for a short time. It is encrypted and authenticated with `key`
    (32 bytes): whoever has the key can check it. Times are seconds of the machine's monotonic
    clock, which all its processes share.
    """

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def make(self, address: Address, original_id: bytes, retry_id: bytes, now: float) -> bytes:
        """A token for who sent its first packet to `original_id` and is told `retry_id`."""
        nonce = os.urandom(_NONCE_SIZE)
        content = _issued.pack(now) + original_id
        return nonce + self._aead.encrypt(nonce, content, _bound_to(address, retry_id))

    def validate(self, address: Address, retry_id: bytes, token: bytes, now: float) -> bytes:
        """The connection id that the client's first packet was for.

        Raises `ValueError` where the token is nobody's, another client's, or too old.
        """
        if len(token) < _NONCE_SIZE + _TAG_SIZE + _issued.size:
            raise ValueError("the token is too short")
        try:
            content = self._aead.decrypt(
                token[:_NONCE_SIZE], token[_NONCE_SIZE:], _bound_to(address, retry_id)
            )
        except InvalidTag:
            raise ValueError("the token is not of ours, or another client's") from None
        (issued,) = _issued.unpack_from(content)
        # Either way: what seems to be of the future was made before this machine was started.
        if abs(now - issued) > LIFETIME:
            raise ValueError("the token is too old")
        return content[_issued.size :]


def _bound_to(address: Address, retry_id: bytes) -> bytes:
    host, port = address[:2]
    packed = ipaddress.ip_address(host).packed
    return _bound.pack(port, len(packed)) + packed + retry_id
