"""What a peer says, and anybody in its place, where a person reads it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as aioquic_serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, ProtocolNegotiated, QuicEvent

from pingpong.client.output import terminal
from pingpong.link import describe_end
from pingpong.ping import PROTOCOL
from pingpong.webtransport import ConnectionHandler, SessionHandler
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.session import Session
from tests.client.ping.commands import ping, serving
from tests.client.ping.terminal import terminal as in_terminal
from tests.client.probe.forger import EVIL, SHOWN, forging
from tests.support.certificates import self_signed

NOTE = " (not authenticated)"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0x0, f"the server ended the connection with QUIC 0x0: {SHOWN}{NOTE} ("),
        (0xA, f"the server ended the connection with QUIC 0xa: {SHOWN}{NOTE} ("),
        (0x100 + 42, f"the server refused the TLS handshake: alert 42{NOTE} ("),
        (0x100 + 45, f"the server refused the TLS handshake: alert 45{NOTE} ("),
        (0x1FF + 1, f"the server ended the connection with QUIC 0x200: {SHOWN}{NOTE} ("),
    ],
)
async def test_a_forged_close(code: int, said: str) -> None:
    async with forging(code) as port:
        for words in (("-c1",), ("-c1", "--json"), ("-c1", "-q"), ("-c1", "-f")):
            status, found = await ping(port, *words)
            assert status == 2
            (complaint,) = found.complaints
            assert complaint.startswith(f"https://127.0.0.1:{port}/ping: {said}")
            for line in (*found.complaints, *found.lines):
                assert line.isprintable()
            if "--json" in words:
                (summary,) = map(json.loads, found.lines)
                assert summary["error"].startswith(said)


@pytest.mark.parametrize("reason", [b"", b"\xff\xfe", b"x" * 1000, b"\x1b" * 1000])
async def test_a_forged_close_with_any_reason_is_short(reason: bytes) -> None:
    async with forging(0xA, reason) as port:
        status, found = await ping(port, "-c1")
    (complaint,) = found.complaints
    assert status == 2
    assert NOTE in complaint
    assert complaint.isprintable()
    assert len(complaint) < 400


@pytest.mark.process
async def test_a_forged_close_in_the_live_view() -> None:
    async with forging(0xA) as port:
        words = ("ping", f"https://127.0.0.1:{port}/ping", "--insecure", "--live")
        async with in_terminal(*words, columns=200) as screen:
            await screen.shows(r"\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u200b\r\n64 bytes from")
            screen.press("q")
            assert await screen.finish() == 2
    assert "\x1b]0;title" not in screen.output
    assert not {"\x9b", "\u202e", "\u200b", "\x07"} & set(screen.output)
    assert "\n64 bytes" not in screen.output


@asynccontextmanager
async def closing(when: type[QuicEvent]) -> AsyncIterator[int]:
    """A server that closes each connection at an event."""

    class Closing(QuicConnectionProtocol):
        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, when):
                self.close(0xA, EVIL)

    made = self_signed()
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    configuration.certificate = made.certificate
    configuration.private_key = made.private_key
    server = await aioquic_serve(
        "127.0.0.1", 0, configuration=configuration, create_protocol=Closing
    )
    transport = server._transport
    assert transport is not None
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        server.close()


async def test_only_a_close_before_the_end_of_the_handshake_is_not_authenticated() -> None:
    async with closing(ProtocolNegotiated) as port:
        early = (await ping(port, "-c1"))[1].complaints[0]
    async with closing(HandshakeCompleted) as port:
        late = (await ping(port, "-c1"))[1].complaints[0]
    assert NOTE in early
    assert NOTE not in late
    assert SHOWN in late


class Closes(ConnectionHandler):
    """Ends each session with the first ping."""

    def session_requested(self, session: Session) -> None:
        class Handler(SessionHandler):
            def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
                session.close(7, f"{EVIL}{'x' * 500}")

        session.accept(Handler(), PROTOCOL)


async def test_the_reason_of_a_session_that_was_closed() -> None:
    async with serving(Closes()) as server:
        for words in (("-i0.05",), ("-i0.05", "--json")):
            said = (await ping(server.port, *words, "-c2"))[1]
            texts = [text for text in (*said.lines, *said.complaints) if "code 7" in text]
            assert texts
            for text in texts:
                assert f"the server closed the session (code 7): {SHOWN}xxx" in text
                assert text.isprintable()
                assert len(text) < 400


def test_how_a_session_ended() -> None:
    for closed in (SessionClosed(7, EVIL), SessionClosed(7, EVIL, by_peer=False)):
        assert SHOWN in describe_end(closed)
        assert SHOWN in str(closed)
        assert str(closed).isprintable()
        assert closed.reason == EVIL  # a program gets it as it came


# Where a line is written, whatever is in it by then.


def test_a_line_is_printable_once_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = terminal("client | ")
    output.write("one\ntwo \x1b[2J\u202e\udc80")
    output.complain("three\n\x1b[2J")
    out, err = capsys.readouterr()
    assert out == "client | one\nclient | two \\x1b[2J\\u202e\\udc80\n"
    assert err == "pingpong: three\\n\\x1b[2J\n"


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_a_terminal_that_knows_fewer_characters(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, "strict"))
    terminal().write("grüße …")
    wanted = "grüße …\n".encode(encoding, "backslashreplace")
    assert written.getvalue() == wanted
