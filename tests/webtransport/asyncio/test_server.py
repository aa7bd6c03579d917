from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicProtocolVersion, pull_quic_header

from pingpong.webtransport import ConnectionHandler
from pingpong.webtransport.asyncio import (
    Cause,
    ConnectError,
    EndpointConfig,
    Limits,
    Session,
    SessionClosed,
    SessionClosedError,
    SessionWaiter,
    Target,
    connect,
    establish,
    listen,
    open_connection,
    serve,
)
from tests.webtransport.asyncio.peers import (
    echo,
    joined,
    on_a_loop,
    on_both_loops,
    serving,
    session_pair,
    stay,
    task,
    trusted,
    until,
)

# One socket, many connections.


@on_both_loops
async def test_many_connections_and_sessions_on_one_socket() -> None:
    async with serving(echo) as server:

        async def use(number: int) -> None:
            async with await joined(server) as session:
                stream = await session.create_bidirectional_stream()
                await stream.writable.close(b"%d" % number)
                assert await stream.readable.read_all() == b"%d" % number

        await asyncio.gather(*map(use, range(8)))
        assert server.listener.endpoint.engine.counters.connections == 8
        await until(lambda: not server.listener.connections)
        assert not server._tasks


@on_both_loops
async def test_several_sessions_on_one_connection() -> None:
    async with serving(echo, limits=Limits(max_sessions=2)) as server:
        target = Target("localhost", server.port, certificate_hash=trusted().sha256)
        client = await open_connection(target)
        first, second = Session(), Session()
        await establish(client, first)
        await establish(client, second)
        with pytest.raises(ConnectError, match="429"):
            await establish(client, Session())
        first.close(1, "only this one")
        await first.closed
        stream = await second.create_bidirectional_stream()
        await stream.writable.close(b"still here")
        assert await stream.readable.read_all() == b"still here"
        # There is room again.
        await establish(client, Session())
        await client.close()


@on_a_loop
async def test_a_name_for_all_addresses_takes_both_families() -> None:
    async with serving(stay, host="::") as server:
        for host in ("127.0.0.1", "[::1]"):
            url = f"https://{host}:{server.port}/"
            async with await connect(url, certificate_hash=trusted().sha256):
                pass


# Admission.


@on_both_loops
async def test_an_address_is_validated_by_retry_where_handshakes_pile_up() -> None:
    async with serving(echo, max_handshakes=0) as server:
        async with await joined(server) as session:
            stream = await session.create_bidirectional_stream()
            await stream.writable.close(b"all the same")
            assert await stream.readable.read_all() == b"all the same"
        counters = server.listener.endpoint.engine.counters
        assert (counters.retries_sent, counters.retries_invalid) == (1, 0)
        assert counters.handshakes == 1


@on_a_loop
async def test_a_server_that_is_full_says_so() -> None:
    async with serving(stay, max_connections=1) as server:
        async with await joined(server):
            with pytest.raises(ConnectError) as raised:
                await joined(server)
            assert raised.value.cause is Cause.REFUSED
            assert str(raised.value) == "the server refuses connections: it is full or leaving"
        assert server.listener.endpoint.engine.counters.refused_connections == 1


@on_a_loop
async def test_unknown_versions_are_answered_with_the_known_ones() -> None:
    async with serving(stay) as server:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            ours, theirs = os.urandom(8), os.urandom(8)
            hello = b"\xc0\x1a\x2a\x3a\x4a\x08" + theirs + b"\x08" + ours
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            await loop.sock_sendall(sock, hello + bytes(1200 - len(hello)))
            header = pull_quic_header(Buffer(data=await loop.sock_recv(sock, 2000)))
        assert header.destination_cid == ours
        assert header.source_cid == theirs
        assert QuicProtocolVersion.VERSION_1 in header.supported_versions


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 3, b"\xc0" + bytes(1300), bytes(1300)])
@on_a_loop
async def test_garbage_is_dropped(garbage: bytes) -> None:
    async with serving(stay) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(garbage, ("127.0.0.1", server.port))
            async with await joined(server) as session:
                assert not session.closed.done()


@on_a_loop
async def test_what_a_server_cannot_begin_with() -> None:
    with pytest.raises(ValueError, match="certificate"):
        await serve(stay, config=EndpointConfig())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            await serve(stay, "127.0.0.1", taken.getsockname()[1], config=trusted().config())


# Decisions.


@on_a_loop
async def test_a_decision_that_fails_costs_one_session(caplog: pytest.LogCaptureFixture) -> None:
    def decide(request: Any) -> Any:
        if request.path == "/raises":
            raise RuntimeError("no idea")
        return "not offered" if request.path == "/protocol" else None

    async with serving(stay, decide=decide) as server:
        target = Target("localhost", server.port, "/", certificate_hash=trusted().sha256)
        client = await open_connection(target)
        await establish(client, good := Session())
        for path in ("/raises", "/protocol"):
            client.target = Target("localhost", server.port, path)
            with pytest.raises(ConnectError) as raised:
                await establish(client, SessionWaiter())
            assert raised.value.status == 500
        assert not good.closed.done()
        await client.close()
    failures = [record.getMessage() for record in caplog.records if record.exc_info]
    assert failures == [f"deciding on a session on {p} failed" for p in ("/raises", "/protocol")]


# Handlers.


@on_both_loops
async def test_what_becomes_of_a_session_when_its_handler_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(session: Session) -> None:
        match session.request.path:
            case "/returns":
                return
            case "/closes":
                session.close(3, "done")
            case "/raises":
                raise RuntimeError("a fault")
            case "/elsewhere":
                # It is closed, but not this one.
                raise SessionClosedError("another session")
            case "/reset":
                stream = await session.incoming_unidirectional_streams.get()
                await stream.read_all()

    async with serving(handler) as server:
        ends = {}
        for path in ("/returns", "/closes", "/raises", "/elsewhere"):
            async with await joined(server, path) as session:
                ends[path] = await session.closed
        async with await joined(server, "/reset") as session:
            stream = await session.create_unidirectional_stream()
            await stream.write(b"x")
            stream.abort(1)
            ends["/reset"] = await session.closed
    assert ends == {
        "/returns": SessionClosed(0, ""),
        "/closes": SessionClosed(3, "done"),
        "/raises": SessionClosed(1, "internal error"),
        "/elsewhere": SessionClosed(1, "internal error"),
        "/reset": SessionClosed(1, "a stream was reset"),
    }
    failures = [record.getMessage() for record in caplog.records if record.exc_info]
    # What a peer does is no fault of ours to be logged with a traceback.
    assert failures == [
        f"the handler of a session on {path} failed" for path in ("/raises", "/elsewhere")
    ]


@on_a_loop
async def test_a_handler_that_waits_for_a_session_that_ends_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def handler(session: Session) -> None:
        await session.datagrams.receive()

    async with serving(handler) as server:
        async with await joined(server):
            pass
        await until(lambda: not server._tasks)
    assert [record for record in caplog.records if record.name.startswith("pingpong")] == []


# Leaving.


@on_both_loops
async def test_draining_asks_all_and_accepts_no_more() -> None:
    async with serving(stay) as server:
        target = Target("localhost", server.port, certificate_hash=trusted().sha256)
        clients = [await open_connection(target) for _ in range(2)]
        sessions = [Session() for _ in clients]
        for client, session in zip(clients, sessions, strict=True):
            await establish(client, session)
        server.drain()
        for session in sessions:
            await session.draining
            assert not session.closed.done()
        with pytest.raises(ConnectError, match="no more sessions"):
            await establish(clients[0], Session())
        for client in clients:
            await client.close()


@on_both_loops
async def test_shutdown_in_order() -> None:
    order: list[str] = []

    async def handler(session: Session) -> None:
        try:
            await session.datagrams.receive()
        except SessionClosedError as error:
            order.append(f"handler: {error.code} {error.reason}")

    server = await serve(handler, "127.0.0.1", config=trusted().config())
    session = await joined(server)
    client = session._client
    assert client is not None
    await until(lambda: server._tasks)
    await server.close(12, "maintenance")
    order.append("server")
    assert await session.closed == SessionClosed(12, "maintenance")
    await until(lambda: client.closed is not None)
    assert client.closed is not None
    # CONNECTION_CLOSE came behind, with H3_NO_ERROR.
    assert (client.closed.code, client.closed.is_application) == (0x100, True)
    await session.close()
    assert order == ["handler: 12 maintenance", "server"]
    await server.close()


@on_a_loop
async def test_a_handler_that_does_not_end_is_cancelled() -> None:
    ended: list[BaseException] = []

    async def handler(session: Session) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    async with serving(handler) as server:
        session = await joined(server)
        await until(lambda: server._tasks)
    assert len(ended) == 1
    assert await session.closed == SessionClosed(0, "")
    await session.close()


@on_both_loops
async def test_a_cancelled_shutdown_leaves_nothing() -> None:
    async with session_pair() as pair:
        client = pair.client._client
        assert client is not None
        # The client does not answer, so that the close has to wait.
        send = client.endpoint.pump.send
        client.endpoint.pump.send = lambda packets, address: 0  # type: ignore[method-assign]
        closing = task(pair.listening.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        client.endpoint.pump.send = send  # type: ignore[method-assign]
        await until(lambda: not pair.listening._tasks)
        # The port is free.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", pair.listening.port))


@on_a_loop
async def test_no_session_begins_while_a_listener_closes() -> None:
    class Handler(ConnectionHandler):
        def session_requested(self, session: Any) -> None:
            session.accept(SessionWaiter())

    listener = listen(Handler(), "127.0.0.1", config=trusted().config())
    target = Target("localhost", listener.port, certificate_hash=trusted().sha256)
    client = await open_connection(target)
    listener._closing = True
    with pytest.raises(ConnectError) as raised:
        await establish(client, Session())
    assert raised.value.status == 503
    await asyncio.gather(listener.close(1, "bye"), listener.close(1, "bye"))
    client.endpoint.close()


@on_a_loop
async def test_sessions_can_be_closed_without_their_connections() -> None:
    async with serving(stay) as server:
        target = Target("localhost", server.port, certificate_hash=trusted().sha256)
        client = await open_connection(target)
        session = Session()
        await establish(client, session)
        await server.listener.close_sessions(7, "go")
        closed = await session.closed
        assert (closed.code, closed.reason) == (7, "go")
        assert len(server.listener.connections) == 1
        # Who asks now is told so, and not left without an answer.
        with pytest.raises(ConnectError) as raised:
            await joined(server)
        assert raised.value.status == 503
        await client.close()
