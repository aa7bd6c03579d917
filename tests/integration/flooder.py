"""Sends a server what nobody means well with: `python -m tests.integration.flooder --help`.

All packets are made before the first is sent, so that sending them takes next to no time. Each
leaves from a loopback address and port of its own, as where senders make up who they are.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable
from itertools import cycle

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import pull_quic_header

from pingpong.webtransport.udp.sources import IP_PKTINFO

_SOCKETS = 64
_BURST = 0.01
"""Seconds between two bursts."""
_ID = slice(6, 14)
"""Where the destination connection id of an Initial is that has eight bytes."""
_VERSION_1 = b"\x00\x00\x00\x01"


def handshakes(count: int) -> Iterable[bytes]:
    """First packets of so many clients, each valid, with a ClientHello."""
    configuration = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost")
    client = QuicConnection(configuration=configuration)
    client.connect(("127.0.0.1", 1), now=0)
    ((datagram, _),) = client.datagrams_to_send(now=0)
    buffer = Buffer(data=datagram)
    header = pull_quic_header(buffer, host_cid_length=8)
    version = header.version or 0
    keys = CryptoPair()
    keys.setup_initial(header.destination_cid, is_client=False, version=version)
    packet, padding = datagram[: header.packet_length], datagram[header.packet_length :]
    plain_header, payload, number = keys.decrypt_packet(packet, buffer.tell(), 0)
    assert plain_header[_ID] == header.destination_cid
    for _ in range(count):
        connection_id = os.urandom(8)
        keys = CryptoPair()
        keys.setup_initial(connection_id, is_client=True, version=version)
        own_header = plain_header[: _ID.start] + connection_id + plain_header[_ID.stop :]
        yield keys.encrypt_packet(own_header, payload, number) + padding


def _noise() -> bytes:
    """Too short a packet for anything, or one that is not even QUIC's."""
    if random.random() < 0.5:
        return os.urandom(random.randrange(1, 20))
    return bytes((random.randrange(0x40),)) + os.urandom(random.randrange(100, 1200))


def _short_header() -> bytes:
    """As of a connection that the server has forgotten."""
    return bytes((0x40 | random.randrange(0x40),)) + os.urandom(random.randrange(40, 1200))


def _small_initial() -> bytes:
    """A first packet that is smaller than it must be, and so would be made more of."""
    return b"\xc0" + _VERSION_1 + b"\x08" + os.urandom(8) + b"\x00" + os.urandom(500)


def _other_version() -> bytes:
    """A first packet of a version that nobody knows."""
    return b"\xc0\x1a\x2a\x3a\x4a\x08" + os.urandom(8) + b"\x00" + os.urandom(1186)


def _handshake_of_nobody() -> bytes:
    """A later packet of a handshake that never began."""
    return b"\xe0" + _VERSION_1 + b"\x08" + os.urandom(8) + b"\x00\x44\x90" + os.urandom(1200)


GARBAGE: tuple[Callable[[], bytes], ...] = (
    _noise,
    _short_header,
    _small_initial,
    _other_version,
    _handshake_of_nobody,
)


def garbage(count: int) -> Iterable[bytes]:
    """As many of each kind."""
    return (kind() for kind, _ in zip(cycle(GARBAGE), range(count), strict=False))


KINDS = {"handshakes": handshakes, "garbage": garbage}


def send(packets: list[bytes], host: str, port: int, seconds: float) -> None:
    """Send them evenly over so many seconds."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(_SOCKETS)]
    for sock in sockets:
        sock.bind(("0.0.0.0", 0))
    began = time.monotonic()
    per_second = len(packets) / seconds
    for number, packet in enumerate(packets):
        if (early := began + number / per_second - time.monotonic()) > _BURST:
            time.sleep(early)
        # struct in_pktinfo: which interface, and the address of this machine to send from.
        source = struct.pack("!I", 0x7F000002 + (number * 7919) % 0xFFFF00)
        info = struct.pack("@i", 0) + source + bytes(4)
        control = [(socket.IPPROTO_IP, IP_PKTINFO, info)]
        sockets[number % _SOCKETS].sendmsg([packet], control, 0, (host, port))
    for sock in sockets:
        sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    packets = list(KINDS[arguments.kind](arguments.count))
    print("sending", flush=True)
    send(packets, arguments.host, arguments.port, arguments.seconds)
    print("sent", flush=True)


if __name__ == "__main__":
    main()
