"""`pingpong ping`, against servers in the same loop: real packets, no processes."""

from __future__ import annotations

import asyncio
import datetime
import errno
import functools
import ipaddress
import json
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as aioquic_serve
from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pingpong.client.command import PingCommand, describe_end
from pingpong.client.output import Output
from pingpong.ops.settings import PingSettings
from pingpong.ping import PROTOCOL, answer_ping
from pingpong.server.handlers import Router
from pingpong.server.tls import Certificate, make_certificate
from pingpong.webtransport.asyncio import EndpointConfig, Listener, listen
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.handler import ConnectionHandler, SessionHandler
from pingpong.webtransport.session import Session

MODES = ("datagram", "stream", "streams", "uni")
REPLY = re.compile(r"(\d+) bytes from 127\.0\.0\.1: seq=(\d+) time=[\d.]+ ms \(server [\d.]+ ms\)")


@functools.cache
def certificate(*hosts: str) -> Certificate:
    return make_certificate(
        hosts or ("localhost", "127.0.0.1"), datetime.datetime.now(datetime.UTC)
    )


@asynccontextmanager
async def serving(
    handler: ConnectionHandler | None = None,
    *,
    host: str = "127.0.0.1",
    with_certificate: Certificate | None = None,
    **config: Any,
) -> AsyncIterator[Listener]:
    made = with_certificate or certificate()
    listener = listen(
        handler or Router(1 << 16),
        host,
        config=EndpointConfig(
            certificate=made.certificate,
            certificate_chain=made.chain,
            private_key=made.private_key,
            **config,
        ),
    )
    try:
        yield listener
    finally:
        await listener.close()


class Said:
    """What a command says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self.told: Callable[[str], None] = lambda text: None
        """Called with each text that is written."""
        self.output = Output(self._write, self.complaints.append)

    def _write(self, text: str) -> None:
        self.told(text)
        self.lines += text.split("\n")

    @property
    def counts(self) -> str:
        """The summary's line of counts, without the time.

        Nor the slots that were skipped: how busy this machine is says nothing.
        """
        return re.sub(r", \d+ skipped", "", self._counts).rpartition(", time ")[0]

    @property
    def skipped(self) -> int:
        found = re.search(r", (\d+) skipped", self._counts)
        return int(found[1]) if found else 0

    @property
    def _counts(self) -> str:
        title = next(i for i, line in enumerate(self.lines) if line.startswith("---"))
        return self.lines[title + 1]


async def ping(
    port: int, *words: str, said: Said | None = None, **options: Any
) -> tuple[int, Said]:
    """Run the command; unless told otherwise it trusts the certificate."""
    if not {"--ca", "--insecure", "--cert-hash"} & set(words):
        words = (*words, "--cert-hash", certificate().sha256.hex())
    if not any(word.startswith("https://") for word in words):
        words = (*words, f"https://127.0.0.1:{port}/ping")
    said = said or Said()
    settings = PingSettings.parse(words, {})
    return await PingCommand(settings, said.output, **options).run(), said


# What it says


@pytest.mark.parametrize("mode", MODES)
async def test_all_modes(mode: str) -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-c3", "-i0.01", "--mode", mode)
    assert status == 0
    url = f"https://127.0.0.1:{server.port}/ping"
    assert said.lines[0] == (f"PING {url} (127.0.0.1): {mode}, 64 bytes, pingpong.v1, draft-16")
    replies = [REPLY.fullmatch(line) for line in said.lines[1:4]]
    assert [(m[1], m[2]) for m in replies if m] == [("64", "1"), ("64", "2"), ("64", "3")]
    assert said.lines[4:6] == ["", f"--- {url} pingpong statistics ---"]
    assert said.counts == "3 sent, 3 received, 0% loss"
    assert len(said.lines) == 9
    assert said.complaints == []


async def test_size_and_timestamps() -> None:
    async with serving() as server:
        before = time.time()
        status, said = await ping(server.port, "-c1", "-s1000", "-D")
    assert status == 0
    stamp, reply = said.lines[1].split("] ", 1)
    assert before <= float(stamp.removeprefix("[")) <= time.time()
    assert reply.startswith("1000 bytes from 127.0.0.1: seq=1 ")


async def test_quiet() -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-q", "-c2", "-i0.01")
    assert status == 0
    assert len(said.lines) == 4
    assert said.lines[0].startswith("---")


@pytest.mark.parametrize("quiet", [False, True])
async def test_json(quiet: bool) -> None:
    async with serving() as server:
        options = ["-q"] if quiet else []
        status, said = await ping(server.port, "--json", "-c2", "-i0.01", *options)
    assert status == 0
    *replies, summary = [json.loads(line) for line in said.lines]
    assert [reply["seq"] for reply in replies] == ([] if quiet else [1, 2])
    assert (summary["sent"], summary["received"], summary["lost"]) == (2, 2, 0)
    assert summary["protocol"] == PROTOCOL
    assert summary["draft"] == "draft-16"
    assert summary["rtt_ms"]["min"] > 0
    assert summary["connect_ms"]["handshake"] > 0


async def test_a_datagram_that_is_too_large_is_not_sent() -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-c1", "-s5000")
    assert status == 1
    assert said.lines[1].startswith("not sent: seq=1 (a datagram of 5000 bytes does not fit")
    assert said.counts == "0 sent, 0 received, 1 send error"
    async with serving() as server:
        status, said = await ping(server.port, "-c1", "-s5000", "--mode=stream")
    assert status == 0


# Answers that take their time


class Answering(SessionHandler):
    """Answers datagrams as `choose` says: it is given each one's number, and returns those of
    the pings to answer now."""

    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self._choose = choose
        self._asked: dict[int, bytes] = {}

    def datagram_received(self, session: Session, data: bytes) -> None:
        number = len(self._asked) + 1
        self._asked[number] = data
        for one in self._choose(number):
            answer = answer_ping(self._asked[one], number, session.arrival, session.arrival)
            assert answer is not None
            session.send_datagram(answer)


class Choosing(ConnectionHandler):
    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self._choose = choose
        self.sessions: list[Session] = []

    def session_requested(self, session: Session) -> None:
        self.sessions.append(session)
        session.accept(Answering(self._choose), PROTOCOL)


async def test_out_of_order_and_a_timeout_longer_than_the_interval() -> None:
    handler = Choosing(lambda number: [3, 1, 2, 2] if number == 3 else [])
    async with serving(handler) as server:
        status, said = await ping(server.port, "-c3", "-i0.02", "-W20")
    assert status == 0
    ends = [line.split("seq=")[1].split()[0] + line.rpartition(")")[2] for line in said.lines[1:4]]
    assert ends == ["3", "1 reordered", "2 reordered"]
    # The copy may come before or after the command has what it waits for, and left.
    assert said.counts.replace(", +1 duplicate", "") == "3 sent, 3 received, 2 reordered, 0% loss"


async def test_late_is_not_lost() -> None:
    handler = Choosing(lambda number: [1, 2] if number == 2 else [])
    async with serving(handler) as server:
        status, said = await ping(server.port, "-c2", "-i0.2", "-W0.05")
    assert status == 0
    assert said.lines[1] == "no answer yet: seq=1"
    assert said.lines[2].endswith("late")
    assert said.counts == "2 sent, 2 received, 1 late, 0% loss"


async def test_loss_has_a_direction_and_status_1_is_for_nothing_at_all() -> None:
    async with serving(Choosing(lambda number: [] if number == 1 else [number])) as server:
        status, said = await ping(server.port, "-c2", "-i0.1", "-W0.5")
    assert status == 0
    assert said.counts == "2 sent, 1 received, 50% loss (0 out, 1 back)"
    async with serving(Choosing(lambda number: [])) as server:
        status, said = await ping(server.port, "-c1", "-W0.05")
    assert status == 1
    assert said.counts.startswith("1 sent, 0 received, 100% loss")


async def test_deadline() -> None:
    async with serving() as server:
        began = time.monotonic()
        status, said = await ping(server.port, "-w0.3", "-i0.1")
        assert 0.25 < time.monotonic() - began < 5
    assert status == 0
    async with serving() as server:
        status, said = await ping(server.port, "-w0.1", "-c5", "-i30")
    assert status == 1  # fewer than -c by -w, as ping(8)
    assert said.counts == "1 sent, 1 received, 0% loss"


async def test_an_interval_next_to_nothing_leaves_others_their_turn() -> None:
    async with serving() as server:
        status, _ = await ping(server.port, "-q", "-i0.000001", "-w0.2")
    assert status == 0


async def test_missed_slots_are_skipped_and_told() -> None:
    async with serving() as server:
        said = Said()

        def block(text: str) -> None:
            if "seq=1 " in text:
                time.sleep(0.35)  # the event loop is blocked through slots 1 to 3, nearly

        said.told = block
        status, _ = await ping(server.port, "-c3", "-i0.1", said=said)
    assert status == 0
    assert said.counts == "3 sent, 3 received, 0% loss"
    assert said.skipped >= 2


# How it ends


async def test_interrupted_with_a_ping_on_its_way() -> None:
    """What is waited for is not lost."""

    def interrupt(number: int) -> list[int]:
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return [number] if number < 3 else []

    handler = Choosing(interrupt)
    async with serving(handler) as server:
        status, said = await ping(server.port, "-i0.01")
    assert status == 0
    counts = re.fullmatch(r"(\d+) sent, 2 received, (\d+) waiting, 0% loss", said.counts)
    assert counts is not None
    assert int(counts[1]) == 2 + int(counts[2]) >= 3
    assert said.complaints == []


async def test_nothing_is_said_after_the_summary() -> None:
    """Answers that come while the command takes its leave."""
    async with serving() as server:
        said = Said()
        said.told = lambda text: signal.raise_signal(signal.SIGINT) if "seq=2 " in text else None
        status, said = await ping(server.port, "-i0.005", said=said)
    assert status == 0
    assert said.lines[-1].startswith("connect: ")
    assert sum(line.startswith("---") for line in said.lines) == 1


async def test_quit_signal_prints_an_interim_summary() -> None:
    async with serving() as server:
        said = Said()
        said.told = lambda text: signal.raise_signal(signal.SIGQUIT) if "seq=1 " in text else None
        status, said = await ping(server.port, "-c2", "-i0.1", said=said)
    assert status == 0
    titles = [i for i, line in enumerate(said.lines) if line.startswith("---")]
    assert len(titles) == 2
    assert said.lines[titles[0] + 1].startswith("1 sent, 1 received")
    assert said.lines[titles[1] + 1].startswith("2 sent, 2 received")


async def test_interrupted_while_connecting() -> None:
    with silent_port() as port:
        command = asyncio.create_task(ping(port, "-c1"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGINT)
        status, said = await command
    assert status == 1
    assert said.lines == said.complaints == []


async def test_the_server_closes_the_session() -> None:
    def close(number: int) -> list[int]:
        if number == 2:
            handler.sessions[0].close(0, "closed for the night")
        return [1] if number == 1 else []

    handler = Choosing(close)
    async with serving(handler) as server:
        status, said = await ping(server.port, "-i0.01")
    assert status == 2
    url = f"https://127.0.0.1:{server.port}/ping"
    assert said.complaints == [f"{url}: the server closed the session: closed for the night"]
    assert "1 received" in said.counts


def test_ends_in_words() -> None:
    assert describe_end(SessionClosed(0)) == "the server closed the session"
    assert describe_end(SessionClosed(7, "x")) == "the server closed the session (code 7): x"
    lost = SessionClosed(error="the connection timed out: the peer was not heard any more")
    assert describe_end(lost) == lost.error


async def test_the_server_is_gone() -> None:
    """Its socket closed, and nothing said: what a SIGKILL leaves."""
    async with serving() as server:
        said = Said()
        said.told = lambda text: server.endpoint.pump.close() if "seq=2 " in text else None
        began = time.monotonic()
        status, said = await ping(server.port, "-i0.1", said=said)
        assert time.monotonic() - began < 4
    assert status == 2
    assert said.complaints[0].endswith(
        "/ping: the server is gone: nothing listens on its port any more"
    )
    # What it never answered is lost, or waited for still.
    assert said.counts.split(", ")[1] == "2 received"


async def test_one_forged_refusal_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[PingCommand] = []
    real = PingCommand._send_all

    async def send_all(self: PingCommand) -> None:
        commands.append(self)
        await real(self)

    monkeypatch.setattr(PingCommand, "_send_all", send_all)
    async with serving() as server:
        said = Said()

        def refuse(text: str) -> None:
            if commands:
                report = commands[0]._client.socket_error
                assert report is not None
                report(OSError(errno.ECONNREFUSED, "Connection refused"))
                report(OSError(errno.ENETUNREACH, "Network is unreachable"))

        said.told = refuse
        status, said = await ping(server.port, "-c8", "-i0.1", said=said)
    assert status == 0
    assert said.counts == "8 sent, 8 received, 0% loss"


async def test_the_server_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        said = Said()

        def cut_off(text: str) -> None:
            if "seq=1 " in text:
                monkeypatch.setattr(server.endpoint.pump, "send", lambda packets, address: 0)

        said.told = cut_off
        status, said = await ping(server.port, "-i0.1", "-W0.1", said=said, idle_timeout=0.6)
    assert status == 2
    assert "the connection timed out" in said.complaints[0]
    assert "1 received" in said.counts


@pytest.mark.parametrize("words", [("-c2", "-i1.2"), ("-c2", "-i0.01", "-W1.2")])
async def test_long_waits_keep_the_connection_alive(words: tuple[str, ...]) -> None:
    """Between pings, and for the last answer."""
    handler = Choosing(lambda number: [] if number == 1 and "-W1.2" in words else [number])
    async with serving(handler, idle_timeout=0.6) as server:
        status, said = await ping(server.port, *words, idle_timeout=0.6)
    assert status == 0
    assert said.complaints == []
    assert said.counts.startswith("2 sent")


# Where the connection isn't made


@asynccontextmanager
async def http3_without_webtransport() -> AsyncIterator[int]:
    class Http3(QuicConnectionProtocol):
        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, ProtocolNegotiated):
                self.http = H3Connection(self._quic)

    made = certificate()
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


class silent_port:  # noqa: N801 - used as a context manager, like closing
    """A UDP port at which nobody reads."""

    def __enter__(self) -> int:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        return int(self._sock.getsockname()[1])

    def __exit__(self, *raised: object) -> None:
        self._sock.close()


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
        f"https://127.0.0.1:{port}/ping: nobody answers on UDP port {port}: Connection refused"
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
    ca_file.write_bytes(certificate("other.example").pem())
    async with serving() as server:
        complaint = await fails(server.port, "--ca", str(ca_file))
    assert "the certificate is not trusted" in complaint
    assert "--cert-hash" in complaint


async def test_another_certificate_than_the_pinned() -> None:
    async with serving() as server:
        complaint = await fails(server.port, "--cert-hash", "ab" * 32)
    assert "SHA-256" in complaint


async def test_certificate_for_another_name(tmp_path: Path) -> None:
    authority, leaf = make_authority(["ping.example"])
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority)
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
    assert complaint.endswith("(--ca)")


# Whom it trusts, and by which family


def make_authority(hosts: list[str]) -> tuple[bytes, Certificate]:
    """A certificate authority, in PEM, and a certificate that it signed."""
    now = datetime.datetime.now(datetime.UTC)
    key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority")])

    def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> Any:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    constraint = x509.BasicConstraints(ca=True, path_length=None)
    authority = builder(name, key.public_key()).add_extension(constraint, True)
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    leaf = builder(x509.Name([]), leaf_key.public_key())
    leaf = leaf.add_extension(x509.SubjectAlternativeName(names), True)
    signed = leaf.sign(key, hashes.SHA256())
    pem = authority.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem, Certificate(signed, (), leaf_key)


async def test_authority(tmp_path: Path) -> None:
    authority, leaf = make_authority(["localhost", "127.0.0.1"])
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority)
    async with serving(with_certificate=leaf) as server:
        status, said = await ping(server.port, "-c1", "--ca", str(ca_file))
    assert (status, said.complaints) == (0, [])


async def test_insecure() -> None:
    async with serving(with_certificate=certificate("other.example")) as server:
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
