"""Connections of `pingpong ping` that are made, and that are not, and what it says of them."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as aioquic_serve
from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

from pingpong.client.target import target_of
from pingpong.settings import PingSettings
from pingpong.webtransport.session import Session
from tests.client.ping.commands import (
    Choosing,
    Said,
    ping,
    serving,
    silent_port,
)
from tests.support.certificates import Authority, self_signed

# Where the connection isn't made


@asynccontextmanager
async def http3_without_webtransport() -> AsyncIterator[int]:
    class Http3(QuicConnectionProtocol):
        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, ProtocolNegotiated):
                self.http = H3Connection(self._quic)

    made = self_signed()
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    configuration.certificate = made.certificate
    configuration.private_key = made.private_key
    server = await aioquic_serve("127.0.0.1", 0, configuration=configuration, create_protocol=Http3)
    transport = server._transport
    assert transport is not None
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        server.close()


async def fails(port: int, *words: str) -> str:
    """The one line that a failed connection is told in."""
    status, said = await ping(port, "-c1", *words)
    assert status == 2
    assert said.lines == []
    (complaint,) = said.complaints
    assert "\n" not in complaint
    return complaint


async def test_wrong_port() -> None:
    with silent_port() as port:
        pass  # was free, and is again
    assert await fails(port) == (
        f"https://127.0.0.1:{port}/ping: UDP port {port} is unreachable: Connection refused"
        " (nothing listens there: a wrong port, or the server is down)"
    )


@pytest.mark.parametrize("option", ["--connect-timeout=0.2", "-w0.2"])
async def test_no_answer(option: str) -> None:
    with silent_port() as port:
        complaint = await fails(port, option)
    assert "no answer on UDP port" in complaint
    assert "within 0.2 s (a firewall" in complaint


async def test_unknown_name() -> None:
    complaint = await fails(1, "https://no-such-host.invalid/")
    assert complaint.startswith("https://no-such-host.invalid/: no address for no-such-host")
    assert complaint.endswith("(check the name, or give an address)")


async def test_untrusted_certificate(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(self_signed("other.example").pem())
    async with serving() as server:
        complaint = await fails(server.port, "--ca", str(ca_file))
    assert "the certificate is not trusted" in complaint
    assert "--cert-hash" in complaint


async def test_another_certificate_than_the_pinned() -> None:
    async with serving() as server:
        complaint = await fails(server.port, "--cert-hash", "ab" * 32)
    assert complaint.endswith(
        f"the certificate is not trusted: its SHA-256 is {self_signed().sha256.hex()}, not the one"
        " that was given (if the server's log shows this SHA-256, give it to --cert-hash;"
        " serve --state-dir keeps the certificate across restarts)"
    )


async def test_certificate_for_another_name(tmp_path: Path) -> None:
    leaf = Authority().issue("ping.example")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(leaf.authority_pem)
    async with serving(with_certificate=leaf) as server:
        complaint = await fails(server.port, "--ca", str(ca_file))
    assert "the certificate is for ping.example, not for 127.0.0.1" in complaint


async def test_unknown_path() -> None:
    async with serving() as server:
        url = f"https://127.0.0.1:{server.port}/pong"
        complaint = await fails(server.port, url)
    assert complaint == (
        f"{url}: the server answered 404 for /pong (is the path right? pingpong answers on /ping)"
    )


async def test_http3_without_webtransport() -> None:
    async with http3_without_webtransport() as port:
        complaint = await fails(port)
    assert "speaks HTTP/3, but not WebTransport" in complaint


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nxx\n"])
async def test_unusable_file_of_authorities(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    async with serving() as server:
        complaint = await fails(server.port, "--ca", str(ca_file))
    assert str(ca_file) in complaint
    assert complaint.startswith("--ca (PINGPONG_CA): ")


# Whom it trusts, and by which family


async def test_authority(tmp_path: Path) -> None:
    leaf = Authority().issue("localhost", "127.0.0.1")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(leaf.authority_pem)
    async with serving(with_certificate=leaf) as server:
        status, said = await ping(server.port, "-c1", "--ca", str(ca_file))
    assert (status, said.complaints) == (0, [])


async def test_insecure() -> None:
    async with serving(with_certificate=self_signed("other.example")) as server:
        status, said = await ping(server.port, "-c1", "--insecure")
    assert (status, said.complaints) == (0, [])


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_families() -> None:
    async with serving(host="::" if has_ipv6() else "0.0.0.0") as server:
        url = f"https://localhost:{server.port}/"
        _, said = await ping(server.port, "-c1", "-4", url)
        assert "(127.0.0.1)" in said.lines[0]
        if has_ipv6():
            url = f"https://[::1]:{server.port}/"
            _, said = await ping(server.port, "-c1", "-6", url)
            assert "(::1)" in said.lines[0]
        complaint = await fails(server.port, "-6", f"https://127.0.0.1:{server.port}/")
    assert "no address for 127.0.0.1" in complaint
    assert complaint.endswith(
        "(check the name, or leave out -6: it may have addresses of the other kind)"
    )


def test_an_address_with_a_zone() -> None:
    """The zone is for this machine alone: the server is not told of it."""
    settings = PingSettings.parse(["https://[fe80::1%25eth0]:4433/ping"], {})
    target = target_of(settings.targets[0], settings)
    assert target.host == "fe80::1%eth0"
    assert target.authority == "[fe80::1]:4433"
    assert target.identity.server_name == "fe80::1"


# The token


class Guarded(Choosing):
    """Lets in who shows the token, and answers others with `status`."""

    def __init__(self, token: bytes, status: int = 401) -> None:
        super().__init__(lambda number: [number])
        self.token = token
        self._status = status

    def session_requested(self, session: Session) -> None:
        if session.request.header(b"authorization") == b"Bearer " + self.token:
            super().session_requested(session)
        else:
            session.reject(self._status)


async def test_a_token_is_shown_and_read_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    # As a server reads its file: a byte-order mark and comments are no part of a token.
    file.write_bytes(b"\xef\xbb\xbffirst-token # mine\n")
    async with serving(handler := Guarded(b"first-token")) as server:
        said = Said()

        def renew(text: str) -> None:
            if "seq=2 " in text:
                handler.token = b"second-token"
                file.write_text("  second-token")
                handler.sessions[0].close(0, "show another")

        said.told = renew
        status, said = await ping(server.port, "-c8", "-i0.1", "--token-file", str(file), said=said)
    assert status == 0
    assert len(handler.sessions) == 2
    assert not any("-token" in line for line in (*said.lines, *said.complaints))


@pytest.mark.parametrize(
    ("status", "without", "with_one"),
    [
        (401, "the server wants a token: give --token-file FILE", "no longer, one that"),
        (403, "with a token, give --token-file FILE", "may do this"),
        (429, "try again later", "try again later"),
        (503, "try again later", "try again later"),
        (500, "the server's log says more", "the server's log says more"),
    ],
)
async def test_a_status_says_what_to_try(
    tmp_path: Path, status: int, without: str, with_one: str
) -> None:
    file = tmp_path / "token"
    file.write_text("wrong-token")
    async with serving(Guarded(b"token", status)) as server:
        complaint = await fails(server.port)
        assert f"the server answered {status} for /ping" in complaint
        assert without in complaint
        complaint = await fails(server.port, "--token-file", str(file))
        assert with_one in complaint
        assert "wrong-token" not in complaint


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file or directory"),
        (b"", "it holds no token"),
        (b" \n", "it holds no token"),
        (b"secret-one\nsecret-two\n", "holds 2 tokens"),
        (b"s\xc3\xa9cret", "line 1 is not a token"),
    ],
)
async def test_unusable_token_file(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    async with serving() as server:
        complaint = await fails(server.port, "--token-file", str(file))
    assert str(file) in complaint
    assert reason in complaint
    assert "--token-file (PINGPONG_TOKEN_FILE): " in complaint
    assert "cret" not in complaint.replace(str(file), "")


# Where it writes


@pytest.mark.parametrize(
    ("error", "status", "complaint"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, None),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "no space left on device"),
    ],
)
async def test_output_that_is_gone(error: OSError, status: int, complaint: str | None) -> None:
    said = Said()

    def fail(text: str) -> None:
        if "seq=2" in text:
            raise error

    said.told = fail
    async with serving() as server:
        got, said = await ping(server.port, "-i0.01", said=said)
        assert not any(connection.sessions for connection in server.connections)
    assert got == status
    assert len(said.lines) == 2
    assert len(said.complaints) == (complaint is not None)
    if complaint is not None:
        assert complaint in said.complaints[0]
