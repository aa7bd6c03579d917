"""UDP sockets for QUIC: binding, fragmentation, buffer sizes, segmentation offload."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple

# Linux constants (asm-generic/socket.h, linux/udp.h, linux/in.h, linux/in6.h) that the socket
# module does not have in all supported versions.
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
    """The size of a socket buffer in bytes: requested, and actual."""

    asked: int
    got: int


def group_segments(packets: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Split `packets` into groups, each for one sendmsg with UDP_SEGMENT.

    The packets of a group have the same size, except for the last, which may be shorter. A group
    has at most 64 packets and 65,507 bytes. The order is kept. An empty packet is a group of its
    own, because segmentation would lose it.
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
    """Create a non-blocking UDP socket, bound to `host` and `port` (0: any free port).

    `::` (or the empty string) also accepts IPv4, and falls back to `0.0.0.0` on a machine without
    IPv6. With `reuse_port` several sockets may share the port.

    Raises OSError if the address is not available, and socket.gaierror if `host` has no address.
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
    """Set a Linux socket option; returns whether it was accepted."""
    if not sys.platform.startswith("linux"):
        return False  # the constants are Linux's
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def enlarge(sock: socket.socket, option: int, force: int, asked: int) -> BufferSize:
    """Set a buffer to at least `asked` bytes, with the option `force` if that is permitted."""
    # Linux doubles the size, for its own bookkeeping, and reports that.
    factor = 2 if sys.platform.startswith("linux") else 1
    if sock.getsockopt(socket.SOL_SOCKET, option) < asked * factor and not try_option(
        sock, socket.SOL_SOCKET, force, asked
    ):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, asked)
    return BufferSize(asked, sock.getsockopt(socket.SOL_SOCKET, option) // factor)


def disconnect(sock: socket.socket) -> None:
    """Disconnect a UDP socket, which also clears its source address. Raises OSError."""
    # By connect(2) to an address of the family AF_UNSPEC, which socket.connect does not support.
    unspecified = bytes(128)
    if ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), unspecified, len(unspecified)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def dont_fragment(sock: socket.socket) -> None:
    """Disable fragmentation of packets."""
    # Required by RFC 9000, section 14. PROBE, not DO, ignores the path MTU of ICMP messages, which
    # may be forged.
    try_option(sock, socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    if sock.family == socket.AF_INET6:
        try_option(sock, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        try_option(sock, socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
