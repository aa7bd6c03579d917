from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.asyncio import (
    Limits,
    ReceiveStream,
    SessionClosedError,
    StateError,
    StreamResetError,
)
from pingpong.webtransport.asyncio.streams import WRITE_HIGH_WATER
from pingpong.webtransport.streams import Stream
from tests.webtransport.asyncio.peers import (
    echo,
    joined,
    on_a_loop,
    on_both_loops,
    serving,
    session_pair,
    task,
    until,
    until_still,
)

WITHOUT_FLOW_CONTROL = Limits(
    initial_max_data=0, initial_max_streams_bidi=0, initial_max_streams_uni=0
)


class HeldBytes:
    """The part of a core stream that a reader uses: which bytes have no credit yet."""

    def __init__(self) -> None:
        self.held = 0
        self.stopped: int | None = None

    def hold(self, size: int) -> None:
        self.held += size

    def release(self, size: int) -> None:
        assert 0 <= size <= self.held
        self.held -= size

    def stop(self, code: int) -> None:
        self.stopped = code
        self.held = 0


def reader() -> tuple[ReceiveStream, HeldBytes]:
    held = HeldBytes()
    return ReceiveStream(cast(Stream, held)), held


# Reading and writing.


@on_both_loops
async def test_bytes_go_both_ways() -> None:
    async with serving(echo) as server, await joined(server) as session:
        stream = await session.create_bidirectional_stream()
        assert stream.stream_id == 4
        await stream.writable.write(b"hello")
        assert await stream.readable.read() == b"hello"
        await stream.writable.close(b"bye")
        assert await stream.readable.read_all() == b"bye"
        assert stream.readable.at_end
        assert await stream.readable.read() == b""


@on_both_loops
async def test_unidirectional_streams_both_ways() -> None:
    async with session_pair() as pair:
        for sender, receiver in (pair.ends("client"), pair.ends("server")):
            sending = await sender.create_unidirectional_stream()
            await sending.close(b"one way")
            receiving = await receiver.incoming_unidirectional_streams.get()
            assert await receiving.read_all() == b"one way"


@on_both_loops
async def test_a_large_write_arrives_whole() -> None:
    data = os.urandom(3 << 20)
    async with serving(echo) as server, await joined(server) as session:
        stream = await session.create_bidirectional_stream()
        writing = task(stream.writable.close(data))
        assert await stream.readable.read_all(len(data)) == data
        await writing


@on_a_loop
async def test_reading_takes_what_is_there_in_the_sizes_asked_for() -> None:
    stream, held = reader()
    stream.feed(b"abcdefghij", False)
    assert await stream.read(3) == b"abc"
    assert await stream.read(0) == b""
    assert await stream.read_exactly(2) == b"de"
    assert held.held == 5
    assert await stream.read() == b"fghij"
    assert not stream.at_end
    stream.feed(b"kl", True)
    assert [chunk async for chunk in stream] == [b"kl"]
    assert stream.at_end
    assert held.held == 0


@on_a_loop
async def test_a_second_read_at_once_is_refused() -> None:
    stream, _ = reader()
    first = task(stream.read())
    await asyncio.sleep(0)
    with pytest.raises(StateError, match="another read"):
        await stream.read()
    stream.feed(b"for the first", False)
    assert await first == b"for the first"


@on_a_loop
async def test_a_cancelled_read_loses_nothing() -> None:
    stream, _ = reader()
    reading = task(stream.read())
    await asyncio.sleep(0)
    # What it waits for comes in the turn in which it is cancelled.
    stream.feed(b"kept", False)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await stream.read() == b"kept"


@on_a_loop
async def test_a_cancelled_read_of_many_pieces_loses_none() -> None:
    reads: list[Callable[[ReceiveStream], Coroutine[Any, Any, bytes]]] = [
        lambda stream: stream.read_exactly(10),
        lambda stream: stream.read_all(),
    ]
    for read in reads:
        stream, held = reader()
        stream.feed(b"abc", False)
        reading = task(read(stream))
        await asyncio.sleep(0)
        stream.feed(b"def", False)
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        stream.feed(b"ghi", True)
        assert await stream.read(7) == b"abcdefg"
        assert await stream.read_all() == b"hi"
        assert held.held == 0


@on_a_loop
async def test_reading_too_much_or_too_little_loses_nothing_either() -> None:
    stream, held = reader()
    stream.feed(b"abcdef", True)
    with pytest.raises(ValueError, match="more than 5"):
        await stream.read_all(5)
    with pytest.raises(EOFError, match="6 of 7"):
        await stream.read_exactly(7)
    assert await stream.read_exactly(6) == b"abcdef"
    assert stream.at_end
    assert held.held == 0


@given(st.data())
def test_however_reads_are_cut_and_cancelled_the_bytes_are_the_same(data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=20), max_size=10))
    plan = data.draw(st.lists(st.tuples(st.sampled_from(["read", "exactly"]), st.integers(1, 30))))

    async def run() -> None:
        stream, held = reader()
        arriving = list(pieces)
        got = bytearray()
        for kind, size in plan:
            work = stream.read(size) if kind == "read" else stream.read_exactly(size)
            reading = task(work)
            await asyncio.sleep(0)
            while not reading.done() and arriving:
                stream.feed(arriving.pop(0), False)
                if kind == "read":
                    break
                await asyncio.sleep(0)
            reading.cancel()
            try:
                got += await reading
            except asyncio.CancelledError:
                continue
        for piece in arriving:
            stream.feed(piece, False)
        stream.feed(b"", True)
        got += await stream.read_all()
        assert got == b"".join(pieces)
        assert held.held == 0

    asyncio.run(run())


# Backpressure of one stream.


@on_both_loops
async def test_writing_waits_for_a_reader_and_goes_on_with_it() -> None:
    async with session_pair() as pair:
        sending = await pair.client.create_unidirectional_stream()
        size = 8 << 20
        writing = task(sending.close(bytes(size)))
        receiving = await pair.server.incoming_unidirectional_streams.get()
        await until_still(lambda: len(receiving._buffer))
        assert not writing.done()
        assert len(receiving._buffer) <= 1 << 20
        read = 0
        while chunk := await receiving.read():
            read += len(chunk)
        assert read == size
        await writing


@pytest.mark.parametrize("limits", [Limits(), WITHOUT_FLOW_CONTROL], ids=["credit", "no credit"])
@on_a_loop
async def test_what_else_arrives_does_not_let_a_write_through(limits: Limits) -> None:
    async with session_pair(limits=limits, client_limits=limits) as pair:
        sending = await pair.client.create_unidirectional_stream()
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await sending.write(bytes(64 << 10))
                written += 64 << 10

        writing = task(write())
        receiving = await pair.server.incoming_unidirectional_streams.get()
        await until_still(lambda: written)
        for _ in range(50):
            pair.server.datagrams.send(b"something else")
            await pair.client.datagrams.receive()
        await asyncio.sleep(0)
        assert written <= (1 << 20) + WRITE_HIGH_WATER + (64 << 10)
        assert sending._stream.buffered <= WRITE_HIGH_WATER + (64 << 10)
        before = written
        # Nor does it wait for ever.
        await receiving.read()
        await until(lambda: written > before)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing


@pytest.mark.parametrize("limits", [Limits(), WITHOUT_FLOW_CONTROL], ids=["credit", "no credit"])
@on_both_loops
async def test_an_end_with_many_bytes_is_done_when_they_have_gone_out(limits: Limits) -> None:
    size = 3 * WRITE_HIGH_WATER  # less than any window: the end leaves at once
    async with session_pair(limits=limits, client_limits=limits) as pair:
        sending = await pair.client.create_unidirectional_stream()
        closing = task(sending.close(bytes(size)))
        receiving = await pair.server.incoming_unidirectional_streams.get()
        assert not closing.done()
        async with asyncio.timeout(10):
            assert len(await receiving.read_all(size)) == size
            await closing


@on_both_loops
async def test_a_cancelled_write_leaves_nothing_and_arrives() -> None:
    async with session_pair() as pair:
        sending = await pair.client.create_unidirectional_stream()
        size = 2 << 20
        writing = task(sending.write(bytes(size)))
        receiving = await pair.server.incoming_unidirectional_streams.get()
        await until_still(lambda: len(receiving._buffer))
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert sending._waiters == []
        closing = task(sending.close(b"end"))
        assert await receiving.read_exactly(size) == bytes(size)
        assert await receiving.read_all() == b"end"
        await closing


@on_a_loop
async def test_several_writers_of_one_stream_all_go_on() -> None:
    async with session_pair() as pair:
        sending = await pair.client.create_unidirectional_stream()
        writers = [task(sending.write(bytes([n]) * (1 << 20))) for n in range(3)]
        receiving = await pair.server.incoming_unidirectional_streams.get()
        for n in range(3):
            assert await receiving.read_exactly(1 << 20) == bytes([n]) * (1 << 20)
        await asyncio.gather(*writers)
        await sending.close()
        assert await receiving.read() == b""


# Ends.


@pytest.mark.parametrize("code", [0, 29, 30, 0xFFFF_FFFF])
@on_a_loop
async def test_a_reset_comes_with_its_code_behind_what_was_read(code: int) -> None:
    async with session_pair() as pair:
        stream = await pair.client.create_bidirectional_stream()
        await stream.writable.write(b"before")
        peer = await pair.server.incoming_bidirectional_streams.get()
        await until(lambda: peer.readable._buffer)
        stream.writable.abort(code)
        await until(lambda: peer.readable._ended)
        assert await peer.readable.read() == b"before"
        for _ in range(2):
            with pytest.raises(StreamResetError) as raised:
                await peer.readable.read()
            assert raised.value.code == code
        # The other half lives on.
        await peer.writable.close(b"all the same")
        assert await stream.readable.read_all() == b"all the same"
        with pytest.raises(StateError, match="reset by this side"):
            await stream.writable.write(b"after")
        await stream.writable.close()


@pytest.mark.parametrize("code", [0, 29, 30, 0xFFFF_FFFF])
@on_a_loop
async def test_who_writes_to_one_that_stopped_reading_hears_its_code(code: int) -> None:
    async with session_pair() as pair:
        stream = await pair.client.create_bidirectional_stream()
        writing = task(stream.writable.write(bytes(4 << 20)))
        peer = await pair.server.incoming_bidirectional_streams.get()
        await peer.readable.read(1)
        waiting = task(peer.readable.read_exactly(8 << 20))
        await asyncio.sleep(0)
        peer.readable.cancel(code)
        with pytest.raises(StateError, match="cancelled"):
            await waiting
        with pytest.raises(StreamResetError) as raised:
            await writing
        assert raised.value.code == code
        for call in (stream.writable.write(b"x"), stream.writable.close()):
            with pytest.raises(StreamResetError):
                await call
        with pytest.raises(StateError, match="cancelled"):
            await peer.readable.read()


@on_a_loop
async def test_a_stream_ends_once() -> None:
    async with session_pair() as pair:
        sending = await pair.client.create_unidirectional_stream()
        await sending.close(b"all")
        await sending.close()
        for call in (sending.close(b"more"), sending.write(b"more")):
            with pytest.raises(StateError, match="ended"):
                await call
        receiving = await pair.server.incoming_unidirectional_streams.get()
        assert await receiving.read_all() == b"all"


@on_a_loop
async def test_a_code_has_32_bits() -> None:
    async with session_pair() as pair:
        stream = await pair.client.create_bidirectional_stream()
        for code in (-1, 1 << 32):
            with pytest.raises(ValueError, match="32 bits"):
                stream.writable.abort(code)
            with pytest.raises(ValueError, match="32 bits"):
                stream.readable.cancel(code)
        # Nothing has ended by that.
        await stream.writable.close(b"fine")
        peer = await pair.server.incoming_bidirectional_streams.get()
        assert await peer.readable.read_all() == b"fine"


@on_a_loop
async def test_what_had_arrived_can_be_read_when_the_session_is_gone() -> None:
    async with session_pair() as pair:
        stream = await pair.client.create_bidirectional_stream()
        await stream.writable.write(b"in time")
        peer = await pair.server.incoming_bidirectional_streams.get()
        await until(lambda: peer.readable._buffer)
        pair.client.close(7, "enough")
        await pair.over()
        assert await peer.readable.read() == b"in time"
        calls: Any
        for calls in (peer.readable.read, peer.writable.close, lambda: peer.writable.write(b"x")):
            with pytest.raises(SessionClosedError, match="enough") as raised:
                await calls()
            assert (raised.value.code, raised.value.reason) == (7, "enough")


@on_a_loop
async def test_an_error_that_is_raised_often_does_not_grow() -> None:
    stream, _ = reader()
    stream.end(SessionClosedError("over"))
    lengths = set()
    for _ in range(3):
        with pytest.raises(SessionClosedError) as raised:
            await stream.read()
        lengths.add(len(raised.traceback))
    assert len(lengths) == 1


@on_both_loops
async def test_many_streams_at_once_of_all_sizes() -> None:
    randomness = random.Random(16)
    sizes = [randomness.choice((0, 1, 100, 5_000, 70_000)) for _ in range(60)]

    async def echo_all(session: Any) -> None:
        async def answer(stream: Any) -> None:
            await stream.writable.close(await stream.readable.read_all())

        async with asyncio.TaskGroup() as group:
            async for stream in session.incoming_bidirectional_streams:
                group.create_task(answer(stream))

    async with serving(echo_all) as server, await joined(server) as session:

        async def ask(size: int) -> None:
            data = randomness.randbytes(size)
            stream = await session.create_bidirectional_stream()
            await stream.writable.close(data)
            assert await stream.readable.read_all() == data

        await asyncio.gather(*map(ask, sizes))
