"""The process between a link's two ends: takes packets from one TUN device, gives them to the other.

A process of its own, so that nothing but the packets themselves holds it up. It is told what to
do on a socket, in JSON, and ends when that socket is closed, however the test ended.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import heapq
import itertools
import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any

from .packets import Headers, Nat, flow_of, numbers, packed, parse, too_big
from .path import Impairment, Path, Verdict
from .records import Direction, Record

# <linux/sched.h>, <linux/if_tun.h>
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

DEVICE = "link0"
"""Of both ends."""
MAX_PACKET = 65_535
_BATCH = 32
"""Packets taken from a device before the others get their turn."""
_LOG_BUFFER = 1 << 16
_TOO_SHORT_TO_SLEEP = 200_000
"""Nanoseconds before a deadline that are waited through awake: kernels wake one up that late."""


def enter(namespace: str | int) -> None:
    """Bring this thread into a network namespace, by its file. Raises OSError."""
    fd = os.open(namespace, os.O_RDONLY) if isinstance(namespace, str) else namespace
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
    finally:
        if isinstance(namespace, str):
            os.close(fd)


def open_tun(name: str) -> int:
    """Make a TUN device in this thread's namespace; it is there as long as the file is open."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd


def hurry() -> None:
    """Have the kernel run this process as soon as a packet or a deadline is there."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        try:
            os.nice(-15)
        except OSError:
            pass  # Then its times are a little less exact; the records say how much.


@dataclass(slots=True)
class _Packet:
    data: bytes
    number: int
    direction: Direction
    protocol: int
    source: int
    destination: int
    received: int
    due: int
    copies: int

    def record(self, verdict: Verdict, sent: int = 0, *, is_copy: bool = False) -> bytes:
        return Record(
            self.number,
            self.direction,
            verdict,
            is_copy,
            self.protocol,
            len(self.data),
            self.source,
            self.destination,
            self.received,
            self.due,
            sent,
        ).pack()


class Forwarder:
    """Moves packets between `devices`, the client's TUN and the server's."""

    def __init__(
        self, devices: tuple[int, int], control: socket.socket, log: int, *, seed: int
    ) -> None:
        self._devices = devices
        self._control = control
        # Not closed here: the end of the process does that, after `run` has flushed it.
        self._log = os.fdopen(log, "wb", buffering=_LOG_BUFFER)
        self._paths = tuple(Path(f"{seed}/{direction.name}") for direction in Direction)
        self._nat = Nat()
        self._router = {4: packed("192.0.2.254"), 6: packed("2001:db8::fe")}
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, _Packet]] = []

    def run(self) -> None:
        """Forward until the other end of the control socket is closed."""
        client, server = self._devices
        watched = [client, server, self._control.fileno()]
        waiting = self._waiting
        while True:
            now = time.monotonic_ns()
            while waiting and waiting[0][0] <= now:
                self._deliver(heapq.heappop(waiting)[2])
                now = time.monotonic_ns()
            timeout = max(waiting[0][0] - now - _TOO_SHORT_TO_SLEEP, 0) / 1e9 if waiting else None
            # Not epoll, which counts in milliseconds.
            readable, _, _ = select.select(watched, (), (), timeout)
            if client in readable:
                self._receive(client, Direction.OUT)
            if server in readable:
                self._receive(server, Direction.BACK)
            if watched[2] in readable and not self._obey():
                break
        self._log.flush()

    # Packets.

    def _receive(self, device: int, direction: Direction) -> None:
        for _ in range(_BATCH):
            try:
                data = os.read(device, MAX_PACKET)
            except BlockingIOError:
                return
            now = time.monotonic_ns()
            headers = parse(data)
            if headers is not None and not headers.is_multicast:
                self._decide(data, headers, direction, now)

    def _decide(self, data: bytes, headers: Headers, direction: Direction, now: int) -> None:
        own: bytes | None = data
        if direction is Direction.BACK:
            own = self._nat.back(data, headers)
            headers = parse(own or data) or headers
        path = self._paths[direction]
        first, second = numbers(own or data, headers)
        fate = path.decide(now, len(data), flow_of(headers, first, second))
        packet = _Packet(
            own or data,
            next(self._numbers),
            direction,
            headers.protocol,
            first,
            second,
            now,
            fate.due,
            fate.copies,
        )
        if fate.verdict is Verdict.DELIVERED and own is not None:
            if direction is Direction.OUT:
                packet.data = self._nat.out(data, headers)
            heapq.heappush(self._waiting, (fate.due, packet.number, packet))
            return
        verdict = Verdict.UNMAPPED if own is None else fate.verdict
        packet.due = now
        self._log.write(packet.record(verdict))
        if verdict is Verdict.TOO_BIG and not path.impairment.silent_mtu:
            self._refuse(packet, headers, path.impairment.mtu or 0)

    def _refuse(self, packet: _Packet, headers: Headers, mtu: int) -> None:
        answer = too_big(packet.data, headers, mtu, self._router[headers.version])
        if answer is not None:
            self._write(self._devices[packet.direction], answer)

    def _deliver(self, packet: _Packet) -> None:
        device = self._devices[1 - packet.direction]
        for copy in range(1 + packet.copies):
            sent = time.monotonic_ns()
            if self._write(device, packet.data):
                record = packet.record(Verdict.DELIVERED, sent, is_copy=copy > 0)
            else:
                record = packet.record(Verdict.REFUSED, is_copy=copy > 0)
            self._log.write(record)

    def _write(self, device: int, data: bytes) -> bool:
        try:
            os.write(device, data)
        except OSError:
            return False
        return True

    # Orders.

    def _obey(self) -> bool:
        message = self._control.recv(MAX_PACKET)
        if not message:
            return False
        order = json.loads(message)
        answer: dict[str, Any] = {}
        for direction in Direction:
            if (impairment := order.get(direction.name)) is not None:
                self._paths[direction].impairment = Impairment(**impairment)
        if "rebind" in order:
            self._nat.rebind(order["rebind"])
        if order.get("flush"):
            self._log.flush()
            answer["in_flight"] = len(self._waiting)
        answer["at"] = time.monotonic_ns()
        self._control.send(json.dumps(answer).encode())
        return True


def main(control: int, log: int, seed: int, client: str, server: str) -> None:
    """Make a device in each of two namespaces, given by their files, say so, and forward."""
    devices = []
    for namespace in (client, server):
        enter(namespace)
        devices.append(open_tun(DEVICE))
    with socket.socket(fileno=control) as sock:
        forwarder = Forwarder((devices[0], devices[1]), sock, log, seed=seed)
        hurry()
        gc.disable()
        sock.send(b"{}")
        forwarder.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
