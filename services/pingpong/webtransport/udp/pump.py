"""One UDP socket under an event loop: batches in and out, and when each packet arrived.

A readable turn first takes what the kernel has queued, at most `batch` packets, and only then
hands the packets up: so that an answer waits for the packets that were there before it and not
for those that came while it was made, and so that the clock, read once after the last packet,
lies after every arrival. Then `batch_received` says that it is time to answer.
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
"""A peer's address as the kernel gave it: passed back unchanged, never looked into."""

MAX_MESSAGE = 65_535  # what UDP_GRO may join is no longer
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

_SENT, _DROPPED, _QUEUE, _SPLIT = range(4)  # what became, or is to become, of a group

_NOTHING = bytes(4)
_RETRY_SECONDS = 0.001  # after ENOBUFS, when the socket is writable though nothing can be sent


# What recvmsg returns: data, ancillary data (level, kind, value), flags, address.
_Message: TypeAlias = tuple[bytes, list[tuple[int, int, bytes]], int, Address]


def _split(data: bytes, size: int) -> Sequence[bytes]:
    if not 0 < size < len(data):
        return (data,)
    return [data[start : start + size] for start in range(0, len(data), size)]


class Pump:
    """Moves packets between one UDP socket and the code that understands them.

    `receive(packet, address, arrival)` gets every packet with its sender and its arrival on the
    clock of time.monotonic_ns; `batch_received()` follows the last packet of a batch;
    `error_received(exc)` is called with every error of the socket, also while `send` runs: ICMP
    errors reach a connected socket as OSError, and none of them ends the pump. What these three
    raise goes to the loop's exception handler, and the other packets are still handed up.

    The pump owns `sock`, which may be connected (`send` then ignores its address), and makes it
    non-blocking, unfragmented (RFC 9000, section 14) and its buffers as large as asked for.

    While `paused` is set, packets are left in the socket.

    Attributes, for reading only:
        local_address: what the socket is bound to
        kernel_timestamps, gro, gso: what the kernel has; gso becomes false once it is refused
        receive_buffer, send_buffer: sizes asked for and got, in bytes
        received_packets, sent_packets, receive_batches: counts
        overflowed_packets: lost by the kernel because the receive buffer was full
        dropped_packets: given to `send` and not sent: refused, pushed out of the queue, closed
        queued_packets: waiting for room in the socket
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
        """Send `packets` to `address`, those of one size together.

        Returns time.monotonic_ns() as it was right before the call that sent the first of them;
        0 when that one was queued or dropped. The queue for a socket without room is bounded: the
        oldest packets leave it first. OSError is never raised, but given to `error_received`.
        """
        if self._closed:
            self.dropped_packets += len(packets)
            return 0
        waiting = bool(self._queue)
        sent_at = time.monotonic_ns()
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
        """Which address of this machine `address` has sent to, where the socket has several."""
        return self._sources.get(address)

    def note_source(self, address: Address, kind: int, value: bytes) -> None:
        """Answer `address` from where it has sent to, as another pump's `source` has it."""
        self._sources.note(address, kind, value)

    def close(self) -> None:
        """Close the socket. What is queued is dropped; nothing is called back any more."""
        if self._closed:
            return
        self._closed = True
        self._await_room(False)
        self._loop.remove_reader(self._fd)
        self.dropped_packets += self.queued_packets
        self.queued_packets = 0
        self._queue.clear()
        self._sock.close()
        # They may lead back here.
        del self._receive, self._batch_received
        self._error_received = None

    def receive_pending(self) -> None:
        """Hand up what the socket has, at most a batch: what the loop calls when it is readable."""
        if self._closed or self.paused:
            return
        messages: list[_Message] = []
        drained = self._read_messages(messages)
        if not messages or self._closed:
            return
        now = self._clock.read(drained)
        receive = self._receive
        self.receive_batches += 1
        for data, ancillary, _, address in messages:
            arrival = now
            packets: Sequence[bytes] = (data,)
            # Of the options that are turned on, no two levels have the same kind.
            for _, kind, value in ancillary:
                if kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = _timespec.unpack(value)
                    arrival = self._clock.to_monotonic(seconds * 1_000_000_000 + nanoseconds)
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

    def _read_messages(self, messages: list[_Message]) -> bool:
        """Add to `messages` what was queued, and return whether it was all."""
        # Not recvmsg_into: the copy out of a kept buffer costs more than shrinking a new one.
        recvmsg = self._recvmsg
        room = self._batch
        while room > 0:
            room -= 1
            try:
                message = recvmsg(MAX_MESSAGE, ANCILLARY_SPACE)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError as exc:
                self._failed(exc)  # and the rest is for the next turn: this error may be back
                return False
            messages.append(message)
            if len(messages) == 1:
                # A packet is mostly alone; this costs a third of recvmsg's BlockingIOError.
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
            # What came by ICMP was an earlier packet's, and this one is still to be sent.
            if exc.errno in _FROM_ICMP and not retried and not self._closed:
                return self._transmit(group, address, retried=True)
            self.dropped_packets += len(group)
            return _DROPPED
        self.sent_packets += len(group)
        return _SENT

    def _reconnect_socket(self) -> None:
        """Connect anew: the source address that was chosen then is this host's no more.

        To QUIC that is a change of path like a NAT's (RFC 9000, section 9).
        """
        try:
            disconnect(self._sock)
            self._sock.connect(self._peer)
        except OSError:
            return  # no way leads there now; the next packet tries again
        self.local_address = self._sock.getsockname()

    def _flush(self) -> bool:
        """Send what is queued while there is room; return whether the first of it was sent."""
        self._retry = None  # it may be what called
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
                # Was it the segmentation, or would the packets be refused one by one as well?
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
        # A socket that lacks buffers counts as writable all the same: a timer, not a busy loop.
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
        # libuv, and so uvloop, stops watching a socket when it has seen an error on it.
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
        """Count an exception of a callback, and give it to the loop's exception handler."""
        self.callback_errors += 1
        self._loop.call_exception_handler(
            {"message": "exception in a callback of a UDP pump", "exception": exc}
        )
