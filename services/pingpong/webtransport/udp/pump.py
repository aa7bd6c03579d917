"""Reads and writes one UDP socket on an event loop, in batches, with arrival times.

When the socket is readable, the pump first reads all queued packets, at most `batch`, and then
passes them on. So an answer does not wait for packets that arrive while it is made, and the clock,
which is read once after the last packet, is later than every arrival. Then it calls
`batch_received`, which sends the answers.

While packets come one at a time, it does not ask the kernel after each whether there are more: a
packet that arrived before the last answer left shows that there may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from .arrival import ArrivalClock
from .sockets import (
    SO_RCVBUFFORCE,
    SO_RXQ_OVFL,
    SO_SNDBUFFORCE,
    SO_TIMESTAMPNS,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    disconnect,
    dont_fragment,
    enlarge,
    group_segments,
    try_option,
)
from .sources import IP_PKTINFO, IPV6_PKTINFO, Ancillary, Sources

Address: TypeAlias = tuple[Any, ...]
"""A peer's address as the kernel has it; opaque here."""

MAX_MESSAGE = 65_535  # the most that UDP_GRO joins
ANCILLARY_SPACE = 256

_timespec = struct.Struct("@ll")
_int = struct.Struct("@i")
_uint16 = struct.Struct("@H")
_uint32 = struct.Struct("@I")

_NO_ROOM = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINTR})
_GSO_REFUSED = frozenset({errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EMSGSIZE})
_SOURCE_REFUSED = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENETUNREACH})
_ADDRESS_GONE = frozenset(
    {errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EDESTADDRREQ}
)
_FROM_ICMP = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})

_SENT, _DROPPED, _QUEUE, _SPLIT = range(4)  # the result of sending a group

_NOTHING = bytes(4)
_RETRY_SECONDS = 0.001  # after ENOBUFS, when the socket counts as writable but cannot send


# What recvmsg returns: data, ancillary data (level, kind, value), flags, address.
_Message: TypeAlias = tuple[bytes, list[tuple[int, int, bytes]], int, Address]


def _split(data: bytes, size: int) -> Sequence[bytes]:
    if not 0 < size < len(data):
        return (data,)
    return [data[start : start + size] for start in range(0, len(data), size)]


class Pump:
    """Reads packets from a UDP socket and writes packets to it.

    `receive(packet, address, arrival)` is called for each packet, with its source address and its
    arrival time on the clock of time.monotonic_ns; `batch_received()` follows the last packet of a
    batch. `error_received(exc)` is called for each error of the socket, also during `send`: a
    connected socket reports ICMP errors as OSError, and the pump continues after them. Exceptions
    of these callbacks go to the loop's exception handler, and the other packets are still
    processed.

    The pump owns `sock`, which may be connected (then `send` ignores its address). It makes the
    socket non-blocking, disables fragmentation (RFC 9000, section 14), and sets its buffer sizes.

    While `paused` is set, packets stay in the socket.

    Attributes, for reading only:
        local_address: the address that the socket is bound to
        kernel_timestamps, gro, gso: kernel features in use; gso becomes false if it fails
        receive_buffer, send_buffer: requested and actual sizes, in bytes
        received_packets, sent_packets, receive_batches: counts
        overflowed_packets: packets that the kernel dropped because the receive buffer was full
        dropped_packets: packets that `send` did not send: an error, a full queue, closed
        queued_packets: packets that wait for room in the socket
        errors, callback_errors: errors of the socket, and exceptions of the callbacks
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        receive: Callable[[bytes, Address, int], None],
        batch_received: Callable[[], None],
        error_received: Callable[[OSError], None] | None = None,
        receive_buffer: int = 4 << 20,
        send_buffer: int = 4 << 20,
        batch: int = 64,
        max_queued: int = 1024,
    ) -> None:
        sock.setblocking(False)
        dont_fragment(sock)
        self.receive_buffer = enlarge(sock, socket.SO_RCVBUF, SO_RCVBUFFORCE, receive_buffer)
        self.send_buffer = enlarge(sock, socket.SO_SNDBUF, SO_SNDBUFFORCE, send_buffer)
        self.kernel_timestamps = try_option(sock, socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.gro = try_option(sock, SOL_UDP, UDP_GRO, 1)
        self.gso = try_option(sock, SOL_UDP, UDP_SEGMENT, 0)
        try_option(sock, socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self.local_address: Address = sock.getsockname()
        self.received_packets = self.sent_packets = self.receive_batches = 0
        self.overflowed_packets = self.dropped_packets = self.queued_packets = 0
        self.errors = self.callback_errors = 0

        self._sock = sock
        self._recvmsg = sock.recvmsg
        self._sources = Sources(sock)
        self._plain_ancillary = self.kernel_timestamps + self._sources.enabled
        self._fd = sock.fileno()
        self._readable = bytearray(4)
        self._loop = loop
        self._receive = receive
        self._batch_received = batch_received
        self._error_received = error_received
        self._batch = batch
        self._max_queued = max_queued
        self._clock = ArrivalClock()
        self._queue: deque[tuple[Sequence[bytes], Address]] = deque()
        self._awaits_writable = False
        self._lacks_buffers = False
        self._retry: asyncio.TimerHandle | None = None
        self._looks_for_more = True
        """Whether to read more than one packet in the next batch."""
        self._sent_at = 0
        """When the last answer was sent."""
        self._segment_size = 0
        self._segmentation: list[tuple[int, int, bytes]] = []
        self._closed = False
        self.paused = False
        self._connected = False
        self._peer: Address = ()
        with contextlib.suppress(OSError):
            self._peer = sock.getpeername()
            self._connected = True
        loop.add_reader(self._fd, self.receive_pending)

    def send(self, packets: Sequence[bytes], address: Address) -> int:
        """Send `packets` to `address`, packets of the same size in one system call.

        Returns time.monotonic_ns() right before the call that sent the first packet; 0 if that
        packet was queued or dropped. Packets are queued if the socket is full; above `max_queued`
        the oldest are dropped. Errors are not raised: `error_received` gets them.
        """
        if self._closed:
            self.dropped_packets += len(packets)
            return 0
        waiting = bool(self._queue)
        self._sent_at = sent_at = time.monotonic_ns()
        if len(packets) == 1 and not waiting:
            outcome = self._transmit(packets, address)
            if outcome == _SENT:
                return sent_at
            if outcome == _DROPPED:
                return 0
        groups = group_segments(packets) if self.gso else [(packet,) for packet in packets]
        self._queue.extend((group, address) for group in groups)
        self.queued_packets += len(packets)
        if waiting:
            self._bound_queue()
            return 0
        return sent_at if self._flush() else 0

    def source(self, address: Address) -> Ancillary | None:
        """The local address that `address` has sent to, if the socket has several."""
        return self._sources.get(address)

    def note_source(self, address: Address, kind: int, value: bytes) -> None:
        """Set the local address that answers to `address` leave from, as `source` returned it."""
        self._sources.note(address, kind, value)

    def close(self) -> None:
        """Close the socket. Queued packets are dropped. No callback is called afterwards."""
        if self._closed:
            return
        self._closed = True
        self._await_room(False)
        self._loop.remove_reader(self._fd)
        self.dropped_packets += self.queued_packets
        self.queued_packets = 0
        self._queue.clear()
        self._sock.close()
        # Break reference cycles.
        del self._receive, self._batch_received
        self._error_received = None

    def receive_pending(self) -> None:
        """Read and process a batch of packets. The loop calls it when the socket is readable."""
        if self._closed or self.paused:
            return
        messages: list[_Message] = []
        drained = self._read_messages(messages)
        if not messages or self._closed:
            return
        now = self._clock.read(drained)
        receive = self._receive
        self.receive_batches += 1
        sent_before = self._sent_at
        # Without timestamps nothing shows that a packet has waited; and after a step of the wall
        # clock it has to be known when the queue was empty.
        self._looks_for_more = (
            len(messages) > 1 or not self.kernel_timestamps or not self._clock.is_settled
        )
        for data, ancillary, _, address in messages:
            arrival = now
            packets: Sequence[bytes] = (data,)
            # The types of the enabled options are unique, so the level is not checked.
            for _, kind, value in ancillary:
                if kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = _timespec.unpack(value)
                    arrival = self._clock.to_monotonic(seconds * 1_000_000_000 + nanoseconds)
                    if arrival < sent_before:
                        self._looks_for_more = True
                elif kind == UDP_GRO:
                    packets = _split(data, _int.unpack(value)[0])
                elif kind in (IPV6_PKTINFO, IP_PKTINFO):
                    self._sources.note(address, kind, value)
                elif kind == SO_RXQ_OVFL:
                    (self.overflowed_packets,) = _uint32.unpack(value)
            for packet in packets:
                self.received_packets += 1
                try:
                    receive(packet, address, arrival)
                except Exception as exc:
                    self.callback_failed(exc)
                if self._closed:
                    return
        try:
            self._batch_received()
        except Exception as exc:
            self.callback_failed(exc)
        if self._sent_at == sent_before:
            # Without an answer nothing shows it either: a flood is read in batches.
            self._looks_for_more = True

    def _read_messages(self, messages: list[_Message]) -> bool:
        """Append queued packets to `messages`. Returns whether the queue is known to be empty."""
        # Not recvmsg_into: copying from a reused buffer is slower than a new one.
        recvmsg = self._recvmsg
        room = self._batch
        while room > 0:
            room -= 1
            try:
                message = recvmsg(MAX_MESSAGE, ANCILLARY_SPACE)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError as exc:
                self._failed(exc)  # the rest is read in the next turn, since the error may repeat
                return False
            messages.append(message)
            if not self._looks_for_more:
                return False
            if len(messages) == 1:
                # Often there is only one packet. The ioctl costs a third of a BlockingIOError.
                fcntl.ioctl(self._fd, termios.FIONREAD, self._readable)
                if self._readable == _NOTHING:
                    return True
            if len(message[1]) > self._plain_ancillary:
                for _, kind, value in message[1]:
                    if kind == UDP_GRO:
                        room -= len(message[0]) // (_int.unpack(value)[0] or 1)
        return False

    def _transmit(self, group: Sequence[bytes], address: Address, retried: bool = False) -> int:
        source = self._sources.get(address)
        try:
            if len(group) > 1:
                size = len(group[0])
                if size != self._segment_size:
                    self._segment_size = size
                    self._segmentation = [(SOL_UDP, UDP_SEGMENT, _uint16.pack(size))]
                if self._connected:
                    self._sock.sendmsg(group, self._segmentation)
                elif source is None:
                    self._sock.sendmsg(group, self._segmentation, 0, address)
                else:
                    self._sock.sendmsg(group, [*self._segmentation, *source], 0, address)
            elif self._connected:
                self._sock.send(group[0])
            elif source is None:
                self._sock.sendto(group[0], address)
            else:
                self._sock.sendmsg(group, source, 0, address)
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                self._lacks_buffers = exc.errno == errno.ENOBUFS
                return _QUEUE
            if source is not None and exc.errno in _SOURCE_REFUSED:
                self._sources.forget(address)
                return self._transmit(group, address, retried)
            if len(group) > 1 and exc.errno in _GSO_REFUSED:
                return _SPLIT
            if self._connected and not retried and exc.errno in _ADDRESS_GONE:
                self._reconnect_socket()
                return self._transmit(group, address, retried=True)
            self._failed(exc)
            # An ICMP error is about an earlier packet, so send this one again.
            if exc.errno in _FROM_ICMP and not retried and not self._closed:
                return self._transmit(group, address, retried=True)
            self.dropped_packets += len(group)
            return _DROPPED
        self.sent_packets += len(group)
        return _SENT

    def _reconnect_socket(self) -> None:
        """Reconnect the socket, after this host lost its source address.

        For QUIC this is a connection migration, as behind a NAT (RFC 9000, section 9).
        """
        try:
            disconnect(self._sock)
            self._sock.connect(self._peer)
        except OSError:
            return  # there is no route now; the next packet tries again
        self.local_address = self._sock.getsockname()

    def _flush(self) -> bool:
        """Send queued packets while there is room. Returns whether the first one was sent."""
        self._retry = None  # this may be the retry itself
        first: int | None = None
        suspect_gso = False
        while self._queue:
            group, address = self._queue.popleft()
            self.queued_packets -= len(group)
            outcome = self._transmit(group, address)
            if self._closed:
                break
            if outcome == _QUEUE:
                self._enqueue_first([group], address)
                break
            if outcome == _SPLIT:
                # Send them one by one, to find out whether segmentation was the cause.
                self._enqueue_first([(packet,) for packet in group], address)
                suspect_gso = True
                continue
            if suspect_gso and outcome == _SENT:
                self.gso = False
            suspect_gso = False
            first = outcome if first is None else first
        self._bound_queue()
        return first == _SENT

    def _enqueue_first(self, groups: list[Sequence[bytes]], address: Address) -> None:
        self._queue.extendleft((group, address) for group in reversed(groups))
        self.queued_packets += sum(map(len, groups))

    def _bound_queue(self) -> None:
        while self.queued_packets > self._max_queued:
            group, _ = self._queue.popleft()
            self.queued_packets -= len(group)
            self.dropped_packets += len(group)
        self._await_room(bool(self._queue))

    def _await_room(self, wanted: bool) -> None:
        # After ENOBUFS the socket counts as writable: use a timer to avoid a busy loop.
        retry = wanted and self._lacks_buffers
        writable = wanted and not self._lacks_buffers
        if retry and self._retry is None:
            self._retry = self._loop.call_later(_RETRY_SECONDS, self._flush)
        elif not retry and self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if writable and not self._awaits_writable:
            self._loop.add_writer(self._fd, self._flush)
        elif not writable and self._awaits_writable:
            self._loop.remove_writer(self._fd)
        self._awaits_writable = writable

    def _failed(self, exc: OSError) -> None:
        self.errors += 1
        # libuv, and so uvloop, stops watching a socket after an error.
        self._loop.remove_reader(self._fd)
        self._loop.add_reader(self._fd, self.receive_pending)
        if self._awaits_writable:
            self._loop.remove_writer(self._fd)
            self._loop.add_writer(self._fd, self._flush)
        if self._error_received is not None:
            try:
                self._error_received(exc)
            except Exception as raised:
                self.callback_failed(raised)

    def callback_failed(self, exc: Exception) -> None:
        """Count an exception of a callback, and pass it to the loop's exception handler."""
        self.callback_errors += 1
        self._loop.call_exception_handler(
            {"message": "exception in a callback of a UDP pump", "exception": exc}
        )
