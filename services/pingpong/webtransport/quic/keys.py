"""Key updates of 1-RTT packets, and the usage limits of keys (RFC 9001, section 6).

aioquic updates keys only on request, and discards the old ones at once, so that packets in flight
are lost. It neither begins updates by itself, nor counts packets that fail authentication.
"""

from __future__ import annotations

import math

from aioquic.quic.crypto import (  # type: ignore[attr-defined]
    AEAD,
    SAMPLE_SIZE,
    CryptoContext,
    CryptoError,
    CryptoPair,
    KeyUnavailableError,
    apply_key_phase,
    next_key_phase,
)
from aioquic.quic.packet import QuicErrorCode, decode_packet_number
from aioquic.tls import CipherSuite
from cryptography.exceptions import InvalidTag

from .config import KeyLimits

_MAX_SENT = (1 << 23) - (1 << 16)
"""The confidentiality limit of AES-GCM (section 6.6), less one burst."""
_MAX_FAILED = 1 << 52
_MAX_FAILED_CHACHA20 = 1 << 36
"""Integrity limits: packets that may fail authentication. ChaCha20 has no confidentiality
limit."""
_NO_LIMIT = 1 << 62
"""The largest packet number (RFC 9000, section 12.3)."""
_PHASE_BIT = 4
_PROTECTED_BITS = 0x1F
"""Of the first byte of a short header (section 5.4.1)."""
_SAMPLE_AFTER = 4
"""Bytes from the beginning of the packet number to the sample for header protection (section
5.4.2)."""
_NONCE_SIZE = 12
_BYTES = tuple(bytes((value,)) for value in range(256))


class PacketKeys(CryptoPair):
    """aioquic's pair of keys, with timely updates and without packet loss.

    The old keys stay for packets that were reordered. Call `review` before packets are built, if
    the next packet number is at least `review_at`.
    """

    def __init__(self, limits: KeyLimits) -> None:
        super().__init__()
        self.review_at = limits.update_after
        self.wants_acknowledgement = False
        """Whether an update waits for an acknowledgement of a packet with the current keys."""
        self._limits = limits
        self._update_wanted = False
        self._failed = 0
        """Packets that failed authentication."""
        self._first_sent = 0
        """The first packet number that was sent with the current keys."""
        self._acknowledged_at: float | None = None
        """When the peer first acknowledged a packet with the current keys."""
        self._first_received: float = 0
        """The lowest packet number that was received with the current keys; infinite if none
        was."""
        self._previous: AEAD | None = None
        """Decrypts packets that the peer sent before the last update."""
        self._previous_until: float | None = None
        self._following: CryptoContext | None = None
        """The peer's next keys, derived once."""
        self._peer_updates = 0
        """Updates since the last review."""

    def decrypt_packet(
        self, packet: bytes, encrypted_offset: int, expected_packet_number: int
    ) -> tuple[bytes, bytes, int]:
        """Decrypt a packet. Raises `CryptoError` if it fails authentication."""
        keys = self.recv
        if keys.aead is None or keys.hp is None:
            raise KeyUnavailableError("Decryption key is not available")
        # Remove header protection (section 5.4); with fewer steps than aioquic.
        sample_at = encrypted_offset + _SAMPLE_AFTER
        if sample_at + SAMPLE_SIZE > len(packet):
            raise CryptoError("Packet is too short to sample")
        mask = keys.hp._mask(packet[sample_at : sample_at + SAMPLE_SIZE])
        first = packet[0] ^ (mask[0] & _PROTECTED_BITS)
        size = (first & 3) + 1
        payload_at = encrypted_offset + size
        number = int.from_bytes(packet[encrypted_offset:payload_at]) ^ int.from_bytes(
            mask[1 : 1 + size]
        )
        header = _BYTES[first] + packet[1:encrypted_offset] + number.to_bytes(size)
        number = decode_packet_number(number, size << 3, expected_packet_number)
        try:
            if bool(first & _PHASE_BIT) != keys.key_phase:
                return header, self._decrypt_other(packet, header, number), number
            nonce = (keys.aead._iv ^ number).to_bytes(_NONCE_SIZE)
            payload = keys.aead._aead.decrypt(nonce, packet[payload_at:], header)
        except (CryptoError, InvalidTag) as error:
            self._failed += 1
            if self._failed > self._max_failed:
                self.review_at = 0
            raise CryptoError(str(error)) from None
        if number < self._first_received:
            self._first_received = number
        return header, payload, number

    def encrypt_short(self, first: int, peer_id: bytes, number: int, payload: bytes) -> bytes:
        """Encrypt a 1-RTT packet with a packet number of 2 bytes.

        `first` is the first byte without the key phase, `peer_id` the destination connection id,
        and `payload` has at least 2 bytes.
        """
        keys = self.send
        if keys.aead is None or keys.hp is None:
            raise KeyUnavailableError("Encryption key is not available")
        first |= _PHASE_BIT if self.recv.key_phase else 0
        short = number & 0xFFFF
        nonce = (keys.aead._iv ^ number).to_bytes(_NONCE_SIZE)
        header = _BYTES[first] + peer_id + short.to_bytes(2)
        sealed = keys.aead._aead.encrypt(nonce, payload, header)
        mask = keys.hp._mask(sealed[_SAMPLE_AFTER - 2 : _SAMPLE_AFTER - 2 + SAMPLE_SIZE])
        first ^= mask[0] & _PROTECTED_BITS
        short ^= mask[1] << 8 | mask[2]
        return _BYTES[first] + peer_id + short.to_bytes(2) + sealed

    def update_key(self) -> None:
        """Update the keys as soon as it is allowed (section 6.1)."""
        self._update_wanted = True
        self.review_at = 0

    def teardown(self) -> None:
        """Forget all keys."""
        super().teardown()
        self._previous = self._following = None
        self.review_at = _NO_LIMIT

    def review(
        self, next_number: int, largest_acked: int, now: float, timeout: float, *, confirmed: bool
    ) -> QuicErrorCode | None:
        """Begin an update if it is due, and discard old keys. Returns an error that closes the
        connection.

        `next_number` is the next packet number, `timeout` is three times the probe timeout in
        seconds, and `confirmed` says whether the handshake is confirmed.
        """
        if self._failed > self._max_failed:
            return QuicErrorCode.AEAD_LIMIT_REACHED
        if self._peer_updates:
            # The peer updated again before we acknowledged its last update (section 6.2).
            if self._peer_updates > 1 or next_number == self._first_sent:
                return QuicErrorCode.KEY_UPDATE_ERROR
            self._peer_updates = 0
            self._begin_phase(next_number)
        if self._previous is not None and self._first_received != math.inf:
            if self._previous_until is None:
                self._previous_until = now + timeout
            elif now >= self._previous_until:
                self._previous = None
        sent = next_number - self._first_sent
        if sent >= self._max_sent:
            return QuicErrorCode.AEAD_LIMIT_REACHED
        due = self._update_wanted or sent >= self._limits.update_after
        if due and confirmed and self._may_update(largest_acked, now, timeout):
            self._advance()
            self._begin_phase(next_number)
            self._first_received = math.inf
            due = False
        if due or self._previous is not None:
            self.review_at = 0
        else:
            self.review_at = self._first_sent + self._limits.update_after
        return None

    # The rest.

    @property
    def _max_sent(self) -> int:
        if self._limits.max_sent is not None:
            return self._limits.max_sent
        return _NO_LIMIT if self._is_chacha20 else _MAX_SENT

    @property
    def _max_failed(self) -> int:
        if self._limits.max_failed is not None:
            return self._limits.max_failed
        return _MAX_FAILED_CHACHA20 if self._is_chacha20 else _MAX_FAILED

    @property
    def _is_chacha20(self) -> bool:
        return self.recv.cipher_suite is CipherSuite.CHACHA20_POLY1305_SHA256

    def _may_update(self, largest_acked: int, now: float, timeout: float) -> bool:
        """Whether the peer has the current keys, and had time to discard older ones."""
        if self._acknowledged_at is None:
            if largest_acked < self._first_sent:
                self.wants_acknowledgement = True
                return False
            self.wants_acknowledgement = False
            self._acknowledged_at = now
        return self._previous is None and now >= self._acknowledged_at + timeout

    def _begin_phase(self, next_number: int) -> None:
        self._first_sent = next_number
        self._acknowledged_at = None
        self._update_wanted = self.wants_acknowledgement = False

    def _decrypt_other(self, packet: bytes, header: bytes, number: int) -> bytes:
        """Decrypt a packet of the other key phase: either an old one, or the start of an
        update."""
        data = packet[len(header) :]
        if number < self._first_received:
            if self._previous is None:
                raise CryptoError("Decryption key is no longer available")
            return self._previous.decrypt(data, header, number)
        if self._following is None:
            self._following = next_key_phase(self.recv)
        assert self._following.aead is not None
        payload = self._following.aead.decrypt(data, header, number)
        self._advance()
        self._first_received = number
        self._peer_updates += 1
        self.review_at = 0
        return payload

    def _advance(self) -> None:
        """Switch to the next keys, in both directions."""
        self._previous = self.recv.aead
        self._previous_until = None
        following, self._following = self._following, None
        apply_key_phase(self.recv, following or next_key_phase(self.recv), "")
        apply_key_phase(self.send, next_key_phase(self.send), "")
