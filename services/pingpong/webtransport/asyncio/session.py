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
"""Maximum unread datagrams; a further one replaces the oldest."""

INCOMING_STREAMS = 1024
"""Maximum streams of a kind in the queue; further ones are refused with code 0.

The peer's credit does not limit them: it is renewed for each stream that has ended, also in the
queue.
"""

T = TypeVar("T")


class Incoming(Generic[T]):
    """A queue of what the peer has sent or opened: an asynchronous iterator.

    `async for` ends when the session ends; `Session.closed` has the reason.
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
        """Wait for the next item. Raises `SessionClosedError` after the last one."""
        while not self._items:
            self.check()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                # Woken and then cancelled: wake the next waiter for the item.
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self._items.popleft()

    def check(self) -> None:
        """Raise `SessionClosedError` if the session has ended, also if items are left."""
        if self._error is not None:
            raise self._error.again()

    def put(self, item: T) -> None:
        """Add an item, and wake one waiter."""
        self._items.append(item)
        self._wake_one()

    def drop_first(self) -> None:
        """Drop the oldest item."""
        self._items.popleft()

    def end(self, error: SessionClosedError) -> None:
        """Make `get` raise `error` once the queue is empty."""
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

    `async for` reads them until the session ends. At most `INCOMING_DATAGRAMS` are queued.
    """

    def __init__(self, core: CoreSession, high_water: int = INCOMING_DATAGRAMS) -> None:
        self.dropped = 0
        """Received datagrams that were dropped before they were read."""
        self._core = core
        self._high_water = high_water
        self._incoming: Incoming[bytes] = Incoming()

    @property
    def max_datagram_size(self) -> int:
        """The maximum size in bytes that can be sent; 0 if the peer accepts no datagrams."""
        return self._core.max_datagram_size

    def send(self, data: bytes) -> bool:
        """Send a datagram. Returns whether it was queued; it is dropped if the send queue is full.

        Raises `DatagramTooLargeError` above `max_datagram_size`, and `SessionClosedError` if the
        session has ended.
        """
        check_bytes(data)
        self._incoming.check()
        return self._core.send_datagram(data)

    async def receive(self) -> bytes:
        """Wait for the next datagram. Raises `SessionClosedError` if the session has ended."""
        return await self._incoming.get()

    def __aiter__(self) -> Incoming[bytes]:
        return self._incoming

    def feed(self, data: bytes) -> None:
        """Queue a received datagram; above the high-water mark the oldest is dropped."""
        if len(self._incoming) >= self._high_water:
            self._incoming.drop_first()
            self.dropped += 1
        self._incoming.put(data)

    def end(self, error: SessionClosedError) -> None:
        """Make `receive` raise `error` once the queue is empty."""
        self._incoming.end(error)


class Session(SessionWaiter, Closable):
    """A WebTransport session, from `connect` or for a handler of `serve`.

    `async with` closes it at the end. `incoming_bidirectional_streams` and
    `incoming_unidirectional_streams` have the streams that the peer opens. After the session has
    ended, every call and every wait raises the same `SessionClosedError`, with code and reason, and
    iterators end.
    """

    def __init__(self) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self._client: ClientConnection | None = None
        """The connection that ends with the session; None if it is shared."""
        self._closing: asyncio.Task[None] | None = None
        """The task that closes that connection."""
        self.incoming_bidirectional_streams: Incoming[BidirectionalStream] = Incoming()
        self.incoming_unidirectional_streams: Incoming[ReceiveStream] = Incoming()
        self._core: CoreSession | None = None
        self._datagrams: Datagrams | None = None
        self._closed: asyncio.Future[SessionClosed] = loop.create_future()
        self._draining: asyncio.Future[None] = loop.create_future()
        self._not_drained: SessionClosedError | None = None
        """The error of `draining` after a session that ended without it."""
        self._credit_waiters: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        """Waiters for a bidirectional or unidirectional stream, in order."""

    # Facts.

    @property
    def request(self) -> Request:
        """The request: authority, path, origin, headers."""
        return self._get_core().request

    @property
    def protocol(self) -> str | None:
        """The negotiated application protocol, or None."""
        return self._get_core().protocol

    @property
    def draft(self) -> Draft:
        """The negotiated draft of WebTransport."""
        return self._get_core().draft

    @property
    def remote_address(self) -> Address:
        """The peer's current socket address."""
        return self._get_core().remote_address

    @property
    def closed(self) -> asyncio.Future[SessionClosed]:
        """Done when the session ends, with its end; never raises. It can be awaited repeatedly."""
        return asyncio.shield(self._closed)

    @property
    def draining(self) -> asyncio.Future[None]:
        """Done when the peer drains the session.

        Raises `SessionClosedError` if the session ended without that.
        """
        if self._not_drained is None:
            waiter = asyncio.shield(self._draining)
        else:
            waiter = asyncio.get_running_loop().create_future()
            waiter.set_exception(self._not_drained.again())
        # Without a warning if the exception is never retrieved.
        waiter.add_done_callback(_retrieve)
        return waiter

    @property
    def datagrams(self) -> Datagrams:
        """The session's datagrams."""
        assert self._datagrams is not None
        return self._datagrams

    # Actions.

    async def create_bidirectional_stream(self) -> BidirectionalStream:
        """Open a stream; waits until the peer's credit allows it.

        Raises `SessionClosedError` if the session has ended.
        """
        adapter = StreamAdapter(None, None)
        stream = BidirectionalStream(await self._open_stream(adapter, unidirectional=False))
        adapter.receiving, adapter.sending = stream.readable, stream.writable
        return stream

    async def create_unidirectional_stream(self) -> SendStream:
        """Open a stream for sending only; waits and raises as `create_bidirectional_stream`."""
        adapter = StreamAdapter(None, None)
        stream = SendStream(await self._open_stream(adapter, unidirectional=True))
        adapter.sending = stream
        return stream

    def drain(self) -> None:
        """Ask the peer to finish and close the session (draft-16, section 4.6), which stays open.

        Raises `SessionClosedError` if the session has ended.
        """
        core = self._get_core()
        self.incoming_bidirectional_streams.check()
        core.drain()

    def close(self, code: int = 0, reason: str = "") -> Awaitable[SessionClosed]:
        """Close the session and all its streams. Another call does nothing.

        Await the result to wait until the session's own connection is closed too, which takes at
        most a second, so that the peer gets code and reason first; it returns how the session ended.
        A reason is truncated to 1024 bytes. Raises `ValueError` for a code of more than 32 bits.
        """
        self._get_core().close(code, reason)
        return Closing(self._wait_closed)

    async def _wait_closed(self) -> SessionClosed:
        closed = await self.closed
        if self._closing is not None:
            await finish(self._closing)
        return closed

    def take_connection(self, client: ClientConnection) -> None:
        """Take over a connection, which is closed when the session ends."""
        self._client = client
        if self._closed.done():
            self._close_connection(client)

    def _close_connection(self, client: ClientConnection) -> None:
        self._closing = asyncio.get_running_loop().create_task(client.close())

    # `SessionHandler`.

    def session_established(self, session: CoreSession) -> None:
        """Wake `wait_established`."""
        self._core = session
        self._datagrams = Datagrams(session)
        super().session_established(session)

    def session_draining(self, session: CoreSession) -> None:
        """Set `draining`."""
        if not self._draining.done():
            self._draining.set_result(None)

    def session_closed(self, session: CoreSession, closed: SessionClosed) -> None:
        """End all waits, with the same error."""
        super().session_closed(session, closed)
        error = SessionClosedError(str(closed), closed.code, closed.reason)
        if not self._closed.done():
            self._closed.set_result(closed)
            if self._client is not None:
                self._close_connection(self._client)
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
        """Queue the stream, or refuse it if the queue is full."""
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
        """Wake the first waiter for a stream."""
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
        # Earlier waiters come first.
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
                # Woken and then cancelled: wake the next waiter.
                waiters.remove(waiter)
                _wake_first(waiters)
                raise
            waiters.remove(waiter)
        try:
            return core.open_stream(adapter, unidirectional=unidirectional)
        finally:
            # One waiter is woken at a time; there may be credit for the next one.
            _wake_first(waiters)


def _wake_first(waiters: deque[asyncio.Future[None]]) -> None:
    if waiters and not waiters[0].done():
        waiters[0].set_result(None)


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
