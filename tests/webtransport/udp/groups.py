"""Several workers on one port, all in this process, and a NAT between them and a client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from pingpong.webtransport import ConnectionHandler, SessionHandler
from pingpong.webtransport.asyncio import (
    ClientConnection,
    Listener,
    SessionWaiter,
    Target,
    establish,
    listen,
    open_connection,
)
from pingpong.webtransport.quic.config import EndpointConfig
from pingpong.webtransport.quic.connection_ids import SharedKeys
from pingpong.webtransport.session import Session
from pingpong.webtransport.udp.forwarding import PacketForwarder, create_inboxes
from pingpong.webtransport.udp.steering import bind_group, steer
from tests.webtransport.asyncio.peers import trusted


class Echoing(SessionHandler):
    """Gives datagrams back."""

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        session.send_datagram(data)


class Accepting(ConnectionHandler):
    """Takes all sessions."""

    def session_requested(self, session: Session) -> None:
        session.accept(Echoing())


@dataclass
class Group:
    """The workers, and what they have in common."""

    listeners: list[Listener]
    handovers: list[PacketForwarder] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listeners[0].port

    @property
    def connections(self) -> list[int]:
        """How many each worker has."""
        return [len(listener.connections) for listener in self.listeners]


@asynccontextmanager
async def working(
    workers: int, *, steered: bool = True, host: str = "127.0.0.1", **config: Any
) -> AsyncIterator[Group]:
    """As many workers; without `steered` the kernel picks one by addresses and ports."""
    sockets = bind_group(host, 0, workers)
    if steered:
        assert steer(sockets)
    inboxes, outboxes = create_inboxes(workers)
    group = Group([])
    keys = SharedKeys()
    for index in range(workers):
        forwarder = PacketForwarder(inboxes[index], [outbox.dup() for outbox in outboxes])
        group.handovers.append(forwarder)
        group.listeners.append(
            listen(
                Accepting(),
                config=trusted().config(worker=index, workers=workers, keys=keys, **config),
                sock=sockets[index],
                forwarder=forwarder,
            )
        )
    for outbox in outboxes:
        outbox.close()
    try:
        yield group
    finally:
        for listener in group.listeners:
            await listener.close()


class Waiting(SessionWaiter):
    """A client's session that counts what comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        self.received.put_nowait(data)


@dataclass
class Client:
    """A client's session with one of the workers."""

    connection: ClientConnection
    session: Session
    handler: Waiting

    @classmethod
    async def join(
        cls, port: int, config: EndpointConfig | None = None, host: str = "127.0.0.1"
    ) -> Client:
        target = Target(host, port, certificate_hash=trusted().sha256)
        connection = await open_connection(target, config=config)
        handler = Waiting()
        return cls(connection, await establish(connection, handler), handler)

    async def ask(self, data: bytes) -> bytes:
        """Send a datagram, and again until something comes back."""
        while True:
            self.session.send_datagram(data)
            self.connection.endpoint.flush()
            try:
                async with asyncio.timeout(0.5):
                    while (answer := await self.handler.received.get()) != data:
                        pass
                    return answer
            except TimeoutError:
                continue


class Nat:
    """Forwards between one client and a server; what the server sees can change."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._inside: asyncio.DatagramTransport
        self._outside: asyncio.DatagramTransport
        self._client: tuple[str, int] | None = None

    @classmethod
    async def open(cls, port: int) -> Self:
        self = cls(port)
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(
            lambda: _Side(self.from_client), local_addr=("127.0.0.1", 0)
        )
        await self._open_outside("127.0.0.1")
        return self

    @property
    def port(self) -> int:
        """Where the client connects to."""
        return int(self._inside.get_extra_info("sockname")[1])

    @property
    def outside_port(self) -> int:
        """Which port the server sees."""
        return int(self._outside.get_extra_info("sockname")[1])

    async def rebind(self, host: str = "127.0.0.1") -> None:
        """From now on the server sees another port, or address as well."""
        self._outside.close()
        await self._open_outside(host)

    async def _open_outside(self, host: str) -> None:
        self._outside, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Side(self.from_server), local_addr=(host, 0), family=socket.AF_INET
        )

    def from_client(self, data: bytes, address: tuple[str, int]) -> None:
        self._client = address
        if not self._outside.is_closing():
            self._outside.sendto(data, self._server)

    def from_server(self, data: bytes, address: tuple[str, int]) -> None:
        if self._client is not None and not self._inside.is_closing():
            self._inside.sendto(data, self._client)

    def close(self) -> None:
        self._inside.close()
        self._outside.close()


class _Side(asyncio.DatagramProtocol):
    def __init__(self, forward: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._forward = forward

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._forward(data, address)
