"""How sessions and servers are opened and closed, and what is refused before anything is sent."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pingpong.webtransport.asyncio import (
    CertificateError,
    ConnectError,
    EndpointConfig,
    Server,
    Session,
    SessionClosedError,
    StreamResetError,
    connect,
    make_certificate,
    read_certificate,
    serve,
)
from tests.support.certificates import Pair, self_signed
from tests.webtransport.asyncio.peers import (
    echo,
    on_a_loop,
    on_both_loops,
    serving,
    session_pair,
    stay,
    trusted,
    until,
)

# Opening.


@on_both_loops
async def test_ways_to_open() -> None:
    async with serve(echo, "127.0.0.1", self_signed=True) as server:
        url = f"https://127.0.0.1:{server.port}/"
        pin = server.certificate_hash
        async with connect(url, certificate_hash=pin) as session:
            assert isinstance(session, Session)
        assert session.closed.done()
        async with await connect(url, certificate_hash=pin.hex()) as session:
            pass
        session = await connect(url, certificate_hash=pin.hex(":").upper())
        await session.close()
        session = await asyncio.create_task(connect(url, certificate_hash=pin))
        await session.close()
    server = await serve(echo, "127.0.0.1", config=trusted().config())
    assert isinstance(server, Server)
    async with server:
        pass
    async with await serve(echo, "127.0.0.1", self_signed=True):
        pass
    with pytest.raises(ConnectError):
        async with connect(url, timeout=0.01, insecure=True):
            pass


@on_a_loop
async def test_one_that_is_never_awaited_says_so() -> None:
    opening = connect("https://localhost/")
    with pytest.warns(RuntimeWarning, match="never awaited"):
        del opening


@on_a_loop
async def test_certificates_of_a_server(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.write_in_place(self_signed())
    certificate, key = pair.settings.values()
    async with serve(
        stay, "127.0.0.1", certificate_file=str(certificate), private_key_file=key
    ) as server:
        assert server.certificate_hash == self_signed().sha256
        url = f"https://127.0.0.1:{server.port}/"
        async with connect(url, ca_file=certificate):
            pass
        other = make_certificate(["localhost"], datetime.now(UTC))
        server.use_certificate(other)
        async with connect(url, certificate_hash=other.sha256):
            assert server.certificate_hash == other.sha256
    async with serve(stay, "", self_signed=True) as server:
        made = server.listener.endpoint.engine._config.certificate  # type: ignore[attr-defined]
        # What browsers accept by its hash.
        assert made.not_after - made.not_before <= timedelta(days=14)
    key.unlink()
    with pytest.raises(CertificateError, match=r"cannot read the key file .*tls\.key"):
        await serve(stay, certificate_file=certificate, private_key_file=key)
    with pytest.raises(CertificateError, match="no private key"):
        read_certificate(certificate, certificate)


@on_a_loop
async def test_a_certificate_that_has_expired_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    past = make_certificate(["localhost"], datetime.now(UTC) - timedelta(days=30))
    async with serve(stay, "127.0.0.1", config=EndpointConfig(certificate=past)):
        assert "expired" in caplog.text


URL = "https://localhost:1/"
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a URL of another kind": (lambda: connect(_any(b"https://x/")), TypeError, "url must be text"),
    "a URL of another scheme": (lambda: connect("http://x/"), ValueError, "https"),
    "PEM as a file's name": (lambda: connect(URL, ca_file=_any(b"-----")), TypeError, "ca_file"),
    "a hash that is too short": (lambda: connect(URL, certificate_hash=b"x"), ValueError, "32 b"),
    "a hash that is no hex": (lambda: connect(URL, certificate_hash="sha"), ValueError, "64 hex"),
    "a hash of another kind": (lambda: connect(URL, certificate_hash=_any(5)), TypeError, "int"),
    "two ways to trust": (lambda: connect(URL, ca_file="x", insecure=True), ValueError, "only one"),
    "no time": (lambda: connect(URL, timeout=math.nan), ValueError, "seconds above 0"),
    "time as text": (lambda: connect(URL, timeout=_any("5")), ValueError, "seconds above 0"),
    "lines in an origin": (lambda: connect(URL, origin="a\r\nb: c"), ValueError, "origin must be"),
    "config of another kind": (lambda: connect(URL, config=_any({})), TypeError, "not dict"),
    "no port": (lambda: serve(stay, port=70_000, self_signed=True), ValueError, "0 to 65535"),
    "no host": (lambda: serve(stay, _any(3), self_signed=True), TypeError, "host must be text"),
    "one protocol": (lambda: connect(URL, protocols="chat"), TypeError, r"\['chat'\]"),
    "a header of bytes and text": (
        lambda: connect(URL, headers=_any([("a", b"b")])),
        *(TypeError, "pairs of bytes"),
    ),
    "a header's name": (lambda: connect(URL, headers={":path": "/"}), ValueError, ":path"),
    "a header's value": (lambda: connect(URL, headers={"a": "b\r\nc: d"}), ValueError, "header"),
    "a certificate's name": (
        lambda: EndpointConfig(certificate=_any("cert.pem")),
        *(TypeError, "not str: read one from files"),
    ),
    "no certificate": (lambda: serve(stay), ValueError, "needs one certificate"),
    "two certificates": (
        lambda: serve(stay, self_signed=True, config=trusted().config()),
        *(ValueError, "needs one certificate"),
    ),
    "no key": (lambda: serve(stay, certificate_file="x"), ValueError, "must be given together"),
    "PEM as a certificate's file": (
        lambda: serve(stay, certificate_file=_any(b"-"), private_key_file="x"),
        *(TypeError, "certificate_file must be the name"),
    ),
    "no handler": (
        lambda: serve(_any("stay"), self_signed=True),
        TypeError,
        "handler must be a func",
    ),
    "a coroutine that decides": (
        lambda: serve(stay, self_signed=True, decide=_any(stay)),
        *(TypeError, "decide must be a plain function"),
    ),
}


def _any(value: object) -> Any:
    """What a type checker would refuse."""
    return value


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_right_is_refused_at_once(what: str) -> None:
    call, kind, text = REFUSED[what]
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.parametrize("decision", [True, 200, 3.5, "chat"])
@on_a_loop
async def test_a_decision_that_is_none_is_a_fault(
    decision: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(stay, "127.0.0.1", self_signed=True, decide=lambda _: decision) as server:
        url = f"https://127.0.0.1:{server.port}/"
        with pytest.raises(ConnectError) as raised:
            await connect(url, certificate_hash=server.certificate_hash)
        assert raised.value.status == 500
        assert "deciding on a session on / failed" in caplog.text


@on_a_loop
async def test_headers_and_origin_reach_the_server() -> None:
    seen: list[Any] = []

    async def handler(session: Session) -> None:
        request = session.request
        seen.append((request.origin, request.header("authorization"), request.header(b"x")))

    async with serving(handler) as server:
        url, pin = f"https://127.0.0.1:{server.port}/", trusted().sha256
        headers = {"Authorization": "Bearer abc"}
        async with connect(
            url, certificate_hash=pin, origin="https://a.test", headers=headers
        ) as session:
            await session.closed
        async with connect(url, certificate_hash=pin, headers=[(b"x", b"y")]) as session:
            await session.closed
    assert seen == [("https://a.test", b"Bearer abc", None), (None, None, b"y")]


# Closing.


@on_both_loops
async def test_closing_without_waiting_closes_as_well() -> None:
    async with session_pair() as pair:
        client = pair.client._client
        assert client is not None
        sending = await pair.client.create_unidirectional_stream()
        sending.close(b"all")
        received = await pair.server.incoming_unidirectional_streams.get()
        assert await received.read_all() == b"all"
        pair.client.close(5, "bye")
        closed = await pair.server.closed
        assert (closed.code, closed.reason) == (5, "bye")
        await until(lambda: client.closed is not None)
        pair.listening.close()
        await pair.listening.serve_forever()
        assert pair.listening.listener.endpoint._closed


@on_a_loop
async def test_a_session_that_the_peer_closes_takes_its_connection_along() -> None:
    async with session_pair() as pair:
        client = pair.client._client
        assert client is not None
        await pair.server.close(6)
        await until(lambda: client.closed is not None)
        assert (await pair.client.close()).code == 6


@on_a_loop
async def test_streams_close_at_the_end_of_a_block_and_abort_after_an_error() -> None:
    async with session_pair() as pair:
        for fails in (False, True):
            with contextlib.suppress(ZeroDivisionError):
                async with (
                    await pair.client.create_bidirectional_stream() as both,
                    await pair.client.create_unidirectional_stream() as sending,
                ):
                    await both.writable.write(b"both")
                    await sending.write(b"one")
                    if fails:
                        raise ZeroDivisionError
            theirs = await pair.server.incoming_bidirectional_streams.get()
            received = await pair.server.incoming_unidirectional_streams.get()
            for reading, data in ((theirs.readable, b"both"), (received, b"one")):
                if fails:
                    with pytest.raises(StreamResetError):
                        await reading.read_all()
                else:
                    assert await reading.read_all() == data
            # The answer is not read any more.
            stopped = theirs.writable
            await until(lambda: stopped._error is not None)  # noqa: B023
            with pytest.raises(StreamResetError):
                await stopped.write(b"answer")


@on_a_loop
async def test_what_is_sent_is_bytes() -> None:
    async with session_pair() as pair:
        stream = await pair.client.create_bidirectional_stream()
        for call in (
            lambda: pair.client.datagrams.send(_any("text")),
            lambda: stream.writable.close(_any("text")),
        ):
            with pytest.raises(TypeError, match="bytes, not str"):
                call()
        with pytest.raises(TypeError, match="bytes, not int"):
            await stream.writable.write(_any(5))
        await stream.writable.close(b"fine")


async def _calls_after_the_end(
    session: Session, peer: Session
) -> dict[str, Callable[[], Awaitable[Any] | Any]]:
    both = await session.create_bidirectional_stream()
    await both.writable.write(b"x")
    sending = await session.create_unidirectional_stream()
    theirs = await peer.create_unidirectional_stream()
    await theirs.write(b"x")
    receiving = await session.incoming_unidirectional_streams.get()
    assert await receiving.read() == b"x"
    return {
        "create_bidirectional_stream": session.create_bidirectional_stream,
        "create_unidirectional_stream": session.create_unidirectional_stream,
        "drain": session.drain,
        "draining": lambda: session.draining,
        "incoming_bidirectional_streams": session.incoming_bidirectional_streams.get,
        "incoming_unidirectional_streams": session.incoming_unidirectional_streams.get,
        "datagrams.send": lambda: session.datagrams.send(b"x"),
        "datagrams.receive": session.datagrams.receive,
        "read": both.readable.read,
        "read_all": receiving.read_all,
        "read_exactly": lambda: receiving.read_exactly(1),
        "write": lambda: both.writable.write(b"x"),
        "write one way": lambda: sending.write(b""),
        "stream.close": both.close,
        "writable.close": lambda: sending.close(b"x"),
    }


@pytest.mark.parametrize("side", ["client", "server"])
@on_a_loop
async def test_after_the_end_each_call_raises_the_same_error(side: str) -> None:
    async with session_pair() as pair:
        ours, other = pair.ends(side)
        calls = await _calls_after_the_end(ours, other)
        facts = {
            *("closed", "datagrams", "draft", "protocol", "remote_address", "request"),
            *("close", "session_closed", "session_draining", "session_established"),
            *("credit_received", "datagram_received", "stream_opened", "take_connection"),
            "wait_established",
        }
        public = {name for name in dir(ours) if not name.startswith("_")}
        assert public - facts <= {name.partition(".")[0] for name in calls}
        other.close(4, "enough")
        await ours.closed
        for name, call in calls.items():
            with pytest.raises(SessionClosedError) as raised:
                await call()
            assert (name, raised.value.code, raised.value.reason) == (name, 4, "enough")
        # What closes does so once, and what only says something goes on to say it.
        for _ in range(2):
            assert (await ours.close(9)).code == 4
        assert ours.request.path == "/"
        assert ours.datagrams.max_datagram_size >= 0
