"""Which addresses of an answer can be connected to, and in what order."""

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
"""Addresses of an answer that are tried to find a version spoken."""


def is_address(host: str) -> bool:
    """Whether a host is given by its address, with or without a zone."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def normalize(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses that can be a host's, each once, in their usual form and in this order.

    Filters answer 0.0.0.0 or :: for names that they block: a ping to it would measure this host.
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
    """IPv4 and IPv6 in turns, the first one's family first (RFC 8305, section 4)."""
    if not addresses:
        return ()
    first = _version(addresses[0])
    these = [address for address in addresses if _version(address) == first]
    others = [address for address in addresses if _version(address) != first]
    turns = itertools.zip_longest(these, others)
    return tuple(address for turn in turns for address in turn if address is not None)


def has_route(address: str) -> bool:
    """Whether this host has a way to an address; nothing is sent."""
    family = socket.AF_INET6 if _version(address) == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, _ANY_PORT))
    except OSError as error:
        # Anything else, such as no descriptor left, says nothing of routes.
        return error.errno not in _NO_ROUTE
    return True


class Families:
    """The IP versions that this host speaks, as far as it has shown.

    A host without IPv6 would else have, per address, a target for each of a server's IPv6
    addresses that is always down. A version that was once seen to have a route is never taken for
    one that this host does not speak: an outage of it is to be measured.
    """

    def __init__(self, has_route: Callable[[str], bool] = has_route) -> None:
        self._has_route = has_route
        self._spoken: set[int] = set()

    def usable(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """The normalized addresses whose version this host speaks; all, if it speaks none of them."""
        found = normalize(addresses)
        tries: Counter[int] = Counter()
        spoken = tuple(address for address in found if self._speaks(address, tries))
        return spoken or found

    def _speaks(self, address: str, tries: Counter[int]) -> bool:
        if ip_address(address).is_loopback:  # every host has it, and it leads nowhere else
            return self._has_route(address)
        version = _version(address)
        if version not in self._spoken and tries[version] < _TRIES:
            tries[version] += 1
            if self._has_route(address):
                self._spoken.add(version)
        return version in self._spoken


def _version(address: str) -> int:
    return 6 if ":" in address else 4
