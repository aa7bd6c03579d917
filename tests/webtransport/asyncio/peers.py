"""Peers for the tests of this folder: servers, pairs of sessions, certificates, loops."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from pingpong.webtransport import Connection, ErrorCode
from pingpong.webtransport.asyncio import (
    Server,
    Session,
    SessionClosed,
    connect,
    serve,
)
from tests.support.certificates import Authority, Leaf
from tests.support.virtual_time import VirtualTimeLoop

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


# Loops.


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on each loop; it must leave no task, and nothing for the exception handler."""

    @functools.wraps(test)
    def run(loop: str, **arguments: Any) -> None:
        run_clean(test(**arguments), loop)

    others = inspect.signature(test).parameters.values()
    loop_parameter = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(run)["__signature__"] = inspect.Signature([loop_parameter, *others])
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(run)
    return parametrized


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The same for what does not depend on which loop it is."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_clean(test(**arguments), "asyncio")

    return run


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The same for what waits for nothing but time: see `VirtualTimeLoop`."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_clean(test(**arguments), VirtualTimeLoop)

    return run


def run_clean(
    test: Awaitable[None], loop: str | Callable[[], asyncio.AbstractEventLoop], timeout: float = 60
) -> None:
    unhandled: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: unhandled.append(context)
        )
        async with asyncio.timeout(timeout):
            await test
        # What has been called back for the last time may still be on its way.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=LOOPS[loop] if isinstance(loop, str) else loop) as runner:
        runner.run(bounded())
        # Exceptions that nobody has looked at are reported when their future goes.
        gc.collect()
    assert not unhandled, [context.get("exception") or context for context in unhandled]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells of; the test's timeout ends it."""
    while not condition():
        await asyncio.sleep(0.001)


async def until_still(value: Callable[[], object], seconds: float = 0.05) -> None:
    """Wait until a value has not changed for a while."""
    last = value()
    while True:
        await asyncio.sleep(seconds)
        if (now := value()) == last:
            return
        last = now


def task(work: Awaitable[Any]) -> asyncio.Future[Any]:
    return asyncio.ensure_future(work)


@functools.cache
def trusted() -> Leaf:
    """What servers have in these tests, unless it is about that."""
    return Authority().issue("localhost", "127.0.0.1", "::1")


# Peers.


async def stay(session: Session) -> None:
    """A handler that leaves all to the other side."""
    await session.closed


async def echo(session: Session) -> None:
    """A handler that answers streams one after the other."""
    async for stream in session.incoming_bidirectional_streams:
        async for data in stream.readable:
            await stream.writable.write(data)
        await stream.writable.close()


@asynccontextmanager
async def serving(
    handler: Callable[[Session], Awaitable[None]] = stay,
    *,
    host: str = "127.0.0.1",
    limits: Any = None,
    decide: Any = lambda request: None,
    leaf: Leaf | None = None,
    **config: Any,
) -> AsyncIterator[Server]:
    server = await serve(
        handler,
        host,
        config=(leaf or trusted()).config(**config),
        limits=limits,
        decide=decide,
    )
    async with server:
        yield server


async def joined(server: Server, path: str = "/", **options: Any) -> Session:
    """A client's session with a server of `serving`."""
    url = f"https://127.0.0.1:{server.port}{path}"
    return await connect(url, certificate_hash=trusted().sha256, **options)


@dataclass
class Pair:
    """Both ends of one session."""

    client: Session
    server: Session
    listening: Server

    def ends(self, name: str) -> tuple[Session, Session]:
        """The end of that name, and the other."""
        return (self.client, self.server) if name == "client" else (self.server, self.client)

    def connections(self) -> tuple[Connection, Connection]:
        """The client's and the server's."""
        client = self.client._client
        assert client is not None
        (server,) = self.listening.listener.connections
        return client.connection, server

    def close_connection(self, session: Session) -> None:
        """One of both ends closes the connection."""
        self.connections()[session is self.server].close(ErrorCode.H3_INTERNAL_ERROR)

    async def over(self) -> tuple[SessionClosed, SessionClosed]:
        """How both sides see the end."""
        return await self.client.closed, await self.server.closed


@asynccontextmanager
async def session_pair(
    *, limits: Any = None, client_limits: Any = None, client_config: Any = None, **config: Any
) -> AsyncIterator[Pair]:
    arrived: asyncio.Future[Session] = asyncio.get_running_loop().create_future()

    async def handler(session: Session) -> None:
        arrived.set_result(session)
        await session.closed

    async with serving(handler, limits=limits, **config) as server:
        client = await joined(server, limits=client_limits, config=client_config)
        async with client:
            yield Pair(client, await arrived, server)


def silent_socket(family: int = socket.AF_INET) -> socket.socket:
    """A socket that takes packets and never answers."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    return sock


def closed_port(family: int = socket.AF_INET) -> int:
    """A port on which nobody listens."""
    with silent_socket(family) as sock:
        return int(sock.getsockname()[1])
