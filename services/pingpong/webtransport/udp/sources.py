"""Answers a peer from the local address that it sent to.

A socket that is bound to all addresses sends from the address that the route to the peer suggests.
If the peer sent to another one, it or a firewall would drop the answer.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, TypeAlias

from .sockets import try_option

IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50

MAX_PEERS = 16_384
"""Peers that are remembered; the oldest is dropped for a new one."""

Ancillary: TypeAlias = list[tuple[int, int, bytes]]

_IPV4 = struct.Struct("@i4s4s")
_IPV6 = struct.Struct("@16si")


class Sources:
    """The local address that each peer has sent to, if the socket has several."""

    __slots__ = ("_ancillary", "_peers", "enabled")

    def __init__(self, sock: socket.socket) -> None:
        host = sock.getsockname()[0]
        if host == "::":
            self.enabled = try_option(sock, socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            self.enabled = host == "0.0.0.0" and try_option(sock, socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._peers: dict[Any, Ancillary] = {}
        self._ancillary: dict[bytes, Ancillary] = {}
        """The ancillary data for each local address."""

    def note(self, peer: Any, kind: int, value: bytes) -> None:
        """Remember the IP_PKTINFO or IPV6_PKTINFO of a packet from `peer`."""
        ancillary = self._ancillary.get(value)
        if ancillary is None:
            ancillary = self._ancillary[value] = _answering(kind, value)
        if self._peers.get(peer) is not ancillary:
            if len(self._peers) >= MAX_PEERS:
                del self._peers[next(iter(self._peers))]
            self._peers[peer] = ancillary

    def get(self, peer: Any) -> Ancillary | None:
        """The ancillary data for packets to `peer`, or None."""
        return self._peers.get(peer)

    def forget(self, peer: Any) -> None:
        """Forget the local address for `peer`: this host no longer has it."""
        self._peers.pop(peer, None)


def _answering(kind: int, value: bytes) -> Ancillary:
    # Without the interface: the answer is routed normally.
    if kind == IPV6_PKTINFO:
        return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, _IPV6.pack(_IPV6.unpack(value)[0], 0))]
    return [(socket.IPPROTO_IP, IP_PKTINFO, _IPV4.pack(0, _IPV4.unpack(value)[1], bytes(4)))]
