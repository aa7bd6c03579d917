from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.network.packets import (
    ICMP,
    ICMPV6,
    UDP,
    Flow,
    Nat,
    checksum,
    flow_of,
    numbers,
    packed,
    parse,
    rewritten,
    too_big,
)

CLIENT = {4: "192.0.2.1", 6: "2001:db8::1"}
SERVER = {4: "192.0.2.2", 6: "2001:db8::2"}
OTHER = {4: "192.0.2.77", 6: "2001:db8::77"}
versions = pytest.mark.parametrize("version", [4, 6])


def ip(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    a, b = packed(source), packed(destination)
    if len(a) == 16:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + a + b + body
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0, 64, protocol, 0, a, b)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def pseudo(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    """What a checksum covers beside the packet (RFC 768; RFC 8200, section 8.1)."""
    a, b = packed(source), packed(destination)
    if len(a) == 16:
        return a + b + struct.pack("!II", len(body), protocol)
    return a + b + struct.pack("!BBH", 0, protocol, len(body))


def udp(source: str, sport: int, destination: str, dport: int, payload: bytes) -> bytes:
    body = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    right = checksum(pseudo(source, destination, UDP, body) + body) or 0xFFFF
    body = body[:6] + struct.pack("!H", right) + body[8:]
    return ip(source, destination, UDP, body)


def echo(version: int, identifier: int, sequence: int) -> bytes:
    body = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, identifier, sequence)
    return ip(CLIENT[version], SERVER[version], ICMP if version == 4 else ICMPV6, body)


@versions
def test_udp_headers_are_read(version: int) -> None:
    packet = udp(CLIENT[version], 1234, SERVER[version], 4433, b"data")
    headers = parse(packet)
    assert headers is not None
    assert headers[:4] == (version, UDP, packed(CLIENT[version]), packed(SERVER[version]))
    assert packet[headers.start + 8 :] == b"data"
    assert numbers(packet, headers) == (1234, 4433)
    assert flow_of(headers, 1234, 4433) == Flow(version, UDP, 1234, 4433)


@versions
def test_all_packets_of_one_ping_are_one_flow(version: int) -> None:
    flows = set()
    for sequence in (1, 2, 3):
        packet = echo(version, 77, sequence)
        headers = parse(packet)
        assert headers is not None
        assert numbers(packet, headers) == (77, sequence)
        flows.add(flow_of(headers, *numbers(packet, headers)))
    assert flows == {Flow(version, ICMP if version == 4 else ICMPV6, 77, 0)}


def test_an_icmp_error_is_no_echo() -> None:
    unreachable = ip(SERVER[4], CLIENT[4], ICMP, struct.pack("!BBHHH", 3, 3, 0, 77, 1))
    headers = parse(unreachable)
    assert headers is not None
    assert numbers(unreachable, headers) == (0, 0)


@pytest.mark.parametrize("data", [b"", b"\x45", b"\x60" + bytes(38), b"\x50" + bytes(60)])
def test_what_is_no_ip_packet_is_told(data: bytes) -> None:
    assert parse(data) is None


def test_a_later_fragment_has_no_ports() -> None:
    packet = bytearray(udp(CLIENT[4], 1234, SERVER[4], 4433, b"data"))
    packet[6:8] = struct.pack("!H", 0x2001)
    headers = parse(bytes(packet))
    assert headers is not None
    assert numbers(bytes(packet), headers) == (0, 0)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [("224.0.0.22", True), ("192.0.2.2", False), ("ff02::16", True), ("2001:db8::2", False)],
)
def test_what_is_for_a_group_is_told(destination: str, expected: bool) -> None:
    version = ipaddress.ip_address(destination).version
    headers = parse(udp(CLIENT[version], 1, destination, 2, b""))
    assert headers is not None
    assert headers.is_multicast is expected


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
    assert checksum(b"\x01") == ~0x0100 & 0xFFFF


@given(
    version=st.sampled_from([4, 6]),
    payload=st.binary(max_size=40),
    ports=st.tuples(*[st.integers(0, 0xFFFF)] * 3),
    host=st.integers(1, 0xFFFE),
    of_source=st.booleans(),
)
def test_a_rewritten_packet_is_as_if_it_were_sent_so(
    version: int, payload: bytes, ports: tuple[int, int, int], host: int, of_source: bool
) -> None:
    sport, dport, new_port = ports
    new = f"192.0.{host >> 8}.{host & 0xFF}" if version == 4 else f"2001:db8::{host:x}"
    packet = udp(CLIENT[version], sport, SERVER[version], dport, payload)
    headers = parse(packet)
    assert headers is not None
    if of_source:
        changed = rewritten(packet, headers, source=(packed(new), new_port))
        assert changed == udp(new, new_port, SERVER[version], dport, payload)
    else:
        changed = rewritten(packet, headers, destination=(packed(new), new_port))
        assert changed == udp(CLIENT[version], sport, new, new_port, payload)


def test_a_checksum_that_was_left_out_stays_out() -> None:
    packet = bytearray(udp(CLIENT[4], 1, SERVER[4], 2, b"data"))
    packet[26:28] = b"\0\0"
    headers = parse(bytes(packet))
    assert headers is not None
    changed = rewritten(bytes(packet), headers, source=(packed(OTHER[4]), 9))
    assert changed[26:28] == b"\0\0"


@versions
def test_a_refusal_names_the_mtu_and_quotes_the_packet(version: int) -> None:
    packet = udp(CLIENT[version], 1234, SERVER[version], 4433, bytes(1400))
    headers = parse(packet)
    assert headers is not None
    router = "192.0.2.254" if version == 4 else "2001:db8::fe"
    answer = too_big(packet, headers, 1300, packed(router))
    assert answer is not None
    refusal = parse(answer)
    assert refusal is not None
    assert (refusal.source, refusal.destination) == (packed(router), packed(CLIENT[version]))
    body = answer[refusal.start :]
    assert body[:2] == (b"\x03\x04" if version == 4 else b"\x02\x00")
    assert struct.unpack("!I", body[4:8]) == (1300,)
    assert packet.startswith(body[8:])
    assert len(body[8:]) >= 48
    if version == 4:
        assert checksum(answer[:20]) == 0
        assert checksum(body) == 0
    else:
        assert checksum(pseudo(router, CLIENT[6], ICMPV6, body) + body) == 0


@versions
def test_icmp_is_not_answered_with_icmp(version: int) -> None:
    packet = echo(version, 1, 1)
    headers = parse(packet)
    assert headers is not None
    assert too_big(packet, headers, 1300, packed(OTHER[version])) is None


class Behind:
    """A client behind a NAT."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.nat = Nat()

    def out(self, port: int) -> tuple[str, int]:
        """Send a packet from this port: where it comes from, as the server sees it."""
        packet = udp(CLIENT[self.version], port, SERVER[self.version], 4433, b"ping")
        headers = parse(packet)
        assert headers is not None
        seen = self.nat.out(packet, headers)
        headers = parse(seen)
        assert headers is not None
        address = str(ipaddress.ip_address(headers.source))
        source = address, numbers(seen, headers)[0]
        assert seen == udp(*source, SERVER[self.version], 4433, b"ping")
        return source

    def back(self, address: str, port: int) -> int | None:
        """Answer to there: the client's port that hears of it."""
        packet = udp(SERVER[self.version], 4433, address, port, b"pong")
        headers = parse(packet)
        assert headers is not None
        got = self.nat.back(packet, headers)
        if got is None:
            return None
        headers = parse(got)
        assert headers is not None
        own = numbers(got, headers)[1]
        assert got == udp(SERVER[self.version], 4433, CLIENT[self.version], own, b"pong")
        return own


@versions
def test_a_nat_that_was_never_rebound_changes_nothing(version: int) -> None:
    behind = Behind(version)
    assert behind.out(1234) == (CLIENT[version], 1234)
    assert behind.back(CLIENT[version], 1234) == 1234


@versions
def test_after_rebinding_the_client_comes_from_elsewhere_and_hears_answers(version: int) -> None:
    behind = Behind(version)
    behind.nat.rebind(OTHER[version])
    seen = behind.out(1234)
    assert seen[0] == OTHER[version]
    assert seen[1] != 1234
    assert behind.out(1234) == seen
    assert behind.back(*seen) == 1234


@versions
def test_each_flow_has_a_port_of_its_own(version: int) -> None:
    behind = Behind(version)
    behind.nat.rebind(OTHER[version])
    seen = [behind.out(port) for port in (1, 2, 3)]
    assert len(set(seen)) == 3
    assert [behind.back(*each) for each in seen] == [1, 2, 3]


@versions
def test_after_rebinding_nobody_is_where_the_client_was(version: int) -> None:
    behind = Behind(version)
    behind.nat.rebind(OTHER[version])
    before = behind.out(1234)
    behind.nat.rebind(OTHER[version])
    assert behind.back(CLIENT[version], 1234) is None
    assert behind.back(*before) is None
    after = behind.out(1234)
    assert after != before
    assert behind.back(*after) == 1234


def test_the_two_families_are_rebound_apart() -> None:
    behind = Behind(4)
    behind.nat.rebind(OTHER[6])
    assert behind.out(1234) == (CLIENT[4], 1234)
    assert behind.back(CLIENT[4], 1234) == 1234


@versions
def test_a_nat_leaves_icmp_alone(version: int) -> None:
    nat = Nat()
    nat.rebind(OTHER[version])
    packet = echo(version, 1, 1)
    headers = parse(packet)
    assert headers is not None
    assert nat.out(packet, headers) == packet
    assert nat.back(packet, headers) == packet
