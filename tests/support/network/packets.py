"""IP packets as a link sees them: whose they are, rewritten addresses, and ICMP's refusals."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

ICMP, UDP, ICMPV6 = 1, 17, 58

_ECHOES = {ICMP: (0, 8), ICMPV6: (128, 129)}
"""Types of ping(8)'s messages: RFC 792, RFC 4443."""
_PORTS = struct.Struct("!HH")
_CHECKSUM_AT = {UDP: 6, ICMPV6: 2}
"""Where in the packet's own header a checksum is that covers the addresses too."""
_QUOTED = 64
"""Bytes of the refused packet that an ICMP error repeats: enough for all headers."""


class Flow(NamedTuple):
    """What belongs together: all packets between two ports, or of one ping(8)."""

    version: int
    protocol: int
    source: int
    """The port; of an ICMP echo its identifier."""
    destination: int
    """The port; 0 for an ICMP echo."""


class Headers(NamedTuple):
    """Of one IP packet: the addresses in their bytes, and where what IP carries begins."""

    version: int
    protocol: int
    source: bytes
    destination: bytes
    start: int
    """The index of the header behind IP's; past the end where this is a later fragment."""

    @property
    def is_multicast(self) -> bool:
        """Whether it is for a group: kernels' talk about themselves, which nobody asked for."""
        first = self.destination[0]
        return first == 0xFF if self.version == 6 else first & 0xF0 == 0xE0


def parse(packet: bytes) -> Headers | None:
    """Read the headers; None where this is no IP packet. IPv6's extensions are not looked into."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        start = (packet[0] & 0x0F) * 4
        if struct.unpack_from("!H", packet, 6)[0] & 0x1FFF:
            start = len(packet)
        return Headers(4, packet[9], packet[12:16], packet[16:20], start)
    if version == 6 and len(packet) >= 40:
        return Headers(6, packet[6], packet[8:24], packet[24:40], 40)
    return None


def numbers(packet: bytes, headers: Headers) -> tuple[int, int]:
    """The two ports; of an ICMP echo its identifier and sequence number; else zeros."""
    start = headers.start
    if headers.protocol == UDP and len(packet) >= start + 8:
        first, second = _PORTS.unpack_from(packet, start)
    elif len(packet) >= start + 8 and packet[start] in _ECHOES.get(headers.protocol, ()):
        first, second = _PORTS.unpack_from(packet, start + 4)
    else:
        first = second = 0
    return first, second


def flow_of(headers: Headers, first: int, second: int) -> Flow:
    """The flow of a packet with these `numbers`."""
    is_udp = headers.protocol == UDP
    return Flow(headers.version, headers.protocol, first, second if is_udp else 0)


def checksum(data: bytes | bytearray, initial: int = 0) -> int:
    """The Internet checksum (RFC 1071) of `data`, whose sum begins with `initial`."""
    total: int = initial + sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def rewritten(
    packet: bytes,
    headers: Headers,
    *,
    source: tuple[bytes, int] | None = None,
    destination: tuple[bytes, int] | None = None,
) -> bytes:
    """A UDP packet with another source or destination: address and port, and right checksums."""
    data = bytearray(packet)
    start = headers.start
    at = (12, 16) if headers.version == 4 else (8, 24)
    before = headers.source + headers.destination + packet[start : start + 4]
    for where, new in enumerate((source, destination)):
        if new is not None:
            address, port = new
            data[at[where] : at[where] + len(address)] = address
            struct.pack_into("!H", data, start + 2 * where, port)
    size = len(headers.source)
    after = data[at[0] : at[0] + 2 * size] + data[start : start + 4]
    if headers.version == 4:
        data[10:12] = b"\0\0"
        struct.pack_into("!H", data, 10, checksum(data[:start]))
    where = start + _CHECKSUM_AT[UDP]
    (old,) = struct.unpack_from("!H", data, where)
    if old or headers.version == 6:  # over IPv4 a sender may leave it out
        # RFC 1624: take the old words away, which is to add their complement, and add the new.
        removed = bytes(byte ^ 0xFF for byte in before)
        changed = checksum(removed + after, ~old & 0xFFFF)
        struct.pack_into("!H", data, where, changed or 0xFFFF)
    return bytes(data)


def too_big(packet: bytes, headers: Headers, mtu: int, router: bytes) -> bytes | None:
    """What a router says of a packet that is larger than its link.

    RFC 792 and RFC 1191 (fragmentation needed), RFC 4443, section 3.2. None where it says
    nothing: of an ICMP message.
    """
    if headers.protocol in (ICMP, ICMPV6):
        return None
    quoted = packet[:_QUOTED]
    if headers.version == 4:
        body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        size = 20 + len(body)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, ICMP, 0, router, headers.source)
        return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + body
    body = struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
    pseudo = router + headers.source + struct.pack("!II", len(body), ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), ICMPV6, 64, router, headers.source) + body


def packed(address: str) -> bytes:
    """The bytes of an IP address."""
    return ipaddress.ip_address(address).packed


class Nat:
    """Gives the client's UDP packets another source, as a router does that lost its table.

    Each flow of the client's gets a port of its own, never used before. What is sent to any
    other address than the present one finds nobody.
    """

    FIRST_PORT = 50_000

    def __init__(self) -> None:
        self._addresses: dict[int, bytes] = {}
        self._out: dict[tuple[bytes, int], tuple[bytes, int]] = {}
        self._back: dict[tuple[bytes, int], tuple[bytes, int]] = {}
        self._next_port = self.FIRST_PORT

    def rebind(self, address: str) -> None:
        """From now on the client's packets come from this address, and from new ports."""
        raw = packed(address)
        self._addresses[4 if len(raw) == 4 else 6] = raw
        for table in (self._out, self._back):
            for key in [key for key in table if len(key[0]) == len(raw)]:
                del table[key]

    def out(self, packet: bytes, headers: Headers) -> bytes:
        """A packet of the client's as the server is to see it."""
        address = self._addresses.get(headers.version)
        if address is None or not _is_whole_udp(packet, headers):
            return packet
        own = headers.source, numbers(packet, headers)[0]
        seen = self._out.get(own)
        if seen is None:
            seen = self._out[own] = address, self._next_port
            self._back[seen] = own
            self._next_port += 1
        return rewritten(packet, headers, source=seen)

    def back(self, packet: bytes, headers: Headers) -> bytes | None:
        """A packet to the client; None where nobody has that address and port now."""
        if headers.version not in self._addresses or not _is_whole_udp(packet, headers):
            return packet
        own = self._back.get((headers.destination, numbers(packet, headers)[1]))
        return None if own is None else rewritten(packet, headers, destination=own)


def _is_whole_udp(packet: bytes, headers: Headers) -> bool:
    if headers.protocol != UDP or len(packet) < headers.start + 8:
        return False
    return headers.version == 6 or not struct.unpack_from("!H", packet, 6)[0] & 0x3FFF
