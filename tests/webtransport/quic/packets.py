"""QUIC packets with whatever frames a test wants, of a live connection or before one."""

from __future__ import annotations

import os
import struct

from aioquic import tls
from aioquic.quic.crypto import CryptoPair

from pingpong.webtransport import varint
from pingpong.webtransport.quic.aioquic import HookedConnection

VERSION = 1
INITIAL_SIZE = 1200


def numbers(*values: int) -> bytes:
    return b"".join(map(varint.encode, values))


def crypto_frame(offset: int, data: bytes) -> bytes:
    return numbers(0x06, offset, len(data)) + data


def stream_frame(stream_id: int, offset: int, data: bytes) -> bytes:
    return numbers(0x0E, stream_id, offset, len(data)) + data


def ack_frame(largest: int, first: int = 0, *ranges: tuple[int, int]) -> bytes:
    return numbers(0x02, largest, 0, len(ranges), first, *(n for pair in ranges for n in pair))


def packet(quic: HookedConnection, payload: bytes, number: int | None = None) -> bytes:
    """A 1-RTT packet of a connection, which takes its next number."""
    if number is None:
        number = quic._packet_number
        quic._packet_number += 1
    crypto = quic._cryptos[tls.Epoch.ONE_RTT]
    header = bytes((0x40 | crypto.key_phase << 2 | 1,)) + quic.peer_id.cid
    header += struct.pack("!H", number & 0xFFFF)
    return crypto.encrypt_packet(header, payload + bytes(max(0, 4 - len(payload))), number)


class Stranger:
    """A client that sends Initial packets of its own making."""

    def __init__(self, *, token: bytes = b"") -> None:
        self.destination = os.urandom(8)
        self.source = os.urandom(8)
        self.token = token
        self.keys = CryptoPair()
        self.keys.setup_initial(cid=self.destination, is_client=True, version=VERSION)
        self.number = 0

    def initial(self, payload: bytes, first: int = 0xC1) -> bytes:
        head = bytes((first,)) + struct.pack("!I", VERSION)
        for one in (self.destination, self.source):
            head += bytes((len(one),)) + one
        head += numbers(len(self.token)) + self.token
        room = INITIAL_SIZE - len(head) - 2 - 2 - self.keys.aead_tag_size
        payload += bytes(max(0, room - len(payload)))
        length = 2 + len(payload) + self.keys.aead_tag_size
        head += struct.pack("!HH", 0x4000 | length, self.number & 0xFFFF)
        self.number += 1
        return self.keys.encrypt_packet(head, payload, self.number - 1)
