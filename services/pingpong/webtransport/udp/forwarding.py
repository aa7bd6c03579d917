"""Forwards packets to the worker that has their connection.

Each worker has an inbox, a Unix datagram socket, and the other ends of all inboxes. A packet is
forwarded with its source address, its arrival time, and the local address to answer from (see
`sources`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence

from ..quic.engine import Address
from .sockets import SO_SNDBUFFORCE, enlarge
from .sources import Ancillary

_BUFFER = 4 << 20
_BATCH = 64
_MAX_MESSAGE = 1 << 16
_header = struct.Struct("=qHIIBBBB")
"""Arrival; port, flow, scope; whether it is IPv6; type of the source; sizes of host and source."""


def create_inboxes(workers: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Create the inboxes of the workers, and their other ends, in the order of the workers."""
    inboxes: list[socket.socket] = []
    outboxes: list[socket.socket] = []
    for _ in range(workers):
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        inboxes.append(inbox)
        outboxes.append(outbox)
        # The kernel counts queued messages in the sender's buffer.
        enlarge(outbox, socket.SO_SNDBUF, SO_SNDBUFFORCE, _BUFFER)
    return inboxes, outboxes


def encode(data: bytes, address: Address, arrival: int, source: Ancillary | None) -> bytes:
    """Encode a packet with its metadata."""
    host, port, *more = address
    flow, scope = more or (0, 0)
    name: bytes = host.encode()
    _, kind, value = source[0] if source else (0, 0, b"")
    head = _header.pack(arrival, port, flow, scope, bool(more), kind, len(name), len(value))
    return head + name + value + data


class PacketForwarder:
    """Forwards packets from one worker to the others, and receives theirs.

    `outboxes` are the other ends of all inboxes, in the order of the workers, including its own.
    It owns its sockets. `receive(packet, address, arrival)` is called for each packet that was
    forwarded to this worker, after `note_source(address, kind, value)` if its local address is
    known; `batch_received()` follows the last packet of a batch.

    Attributes, for reading only:
        forwarded_packets, received_from_others: packets to and from other workers
        dropped_packets: packets that were lost because an inbox was full or its worker gone
    """

    def __init__(self, inbox: socket.socket, outboxes: Sequence[socket.socket]) -> None:
        self.forwarded_packets = self.received_from_others = self.dropped_packets = 0
        self._inbox = inbox
        self._outboxes = outboxes
        for sock in (inbox, *outboxes):
            sock.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive: Callable[[bytes, Address, int], None]
        self._note_source: Callable[[Address, int, bytes], None]
        self._batch_received: Callable[[], None]

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        receive: Callable[[bytes, Address, int], None],
        note_source: Callable[[Address, int, bytes], None],
        batch_received: Callable[[], None],
    ) -> None:
        """Start to receive forwarded packets."""
        self._loop = loop
        self._receive = receive
        self._note_source = note_source
        self._batch_received = batch_received
        loop.add_reader(self._inbox.fileno(), self.receive_pending)

    def forward(
        self, worker: int, data: bytes, address: Address, arrival: int, source: Ancillary | None
    ) -> None:
        """Forward a packet to another worker. It is dropped if the worker's inbox is full."""
        try:
            self._outboxes[worker].send(encode(data, address, arrival, source))
        except OSError:
            self.dropped_packets += 1
        else:
            self.forwarded_packets += 1

    def receive_pending(self) -> int:
        """Receive forwarded packets, at most a batch. Returns their number."""
        taken = 0
        for _ in range(_BATCH):
            if self._loop is None:
                break
            try:
                message = self._inbox.recv(_MAX_MESSAGE)
            except OSError:
                break
            taken += 1
            self.received_from_others += 1
            try:
                self._take(message)
            except Exception as exc:
                self._failed(exc)
        if taken and self._loop is not None:
            try:
                self._batch_received()
            except Exception as exc:
                self._failed(exc)
        return taken

    def close(self) -> None:
        """Close the sockets. No callback is called afterwards."""
        if self._loop is not None:
            self._loop.remove_reader(self._inbox.fileno())
            self._loop = None
        for sock in (self._inbox, *self._outboxes):
            sock.close()

    def _take(self, message: bytes) -> None:
        arrival, port, flow, scope, is_ipv6, kind, name, value = _header.unpack_from(message)
        at = _header.size
        host = message[at : at + name].decode()
        at += name
        address: Address = (host, port, flow, scope) if is_ipv6 else (host, port)
        if value:
            self._note_source(address, kind, message[at : at + value])
        self._receive(message[at + value :], address, arrival)

    def _failed(self, exc: Exception) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler(
            {"message": "exception in a callback of a packet forwarder", "exception": exc}
        )
