"""A way to a server on which nobody hears that a port is closed: what ICMP says ends here.

So it is where a firewall drops ICMP, or where the server's successor was quicker than any packet.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from typing import Any

from tests.integration.services import PORT, own_address


class Relay:
    """Passes packets on to a server and back, in a thread, each client's from a port of its own."""

    def __init__(self, server: str) -> None:
        self._server = (server, PORT)
        self._near = _socket()
        address = own_address()
        self._near.bind((address, PORT))
        self.url = f"https://{address}:{PORT}/ping"
        self._far: dict[Any, socket.socket] = {}
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wake.send(b"!")
        self._thread.join()
        for sock in (self._near, *self._far.values(), self._wake, self._woken):
            sock.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._near, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                        if key.data is None:
                            self._pass_on(selector)
                        else:
                            self._near.sendto(key.fileobj.recv(65_535), key.data)  # type: ignore[union-attr]

    def _pass_on(self, selector: selectors.BaseSelector) -> None:
        data, client = self._near.recvfrom(65_535)
        if client not in self._far:
            far = self._far[client] = _socket()
            far.connect(self._server)
            selector.register(far, selectors.EVENT_READ, client)
        self._far[client].send(data)


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


@contextlib.contextmanager
def relaying(server: str) -> Iterator[Relay]:
    relay = Relay(server)
    try:
        yield relay
    finally:
        relay.close()
