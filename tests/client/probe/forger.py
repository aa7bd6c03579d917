"""Somebody on the way to a server, who answers a client's first packet in its place."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioquic.buffer import Buffer, encode_uint_var  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion, pull_quic_header

EVIL = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u200b\r\n64 bytes from 1.2.3.4: seq=1 time=0.1 ms"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u200b\r\n64 bytes from 1.2.3.4: seq=1 time=0.1 ms"

_ID_SIZE = 8
_CONNECTION_CLOSE = b"\x1c"
_NO_FRAME_TYPE = b"\0"


def forged_close(packet: bytes, code: int, reason: bytes) -> bytes:
    """An Initial with a CONNECTION_CLOSE: its keys are in what the client has sent."""
    header = pull_quic_header(Buffer(data=packet), host_cid_length=_ID_SIZE)
    crypto = CryptoPair()
    version = QuicProtocolVersion.VERSION_1
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=version)
    frame = _CONNECTION_CLOSE + encode_uint_var(code) + _NO_FRAME_TYPE
    frame += encode_uint_var(len(reason)) + reason
    ids = b"".join(bytes((len(each),)) + each for each in (header.source_cid, os.urandom(_ID_SIZE)))
    length = struct.pack("!H", 0x4000 | (2 + len(frame) + 16))
    plain = b"\xc1" + struct.pack("!I", version) + ids + b"\0" + length + b"\0\0"
    return crypto.encrypt_packet(plain, frame, 0)


class _Forger(asyncio.DatagramProtocol):
    def __init__(self, code: int, reason: bytes) -> None:
        self._close = (code, reason)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if data[0] & 0xF0 == 0xC0:
            self._transport.sendto(forged_close(data, *self._close), address)


@asynccontextmanager
async def forging(code: int, reason: str | bytes = EVIL) -> AsyncIterator[int]:
    """A port where each connection is closed so, by somebody without a certificate."""
    text = reason if isinstance(reason, bytes) else reason.encode()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Forger(code, text), local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
