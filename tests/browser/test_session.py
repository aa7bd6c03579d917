"""Chromium against `pingpong.webtransport.asyncio.serve`: what a server begins, codes, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from pingpong.webtransport.asyncio import (
    EndpointConfig,
    Request,
    Server,
    Session,
    SessionClosedError,
    StreamResetError,
    serve,
)
from pingpong.webtransport.certificates import Certificate
from tests.support.engines import ENGINES

PATIENCE = 60.0
"""Seconds after which what is waited for does not come any more, on a machine that is shared."""
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


class Site:
    """A server whose next session is given to the test, as long as that runs."""

    def __init__(self) -> None:
        self.server: Server
        self._sessions: asyncio.Queue[Session] = asyncio.Queue()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}/"

    async def handle(self, session: Session) -> None:
        self._sessions.put_nowait(session)
        await session.closed

    def decide(self, request: Request) -> int | None:
        return int(request.path[1:]) if request.path != "/" else None

    async def session(self) -> Session:
        return await asyncio.wait_for(self._sessions.get(), PATIENCE)


@pytest_asyncio.fixture(loop_scope="module", params=ENGINES)
async def site(request: pytest.FixtureRequest, certificate: Certificate) -> AsyncIterator[Site]:
    site = Site()
    config = EndpointConfig(certificate=certificate, engine=request.param)
    site.server = await serve(site.handle, "127.0.0.1", 0, config=config, decide=site.decide)
    async with site.server:
        yield site


async def both(
    tab: Any, site: Site, script: str, server: Callable[[Session], Awaitable[Any]]
) -> tuple[Any, Any]:
    """Run the script in a session, and the coroutine with the server's side of it."""

    async def serve_one() -> Any:
        return await server(await site.session())

    browser = asyncio.ensure_future(tab.run(site.url, script))
    answering = asyncio.ensure_future(serve_one())
    try:
        seen, served = await asyncio.wait_for(asyncio.gather(browser, answering), PATIENCE)
        return seen, served
    finally:
        browser.cancel()
        answering.cancel()
        await asyncio.gather(browser, answering, return_exceptions=True)


def closing(
    server: Callable[[Session], Awaitable[Any]],
) -> Callable[[Session], Awaitable[Any]]:
    """Close the session when the server's part is done."""

    async def serve_and_close(session: Session) -> Any:
        try:
            return await server(session)
        finally:
            session.close()

    return serve_and_close


async def answer_to(session: Session, datagram: bytes) -> bytes:
    """Send a datagram until one comes back: any of them may get lost."""
    while True:
        session.datagrams.send(datagram)
        try:
            return await asyncio.wait_for(session.datagrams.receive(), 0.25)
        except TimeoutError:
            continue


async def test_request(tab: Any, site: Site, origin: str) -> None:
    async def server(session: Session) -> tuple[str, str | None, str]:
        return session.request.path, session.request.origin, str(session.draft)

    _, request = await both(tab, site, "await wt.ready;", server)
    assert request == ("/", origin, "draft-02")


async def test_bidirectional_stream_of_the_server(tab: Any, site: Site) -> None:
    async def server(session: Session) -> bytes:
        stream = await session.create_bidirectional_stream()
        await stream.writable.close(b"hello")
        return await stream.readable.read_all()

    script = """
    const {readable, writable} = await next(wt.incomingBidirectionalStreams);
    const heard = text(await readAll(readable));
    await writeAll(writable, "well heard");
    return heard;
    """
    assert await both(tab, site, script, server) == ("hello", b"well heard")


async def test_unidirectional_stream_of_the_server(tab: Any, site: Site) -> None:
    async def server(session: Session) -> None:
        stream = await session.create_unidirectional_stream()
        await stream.close(b"hello")
        await session.closed

    script = "return text(await readAll(await next(wt.incomingUnidirectionalStreams)));"
    heard, _ = await both(tab, site, script, server)
    assert heard == "hello"


async def test_many_streams_of_the_server(tab: Any, site: Site) -> None:
    async def server(session: Session) -> list[bytes]:
        async def exchange(number: int) -> bytes:
            stream = await session.create_bidirectional_stream()
            await stream.writable.close(b"%d" % number)
            return await stream.readable.read_all()

        answers = await asyncio.gather(*map(exchange, range(250)))
        session.close()
        return answers

    script = """
    const reader = wt.incomingBidirectionalStreams.getReader();
    const answer = async ({readable, writable}) => {
        await writeAll(writable, text(await readAll(readable)) + "!");
    };
    let count = 0;
    try {
        for (;;) {
            const {value, done} = await reader.read();
            if (done) break;
            answer(value).catch(() => {});
            count += 1;
        }
    } catch (error) {}
    return count;
    """
    count, answers = await both(tab, site, script, server)
    assert count == 250
    assert answers == [b"%d!" % number for number in range(250)]


async def test_datagrams_of_the_server(tab: Any, site: Site) -> None:
    async def server(session: Session) -> bytes:
        return await answer_to(session, b"first")

    script = """
    const received = text(await next(wt.datagrams.readable));
    await untilClosed(wt, bytes(received + " answered"));
    return received;
    """
    assert await both(tab, site, script, closing(server)) == ("first", b"first answered")


async def test_largest_datagram_of_the_browser(tab: Any, site: Site) -> None:
    async def server(session: Session) -> bytes:
        return await session.datagrams.receive()

    script = """
    const size = wt.datagrams.maxDatagramSize;
    await untilClosed(wt, new Uint8Array(size).fill(7));
    return size;
    """
    size, received = await both(tab, site, script, closing(server))
    assert size >= 1000
    assert received == bytes([7]) * size


async def test_close_of_the_browser(tab: Any, site: Site) -> None:
    async def server(session: Session) -> tuple[int | None, str, bool]:
        closed = await session.closed
        return closed.code, closed.reason, closed.by_peer

    script = """
    wt.close({closeCode: 4_000_000_000, reason: "genug für heute"});
    await wt.closed;
    """
    _, closed = await both(tab, site, script, server)
    assert closed == (4_000_000_000, "genug für heute", True)


async def test_close_of_the_server(tab: Any, site: Site) -> None:
    async def server(session: Session) -> None:
        session.close(4_000_000_000, "genug für heute")

    script = "const {closeCode, reason} = await wt.closed; return [closeCode, reason];"
    closed, _ = await both(tab, site, script, server)
    assert closed == [4_000_000_000, "genug für heute"]


async def test_longest_reason_of_the_server(tab: Any, site: Site) -> None:
    async def server(session: Session) -> None:
        session.close(1, "x" * 2000)

    closed, _ = await both(tab, site, "return (await wt.closed).reason;", server)
    assert closed == "x" * 1024


async def test_close_ends_what_is_open_in_the_browser(tab: Any, site: Site) -> None:
    async def server(session: Session) -> None:
        stream = await session.incoming_bidirectional_streams.get()
        await stream.readable.read()
        session.close(5, "over")

    script = """
    const {readable, writable} = await wt.createBidirectionalStream();
    const writer = writable.getWriter();
    await writer.write(bytes("x"));
    const failures = await Promise.all([failure(readAll(readable)), failure(writer.closed)]);
    return failures.map(({name, source}) => [name, source]);
    """
    failures, _ = await both(tab, site, script, server)
    assert failures == [["WebTransportError", "session"]] * 2


async def test_close_of_the_browser_ends_what_is_open_here(tab: Any, site: Site) -> None:
    async def server(session: Session) -> int | None:
        stream = await session.incoming_bidirectional_streams.get()
        await stream.readable.read_exactly(1)
        await stream.writable.close(b"go")
        with pytest.raises(SessionClosedError, match="code 6: over") as caught:
            await stream.readable.read()
        return caught.value.code

    script = """
    const {readable, writable} = await wt.createBidirectionalStream();
    await writable.getWriter().write(bytes("x"));
    await readAll(readable);
    wt.close({closeCode: 6, reason: "over"});
    """
    _, code = await both(tab, site, script, server)
    assert code == 6


@pytest.mark.parametrize("code", [0, 29, 30, 255, 4_294_967_295])
async def test_reset_of_the_server(tab: Any, site: Site, code: int) -> None:
    async def server(session: Session) -> None:
        stream = await session.incoming_bidirectional_streams.get()
        stream.writable.abort(code)
        await session.closed

    script = """
    const {readable, writable} = await wt.createBidirectionalStream();
    await writable.getWriter().write(bytes("x"));
    return await failure(readAll(readable));
    """
    failure, _ = await both(tab, site, script, server)
    assert failure == {"name": "WebTransportError", "source": "stream", "code": code}


@pytest.mark.parametrize("code", [0, 30, 4_294_967_295])
async def test_stop_of_the_server(tab: Any, site: Site, code: int) -> None:
    async def server(session: Session) -> None:
        # In the middle of a write Chromium tells that, and not the code: so not before the
        # second stream is there, which may come before the first.
        for _ in range(2):
            stream = await session.incoming_unidirectional_streams.get()
            if await stream.read() == b"x":
                stopped = stream
        stopped.cancel(code)
        await session.closed

    script = """
    const writer = (await wt.createUnidirectionalStream()).getWriter();
    await writer.write(bytes("x"));
    await writeAll(await wt.createUnidirectionalStream(), "now");
    return await failure(writer.closed);
    """
    # That the stream's pipe broke may reach the page before the reason does, and then stands for it:
    # one time in four. What is wrong on our side is wrong every time.
    for _ in range(20):
        failure, _ = await both(tab, site, script, server)
        if failure["name"] != "DOMException":
            break
    assert failure == {"name": "WebTransportError", "source": "stream", "code": code}


# Chromium cuts codes to a byte.
@pytest.mark.parametrize("code", [0, 29, 30, 255])
async def test_abort_of_the_browser(tab: Any, site: Site, code: int) -> None:
    async def server(session: Session) -> int | None:
        stream = await session.incoming_unidirectional_streams.get()
        with pytest.raises(StreamResetError) as caught:
            await stream.read_all()
        return caught.value.code

    script = f"""
    const writer = (await wt.createUnidirectionalStream()).getWriter();
    await writer.write(bytes("x"));
    await writer.abort(new WebTransportError({{streamErrorCode: {code}}}));
    await wt.closed;
    """
    _, received = await both(tab, site, script, closing(server))
    assert received == code


@pytest.mark.parametrize("code", [0, 30, 255])
async def test_cancel_of_the_browser(tab: Any, site: Site, code: int) -> None:
    async def server(session: Session) -> int | None:
        stream = await session.create_unidirectional_stream()

        async def write() -> None:
            while True:
                await stream.write(bytes(100_000))

        with pytest.raises(StreamResetError) as caught:
            await write()
        return caught.value.code

    script = f"""
    const stream = await next(wt.incomingUnidirectionalStreams);
    await stream.cancel(new WebTransportError({{streamErrorCode: {code}}}));
    await wt.closed;
    """
    _, received = await both(tab, site, script, closing(server))
    assert received == code


async def test_refused_session(refused_tab: Any, site: Site) -> None:
    """Whatever the status is: a page learns no more than that there is no session."""
    for status in (404, 503):
        failure = await refused_tab.run_without_session(
            f"{site.url}{status}", "return await failure(open());"
        )
        assert failure == {"name": "WebTransportError", "source": "session", "code": None}


async def test_drain(tab: Any, site: Site) -> None:
    """The session is told, where the browser has a way to tell it, and goes on."""

    async def server(session: Session) -> bytes:
        site.server.drain()
        return await answer_to(session, b"draining")

    script = """
    await next(wt.datagrams.readable);
    if (wt.draining) await wt.draining;
    await untilClosed(wt, bytes("still here"));
    """
    _, received = await both(tab, site, script, closing(server))
    assert received == b"still here"


async def test_after_drain_the_browser_gets_a_new_connection(tab: Any, site: Site) -> None:
    async def server(session: Session) -> None:
        session.close()

    await both(tab, site, "await wt.closed;", server)
    site.server.drain()
    await both(tab, site, "await wt.closed;", server)


async def test_end_of_the_server(tab: Any, site: Site) -> None:
    """A server that leaves for good still says so."""

    async def server(session: Session) -> None:
        await site.server.close(9, "shutting down")

    script = "const {closeCode, reason} = await wt.closed; return [closeCode, reason];"
    closed, _ = await both(tab, site, script, server)
    assert closed == [9, "shutting down"]
