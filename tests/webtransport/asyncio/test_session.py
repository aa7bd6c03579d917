from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pingpong.webtransport.asyncio import (
    DatagramTooLargeError,
    Draft,
    Limits,
    Session,
    SessionClosed,
    SessionClosedError,
    StreamResetError,
)
from pingpong.webtransport.asyncio.session import INCOMING_DATAGRAMS, INCOMING_STREAMS, Incoming
from pingpong.webtransport.streams import Stream
from tests.webtransport.asyncio.peers import (
    Pair,
    joined,
    on_a_loop,
    on_both_loops,
    serving,
    session_pair,
    task,
    until,
    until_still,
)

ONE_STREAM = Limits(initial_max_streams_bidi=1, initial_max_streams_uni=1)


# Facts.


@on_both_loops
async def test_facts_of_a_session() -> None:
    seen: list[Any] = []

    async def handler(session: Session) -> None:
        seen.append((session.request, session.protocol, session.remote_address))
        await session.closed

    def decide(request: Any) -> str:
        return str(request.protocols[1])

    async with serving(handler, decide=decide) as server:
        async with await joined(server, "/a?b=c", protocols=("one", "two")) as session:
            assert session.protocol == "two"
            assert isinstance(session.draft, Draft)
            assert str(session.draft) == "draft-16"
            assert session.remote_address[1] == server.port
            assert session.request.path == "/a?b=c"
        request, protocol, address = seen[0]
        assert request.path == "/a?b=c"
        assert request.authority == f"127.0.0.1:{server.port}"
        assert request.protocols == ("one", "two")
        assert protocol == "two"
        assert address[0] == "127.0.0.1"


# The end.


@pytest.mark.parametrize("closer", ["client", "server"])
@on_both_loops
async def test_codes_and_reasons_both_ways(closer: str) -> None:
    for code, reason in ((0, ""), (5, "bye"), (0xFFFF_FFFF, "Grüße ✓")):
        async with session_pair() as pair:
            ours, other = pair.ends(closer)
            ours.close(code, reason)
            ours.close(1, "not this one")
            assert await other.closed == SessionClosed(code, reason, by_peer=True)
            assert await ours.closed == SessionClosed(code, reason, by_peer=False)
            assert ours.closed.done()


@on_both_loops
async def test_the_code_arrives_though_the_connection_is_closed_right_after() -> None:
    for _ in range(10):
        async with session_pair() as pair:
            await pair.client.close(9, "right after")
            assert await pair.server.closed == SessionClosed(9, "right after")
    for _ in range(10):
        async with session_pair() as pair:
            await pair.listening.close(10, "shutdown")
            assert await pair.client.closed == SessionClosed(10, "shutdown")


@on_a_loop
async def test_a_session_that_is_left_without_a_word_is_closed_with_0() -> None:
    async with session_pair() as pair:
        async with pair.client:
            pass
        assert await pair.server.closed == SessionClosed(0, "")


@on_a_loop
async def test_a_code_has_32_bits_and_a_reason_1024_bytes() -> None:
    async with session_pair() as pair:
        with pytest.raises(ValueError, match="32 bits"):
            pair.client.close(1 << 32)
        assert not pair.client.closed.done()
        pair.client.close(1, "ä" * 600)
        assert (await pair.server.closed).reason == "ä" * 512


async def _pending_calls(
    session: Session, peer: Session
) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Everything of a session that can be awaited, so that it waits."""
    # All the credit for streams is used up by these.
    both = await session.create_bidirectional_stream()
    sending = await session.create_unidirectional_stream()
    await both.writable.write(b"x")
    theirs = await peer.create_unidirectional_stream()
    await theirs.write(b"x")
    receiving = await session.incoming_unidirectional_streams.get()
    await receiving.read()

    return {
        "read": both.readable.read,
        "read_all": receiving.read_all,
        "write": lambda: sending.write(bytes(4 << 20)),
        "close": lambda: both.writable.close(bytes(4 << 20)),
        "create": session.create_bidirectional_stream,
        "create another": session.create_bidirectional_stream,
        "create one way": session.create_unidirectional_stream,
        "incoming": session.incoming_bidirectional_streams.get,
        "incoming one way": session.incoming_unidirectional_streams.get,
        "datagram": session.datagrams.receive,
        "draining": lambda: _wait(session.draining),
    }


async def _wait(future: asyncio.Future[None]) -> None:
    await future


ENDS: dict[str, Callable[[Pair, Session, Session], object]] = {
    "by the peer": lambda pair, ours, other: other.close(4, "enough"),
    "by this side": lambda pair, ours, other: ours.close(4, "enough"),
    "connection closed": lambda pair, ours, other: pair.close_connection(other),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("side", ["client", "server"])
@on_both_loops
async def test_all_that_is_pending_ends_with_one_error(side: str, end: str) -> None:
    async with session_pair(limits=ONE_STREAM, client_limits=ONE_STREAM) as pair:
        ours, other = pair.ends(side)
        pending = await _pending_calls(ours, other)
        waiting = {name: task(_call(call)) for name, call in pending.items()}
        iterating = [
            task(_exhaust(stream))
            for stream in (
                ours.incoming_bidirectional_streams,
                ours.incoming_unidirectional_streams,
                ours.datagrams,
            )
        ]
        await until_still(lambda: [name for name, work in waiting.items() if work.done()])
        assert [name for name, work in waiting.items() if work.done()] == []
        ENDS[end](pair, ours, other)
        closed = await ours.closed
        for name, work in waiting.items():
            with pytest.raises(SessionClosedError) as raised:
                await work
            assert str(raised.value) == str(closed), name
            assert (raised.value.code, raised.value.reason) == (closed.code, closed.reason)
        # Who iterates comes to an end.
        assert await asyncio.gather(*iterating) == [0, 0, 0]
        assert (closed.code == 4) == (end != "connection closed")
        # And so does what begins only now.
        for name, call in pending.items():
            with pytest.raises(SessionClosedError):
                await call()
            assert name


async def _call(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


async def _exhaust(items: Any) -> int:
    count = 0
    async for _ in items:
        count += 1
    return count


@on_a_loop
async def test_a_vanished_peer_is_noticed_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with session_pair(idle_timeout=0.3) as pair:
        client = pair.client._client
        assert client is not None
        # It says nothing any more, not even that it leaves.
        monkeypatch.setattr(client.endpoint.pump, "send", lambda packets, address: 0)
        with pytest.raises(SessionClosedError, match="timed out"):
            await pair.server.datagrams.receive()
        client.abort()


# Draining.


@pytest.mark.parametrize("side", ["client", "server"])
@on_both_loops
async def test_drain_asks_and_leaves_the_session_alive(side: str) -> None:
    async with session_pair() as pair:
        ours, other = pair.ends(side)
        ours.drain()
        await other.draining
        await other.draining
        ours.datagrams.send(b"alive")
        assert await other.datagrams.receive() == b"alive"
        assert not ours.closed.done()


@on_a_loop
async def test_who_only_watches_draining_hears_no_complaint() -> None:
    async with session_pair() as pair:
        watched: list[asyncio.Future[Any]] = [pair.client.draining, pair.client.closed]
        pair.server.close(1, "")
        await asyncio.wait(watched)
        del watched
        gc.collect()


# Credit for streams.


@on_both_loops
async def test_creating_waits_for_credit_first_come_first_served() -> None:
    async with session_pair(limits=ONE_STREAM) as pair:
        order: list[int] = []

        async def use(number: int) -> None:
            stream = await pair.client.create_bidirectional_stream()
            order.append(number)
            await stream.writable.close()
            await stream.readable.read_all()

        users = [task(use(number)) for number in range(20)]
        async with asyncio.timeout(10):
            for _ in users:
                stream = await pair.server.incoming_bidirectional_streams.get()
                await stream.writable.close(await stream.readable.read_all())
        await asyncio.gather(*users)
        assert order == list(range(20))
        assert not any(pair.client._credit_waiters)


@on_a_loop
async def test_who_gives_up_waiting_for_credit_leaves_it_to_the_next() -> None:
    async with session_pair(limits=ONE_STREAM) as pair:
        first = await pair.client.create_unidirectional_stream()
        waiting = [task(pair.client.create_unidirectional_stream()) for _ in range(4)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[2].cancel()
        await asyncio.wait([waiting[0], waiting[2]])
        assert len(pair.client._credit_waiters[1]) == 2
        credited = pair.client.credit_received

        def woken_and_cancelled(session: Any) -> None:
            credited(session)
            waiting[1].cancel()

        pair.client.credit_received = woken_and_cancelled  # type: ignore[method-assign]
        await first.close()
        await (await pair.server.incoming_unidirectional_streams.get()).read_all()
        assert await waiting[3] is not None
        assert waiting[1].cancelled()
        assert not any(pair.client._credit_waiters)


# What comes in.


@on_a_loop
async def test_a_cancelled_get_loses_nothing() -> None:
    incoming: Incoming[int] = Incoming()
    waiting = [task(incoming.get()) for _ in range(3)]
    await asyncio.sleep(0)
    incoming.put(1)
    waiting[0].cancel()
    waiting[1].cancel()
    assert await waiting[2] == 1
    assert not incoming._waiters
    incoming.put(2)
    incoming.put(3)
    assert len(incoming) == 2
    assert await incoming.get() == 2
    incoming.end(SessionClosedError("over"))
    # What came before the end is not lost by it.
    assert [item async for item in incoming] == [3]
    await asyncio.wait(waiting)


@on_both_loops
async def test_datagrams_both_ways() -> None:
    async with session_pair() as pair:
        for ours, other in (pair.ends("client"), pair.ends("server")):
            largest = bytes(ours.datagrams.max_datagram_size)
            assert len(largest) > 1000
            assert ours.datagrams.send(largest)
            assert await other.datagrams.receive() == largest
            ours.datagrams.send(b"")
            async for data in other.datagrams:
                assert data == b""
                break
            with pytest.raises(DatagramTooLargeError):
                ours.datagrams.send(largest + b"x")


@on_a_loop
async def test_datagrams_that_nobody_reads_push_out_the_oldest() -> None:
    async with session_pair() as pair:
        count = INCOMING_DATAGRAMS + 50
        for number in range(count):
            pair.client.datagrams.send(number.to_bytes(2, "big"))
            if not number % 50:
                await until(lambda: pair.client._client.endpoint.pump.sent_packets)  # type: ignore[union-attr]
                await asyncio.sleep(0)
        queue = pair.server.datagrams
        await until(lambda: len(queue._incoming) + queue.dropped == count)
        assert queue.dropped == 50
        got = [await queue.receive() for _ in range(INCOMING_DATAGRAMS)]
        assert got == [number.to_bytes(2, "big") for number in range(50, count)]


@on_a_loop
async def test_streams_that_nobody_takes_are_refused_beyond_a_bound() -> None:
    async with session_pair() as pair:
        queue = pair.server.incoming_unidirectional_streams
        for _ in range(INCOMING_STREAMS):
            await (await pair.client.create_unidirectional_stream()).close()
        await until(lambda: len(queue) == INCOMING_STREAMS)
        refused = await pair.client.create_unidirectional_stream()
        await until(lambda: refused._error is not None)
        with pytest.raises(StreamResetError) as raised:
            await refused.write(b"too much")
        assert raised.value.code == 0
        # There is room again.
        await queue.get()
        welcome = await pair.client.create_unidirectional_stream()
        await welcome.close(b"welcome")
        await until(lambda: len(queue) == INCOMING_STREAMS)
        for _ in range(INCOMING_STREAMS - 1):
            await queue.get()
        assert await (await queue.get()).read_all() == b"welcome"


# Nothing is left.


@on_a_loop
async def test_ten_thousand_streams_leave_nothing() -> None:
    async def handler(session: Session) -> None:
        async def one_way() -> None:
            async for stream in session.incoming_unidirectional_streams:
                await stream.read_all()

        side = task(one_way())
        async for stream in session.incoming_bidirectional_streams:
            await stream.writable.close(await stream.readable.read_all())
        await side

    async with serving(handler) as server, await joined(server) as session:

        async def some(count: int) -> None:
            for _ in range(count):
                stream = await session.create_bidirectional_stream()
                await stream.writable.close(b"ping")
                assert await stream.readable.read_all() == b"ping"
                await (await session.create_unidirectional_stream()).close(b"ping")

        await some(100)
        await asyncio.gather(*[some(1_225) for _ in range(4)])
        core = session._get_core()
        assert session._client is not None
        mine = session._client.connection
        (connection,) = server.listener.connections
        (theirs,) = connection.sessions
        # What is left of a connection's are its HTTP/3 streams and the request for the session.
        await until(lambda: not core.streams and len(mine._streams) <= 5)
        await until(lambda: not theirs.streams and len(connection._streams) <= 5)
        gc.collect()
        left = [
            thing
            for thing in gc.get_objects()
            if isinstance(thing, Stream) and thing._quic.address[1] == server.port
        ]
        assert left == []
        assert not any(session._credit_waiters)


@on_a_loop
async def test_a_session_that_is_over_is_freed() -> None:
    async with session_pair() as pair:
        session = pair.client
        stream = await session.create_bidirectional_stream()
        await session.close()
        await pair.server.closed
        with pytest.raises(SessionClosedError):
            await stream.readable.read()
        del stream
        gc.collect()
        held = sys.getrefcount(session)
        assert held < 12
