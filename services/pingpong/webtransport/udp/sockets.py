"""UDP sockets as QUIC wants them: bound, unfragmented, with room, and what they can carry."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple

# Linux's names (asm-generic/socket.h, linux/udp.h, linux/in.h, linux/in6.h) that the socket
# module doesn't have in all supported versions.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SO_RXQ_OVFL = 40
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
IPV6_DONTFRAG = 62
PMTUDISC_PROBE = 3

MAX_SEGMENTS = 64
MAX_GROUP_BYTES = 65_507  # a UDP payload over IPv4

_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})


class BufferSize(NamedTuple):
    """A socket buffer's size in bytes: what was asked for, and what the kernel gave."""

    asked: int
    got: int


def group_segments(packets: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Cut `packets` into runs that one sendmsg with UDP_SEGMENT can carry.

    All packets of a run have one size, but for the last, which may be shorter; a run has at most
    64 packets and 65,507 bytes. The order is kept. An empty packet is a run of its own, as
    segmentation would lose it.
    """
    groups: list[Sequence[bytes]] = []
    start = size = total = 0
    closed = True
    for index, packet in enumerate(packets):
        length = len(packet)
        full = index - start == MAX_SEGMENTS or total + length > MAX_GROUP_BYTES
        if closed or full or length > size or length == 0:
            if index:
                groups.append(packets[start:index])
            start, size, total = index, length, 0
        total += length
        closed = length < size or length == 0
    if packets:
        groups.append(packets[start:])
    return groups


def bind_udp(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A non-blocking UDP socket bound to `host` and `port` (0: any).

    `::` (or the empty string) takes IPv4 as well, and becomes `0.0.0.0` on a machine without
    IPv6. With `reuse_port` several sockets may share the port.

    Raises OSError when the address can't be had, socket.gaierror when `host` has no address.
    """
    try:
        return _bind(host or "::", port, reuse_port)
    except OSError as exc:
        if host not in ("", "::") or exc.errno not in _NO_IPV6:
            raise
        return _bind("0.0.0.0", port, reuse_port)


def _bind(host: str, port: int, reuse_port: bool) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def try_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option of Linux's; whether it was taken."""
    if not sys.platform.startswith("linux"):
        return False  # the numbers mean something else there
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def enlarge(sock: socket.socket, option: int, force: int, asked: int) -> BufferSize:
    """Make a buffer at least `asked` bytes large, by `force` where that is permitted."""
    # Linux reports twice the size, as it counts its own bookkeeping.
    factor = 2 if sys.platform.startswith("linux") else 1
    if sock.getsockopt(socket.SOL_SOCKET, option) < asked * factor and not try_option(
        sock, socket.SOL_SOCKET, force, asked
    ):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, asked)
    return BufferSize(asked, sock.getsockopt(socket.SOL_SOCKET, option) // factor)


def disconnect(sock: socket.socket) -> None:
    """Undo a UDP socket's connect, its choice of a source address included. Raises OSError."""
    # connect(2): an address of the family AF_UNSPEC does that; socket.connect can't name one.
    unspecified = bytes(128)
    if ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), unspecified, len(unspecified)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def dont_fragment(sock: socket.socket) -> None:
    """Have packets sent whole or not at all."""
    # RFC 9000, section 14: QUIC's datagrams must not be fragmented. PROBE, not DO: the path MTU
    # that forged ICMP messages claim is not believed.
    try_option(sock, socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    if sock.family == socket.AF_INET6:
        try_option(sock, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        try_option(sock, socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
