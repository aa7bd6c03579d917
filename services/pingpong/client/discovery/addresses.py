"""Filters and orders the addresses of a lookup."""

from __future__ import annotations

import errno
import itertools
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address

_NO_ROUTE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)
_ANY_PORT = 9
_TRIES = 8
"""Addresses of an answer that are checked to find whether an IP version works."""


def is_address(host: str) -> bool:
    """Whether a host is an IP address, with or without a zone."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def normalize(addresses: Iterable[str]) -> tuple[str, ...]:
    """The valid addresses of a host, in canonical form, without duplicates, in order.

    DNS filters answer 0.0.0.0 or :: for blocked names: a ping to that would measure this host.
    """
    found: dict[str, None] = {}
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
            continue
        found[str(address)] = None
    return tuple(found)


def interleave_families(addresses: Sequence[str]) -> tuple[str, ...]:
    """Interleave IPv4 and IPv6, beginning with the first one's family (RFC 8305, section 4)."""
    if not addresses:
        return ()
    first = _version(addresses[0])
    these = [address for address in addresses if _version(address) == first]
    others = [address for address in addresses if _version(address) != first]
    turns = itertools.zip_longest(these, others)
    return tuple(address for turn in turns for address in turn if address is not None)


def has_route(address: str) -> bool:
    """Whether this host has a route to an address. Nothing is sent."""
    family = socket.AF_INET6 if _version(address) == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, _ANY_PORT))
    except OSError as error:
        # Other errors, such as no free descriptor, are not about routes.
        return error.errno not in _NO_ROUTE
    return True


class Families:
    """The IP versions that work on this host.

    Without this, a host without IPv6 would have a target that is always down for each IPv6 address
    of a server. Once a version had a route, it counts as working: its outages are measured.
    """

    def __init__(self, has_route: Callable[[str], bool] = has_route) -> None:
        self._has_route = has_route
        self._spoken: set[int] = set()

    def usable(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """The normalized addresses whose IP version works on this host; all, if none does."""
        found = normalize(addresses)
        tries: Counter[int] = Counter()
        spoken = tuple(address for address in found if self._speaks(address, tries))
        return spoken or found

    def _speaks(self, address: str, tries: Counter[int]) -> bool:
        if ip_address(address).is_loopback:  # says nothing about other addresses
            return self._has_route(address)
        version = _version(address)
        if version not in self._spoken and tries[version] < _TRIES:
            tries[version] += 1
            if self._has_route(address):
                self._spoken.add(version)
        return version in self._spoken


def _version(address: str) -> int:
    return 6 if ":" in address else 4
