"""The awaitable session: the W3C WebTransport API, in snake case.

It is one of the users of the core's plain calls. What arrives is kept until it is awaited,
within bounds: above `INCOMING_STREAMS` further streams are refused, above
`INCOMING_DATAGRAMS` the oldest datagram is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Generic, TypeVar

from ..drafts import Draft
from ..errors import SessionClosedError, StateError
from ..events import Request, SessionClosed
from ..quic.engine import Address
from ..session import Session as CoreSession
from ..states import State
from ..streams import Stream, StreamHandler
from .connection import ClientConnection, SessionWaiter
from .opening import Closable, Closing, finish
from .streams import BidirectionalStream, ReceiveStream, SendStream, StreamAdapter, check_bytes

INCOMING_DATAGRAMS = 256
"""Datagrams that wait to be read; further ones push out the oldest."""

INCOMING_STREAMS = 1024
"""Streams of a kind that wait to be taken; further ones are refused with code 0.

The peer's credit alone is no bound: it is renewed for a stream that has ended, taken or not.
"""

T = TypeVar("T")


class Incoming(Generic[T]):
    """What has come from the peer and was not taken yet: an asynchronous iterator.

    `async for` ends when the session does, however that is; `Session.closed` says how.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._error: SessionClosedError | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> Incoming[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except SessionClosedError:
            raise StopAsyncIteration from None

    async def get(self) -> T:
        """The next one. Raises `SessionClosedError` where there will be none."""
        while not self._items:
            self.check()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                # Woken and cancelled at once: the next in line is to have what came.
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self._items.popleft()

    def check(self) -> None:
        """Raise `SessionClosedError` where the session is over, whatever is left to take."""
        if self._error is not None:
            raise self._error.again()

    def put(self, item: T) -> None:
        """Add what has come, and wake one that waits."""
        self._items.append(item)
        self._wake_one()

    def drop_first(self) -> None:
        """Drop the oldest."""
        self._items.popleft()

    def end(self, error: SessionClosedError) -> None:
        """Have all that wait, then and later, raise `error` once the queue is empty."""
        self._error = error
        while self._waiters:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Datagrams:
    """A session's datagrams, in and out: unreliable, unordered, one packet each.

    `async for` takes what arrives, until the session is over. At most `INCOMING_DATAGRAMS` wait.
    """

    def __init__(self, core: CoreSession, high_water: int = INCOMING_DATAGRAMS) -> None:
        self.dropped = 0
        """Datagrams that arrived and were pushed out before they were read."""
        self._core = core
        self._high_water = high_water
        self._incoming: Incoming[bytes] = Incoming()

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest that can be sent; 0 where the peer takes none."""
        return self._core.max_datagram_size

    def send(self, data: bytes) -> bool:
        """Send one; false where it was dropped because too many wait to leave.

        Raises `DatagramTooLargeError` above `max_datagram_size`, `SessionClosedError` where the
        session is over.
        """
        check_bytes(data)
        self._incoming.check()
        return self._core.send_datagram(data)

    async def receive(self) -> bytes:
        """The next one. Raises `SessionClosedError` when the session is over."""
        return await self._incoming.get()

    def __aiter__(self) -> Incoming[bytes]:
        return self._incoming

    def feed(self, data: bytes) -> None:
        """Queue one that has arrived; the oldest gives way above the high-water mark."""
        if len(self._incoming) >= self._high_water:
            self._incoming.drop_first()
            self.dropped += 1
        self._incoming.put(data)

    def end(self, error: SessionClosedError) -> None:
        """Have `receive` raise `error` once the queue is empty."""
        self._incoming.end(error)


class Session(SessionWaiter, Closable):
    """A WebTransport session, of `connect` or of a handler of `serve`.

    `async with` closes it at the end. Streams that the peer opens come out of
    `incoming_bidirectional_streams` and `incoming_unidirectional_streams`. Once the session is
    over, all that waits and each call raises one `SessionClosedError`, with code and reason;
    iterators end.
    """

    def __init__(self) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self._client: ClientConnection | None = None
        """The connection that ends with the session, where it has one of its own."""
        self._leaving: asyncio.Task[None] | None = None
        """Ends that connection."""
        self.incoming_bidirectional_streams: Incoming[BidirectionalStream] = Incoming()
        self.incoming_unidirectional_streams: Incoming[ReceiveStream] = Incoming()
        self._core: CoreSession | None = None
        self._datagrams: Datagrams | None = None
        self._closed: asyncio.Future[SessionClosed] = loop.create_future()
        self._draining: asyncio.Future[None] = loop.create_future()
        self._not_drained: SessionClosedError | None = None
        """What there is in place of `_draining` once the session has ended without."""
        self._credit_waiters: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        """Who waits to open a stream, bidirectional or unidirectional, first come first served."""

    # Facts.

    @property
    def request(self) -> Request:
        """What was asked for: authority, path, origin, headers."""
        return self._get_core().request

    @property
    def protocol(self) -> str | None:
        """The application protocol agreed on."""
        return self._get_core().protocol

    @property
    def draft(self) -> Draft:
        """The draft of WebTransport that both sides speak."""
        return self._get_core().draft

    @property
    def remote_address(self) -> Address:
        """The peer's socket address, as last seen."""
        return self._get_core().remote_address

    @property
    def closed(self) -> asyncio.Future[SessionClosed]:
        """Done when the session is over, with how it ended; never raises. Awaitable any times."""
        return asyncio.shield(self._closed)

    @property
    def draining(self) -> asyncio.Future[None]:
        """Done when the peer has asked to finish and leave.

        Raises `SessionClosedError` where the session ended without that.
        """
        if self._not_drained is None:
            waiter = asyncio.shield(self._draining)
        else:
            waiter = asyncio.get_running_loop().create_future()
            waiter.set_exception(self._not_drained.again())
        # How it ended need not be looked at.
        waiter.add_done_callback(_look_at)
        return waiter

    @property
    def datagrams(self) -> Datagrams:
        """Datagrams, in and out."""
        assert self._datagrams is not None
        return self._datagrams

    # Actions.

    async def create_bidirectional_stream(self) -> BidirectionalStream:
        """Open a stream; waits while the peer's credit allows no more.

        Raises `SessionClosedError` where the session is over.
        """
        adapter = StreamAdapter(None, None)
        stream = BidirectionalStream(await self._open_stream(adapter, unidirectional=False))
        adapter.receiving, adapter.sending = stream.readable, stream.writable
        return stream

    async def create_unidirectional_stream(self) -> SendStream:
        """Open a stream that only we write; waits and raises as the other does."""
        adapter = StreamAdapter(None, None)
        stream = SendStream(await self._open_stream(adapter, unidirectional=True))
        adapter.sending = stream
        return stream

    def drain(self) -> None:
        """Ask the peer to finish and leave (section 4.6); the session goes on.

        Raises `SessionClosedError` where the session is over.
        """
        core = self._get_core()
        self.incoming_bidirectional_streams.check()
        core.drain()

    def close(self, code: int = 0, reason: str = "") -> Awaitable[SessionClosed]:
        """End the session and all its streams, from the call on. Once more does nothing.

        Await what it returns to wait until a connection of the session's own has ended as well,
        which lets the peer hear code and reason first, for a second at most; it says how the
        session ended. A reason above 1024 bytes is cut. Raises `ValueError` for a code that has
        more than 32 bits.
        """
        self._get_core().close(code, reason)
        return Closing(self._wait_closed)

    async def _wait_closed(self) -> SessionClosed:
        closed = await self.closed
        if self._leaving is not None:
            await finish(self._leaving)
        return closed

    def take_connection(self, client: ClientConnection) -> None:
        """Have a connection end with the session."""
        self._client = client
        if self._closed.done():
            self._leave(client)

    def _leave(self, client: ClientConnection) -> None:
        self._leaving = asyncio.get_running_loop().create_task(client.close())

    # `SessionHandler`.

    def session_established(self, session: CoreSession) -> None:
        """Wake `wait_established`; the session can be used from now on."""
        self._core = session
        self._datagrams = Datagrams(session)
        super().session_established(session)

    def session_draining(self, session: CoreSession) -> None:
        """Set `draining`."""
        if not self._draining.done():
            self._draining.set_result(None)

    def session_closed(self, session: CoreSession, closed: SessionClosed) -> None:
        """End all that is awaited, with one error."""
        super().session_closed(session, closed)
        error = SessionClosedError(str(closed), closed.code, closed.reason)
        if not self._closed.done():
            self._closed.set_result(closed)
            if self._client is not None:
                self._leave(self._client)
        if not self._draining.done():
            self._draining.set_exception(error.again())
            self._draining.exception()
            self._not_drained = error
            del self._draining
        for stream in session.streams:
            if isinstance(stream.handler, StreamAdapter):
                stream.handler.session_closed(error)
        self.incoming_bidirectional_streams.end(error)
        self.incoming_unidirectional_streams.end(error)
        if self._datagrams is not None:
            self._datagrams.end(error)
        for waiters in self._credit_waiters:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def datagram_received(self, session: CoreSession, data: bytes, arrival: int) -> None:
        """Queue it for `datagrams`."""
        if self._datagrams is not None:
            self._datagrams.feed(data)

    def stream_opened(self, stream: Stream) -> StreamHandler:
        """Queue it for its iterator; refuse it where too many wait there."""
        queue: Incoming[ReceiveStream] | Incoming[BidirectionalStream]
        if stream.is_unidirectional:
            queue = self.incoming_unidirectional_streams
        else:
            queue = self.incoming_bidirectional_streams
        if len(queue) >= INCOMING_STREAMS:
            return super().stream_opened(stream)
        if stream.is_unidirectional:
            receiving = ReceiveStream(stream)
            self.incoming_unidirectional_streams.put(receiving)
            return StreamAdapter(receiving, None)
        both = BidirectionalStream(stream)
        self.incoming_bidirectional_streams.put(both)
        return StreamAdapter(both.readable, both.writable)

    def credit_received(self, session: CoreSession) -> None:
        """Wake the first that waits to open a stream."""
        for waiters in self._credit_waiters:
            _wake_first(waiters)

    # The rest.

    def _get_core(self) -> CoreSession:
        if self._core is None:
            raise StateError("the session is not established yet")
        return self._core

    async def _open_stream(self, adapter: StreamAdapter, *, unidirectional: bool) -> Stream:
        core = self._get_core()
        waiters = self._credit_waiters[unidirectional]
        # Those that wait already come first.
        must_wait = bool(waiters)
        while must_wait or not core.can_open_stream(unidirectional):
            if core.state is not State.ESTABLISHED:
                closed = self._closed.result()
                raise SessionClosedError(str(closed), closed.code, closed.reason)
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if must_wait:
                waiters.append(waiter)
            else:
                waiters.appendleft(waiter)
            must_wait = False
            try:
                await waiter
            except BaseException:
                # Woken and cancelled at once: it is the next one's turn.
                waiters.remove(waiter)
                _wake_first(waiters)
                raise
            waiters.remove(waiter)
        try:
            return core.open_stream(adapter, unidirectional=unidirectional)
        finally:
            # One is woken at a time; there may be credit for the next as well.
            _wake_first(waiters)


def _wake_first(waiters: deque[asyncio.Future[None]]) -> None:
    if waiters and not waiters[0].done():
        waiters[0].set_result(None)


def _look_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
