"""A relay whose way is bad: it loses, doubles, reorders, delays, and changes its address."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.integration.relay import Relay
from tests.integration.services import PORT
from tests.support.network.path import Impairment, Path, Verdict

_NANOSECONDS = 1_000_000_000


class ImpairedRelay(Relay):
    """Passes on as `impairment` has it, both ways; it may be changed at any time."""

    def __init__(self, server: str, seed: str) -> None:
        self._ways = (Path(f"{seed}/out"), Path(f"{seed}/back"))
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._moves = threading.Event()
        self.lost = 0
        """Packets that were not passed on."""
        super().__init__(server)

    @property
    def held(self) -> int:
        """Packets that are to be passed on later."""
        return len(self._due)

    def impair(self, impairment: Impairment) -> None:
        """Both ways are like that from now on."""
        for way in self._ways:
            way.impairment = impairment

    def move(self) -> None:
        """Send from other ports from now on, as a NAT does that has forgotten its mappings."""
        self._moves.set()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._near, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                if self._moves.is_set():
                    self._moves.clear()
                    self._forget(selector)
                now = time.monotonic_ns()
                wait = (self._due[0][0] - now) / _NANOSECONDS if self._due else 1.0
                for key, _ in selector.select(max(wait, 0.0)):
                    if key.fileobj is self._woken:
                        return
                    with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                        self._take(selector, key)
                while self._due and self._due[0][0] <= time.monotonic_ns():
                    with contextlib.suppress(OSError):
                        heapq.heappop(self._due)[2]()

    def _take(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        if key.data is None:
            data, client = self._near.recvfrom(65_535)
            if client not in self._far:
                far = self._far[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                far.setblocking(False)
                far.connect((self._server[0], PORT))
                selector.register(far, selectors.EVENT_READ, client)
            self._pass(0, data, client, self._far[client].send)
        else:
            assert isinstance(key.fileobj, socket.socket)
            data, client = key.fileobj.recv(65_535), key.data
            self._pass(1, data, client, lambda data: self._near.sendto(data, client))

    def _pass(self, way: int, data: bytes, client: Any, send: Callable[[bytes], object]) -> None:
        fate = self._ways[way].decide(time.monotonic_ns(), len(data), client)
        if fate.verdict is not Verdict.DELIVERED:
            self.lost += 1
            return
        for _ in range(1 + fate.copies):
            heapq.heappush(self._due, (fate.due, next(self._numbers), lambda: send(data)))

    def _forget(self, selector: selectors.BaseSelector) -> None:
        for far in self._far.values():
            selector.unregister(far)
            far.close()
        self._far.clear()


@contextlib.contextmanager
def impaired(server: str, seed: str) -> Iterator[ImpairedRelay]:
    """A relay to the server at an address, until the end of the block."""
    relay = ImpairedRelay(server, seed)
    try:
        yield relay
    finally:
        relay.close()
