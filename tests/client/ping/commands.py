"""Runs `pingpong ping` in this process, and says what it said."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pingpong.client.output import Output
from pingpong.client.ping.command import PingCommand
from pingpong.ping import PROTOCOL, answer_ping
from pingpong.server.sessions.handlers import Router
from pingpong.server.tls.certificate import Certificate, make_certificate
from pingpong.settings import PingSettings
from pingpong.webtransport import ConnectionHandler, SessionHandler
from pingpong.webtransport.asyncio import EndpointConfig, Listener, listen
from pingpong.webtransport.session import Session

MODES = ("datagram", "stream", "streams", "uni")
REPLY = re.compile(r"(\d+) bytes from 127\.0\.0\.1: seq=(\d+) time=[\d.]+ ms \(server [\d.]+ ms\)")


@functools.cache
def certificate(*hosts: str) -> Certificate:
    return make_certificate(
        hosts or ("localhost", "127.0.0.1"), datetime.datetime.now(datetime.UTC)
    )


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


@asynccontextmanager
async def serving(
    handler: ConnectionHandler | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    with_certificate: Certificate | None = None,
    **config: Any,
) -> AsyncIterator[Listener]:
    listener = start(handler, host=host, port=port, with_certificate=with_certificate, **config)
    try:
        yield listener
    finally:
        await listener.close()


def start(
    handler: ConnectionHandler | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    with_certificate: Certificate | None = None,
    **config: Any,
) -> Listener:
    made = with_certificate or certificate()
    return listen(
        handler or Router(1 << 16),
        host,
        port,
        config=EndpointConfig(
            certificate=made.certificate,
            certificate_chain=made.chain,
            private_key=made.private_key,
            **config,
        ),
    )


class Answering(SessionHandler):
    """Answers datagrams as `choose` says: it is given each one's number, and returns those of
    the pings to answer now."""

    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self._choose = choose
        self._asked: dict[int, bytes] = {}
        self._arrival = 0

    def datagram_received(self, session: Session, data: bytes, arrival: int) -> None:
        number = len(self._asked) + 1
        self._asked[number] = data
        self._arrival = arrival
        for one in self._choose(number):
            self.answer(session, one)

    def answer(self, session: Session, number: int) -> None:
        received = len(self._asked)
        answer = answer_ping(self._asked[number], received, self._arrival, self._arrival)
        assert answer is not None
        session.send_datagram(answer)


class Choosing(ConnectionHandler):
    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self.choose = choose
        self.received = 0
        """Pings, of all sessions."""
        self.sessions: list[Session] = []

    def session_requested(self, session: Session) -> None:
        self.sessions.append(session)
        session.accept(Answering(self._choose), PROTOCOL)

    def _choose(self, number: int) -> list[int]:
        self.received += 1
        return self.choose(number)


class Said:
    """What a command says."""

    def __init__(self, in_terminal: bool = False) -> None:
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self.told: Callable[[str], None] = lambda text: None
        """Called with each text that is written."""
        self.drawn = ""
        """What is put into the terminal as it is; only with `in_terminal`."""
        self.complained: Callable[[str], None] = lambda text: None
        """Called with each complaint."""
        self.output = Output(self._write, self._complain, self._draw if in_terminal else None)

    def _complain(self, text: str) -> None:
        self.complaints.append(text)
        self.complained(text)

    def _draw(self, text: str) -> None:
        self.drawn += text

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


@contextmanager
def silent_port() -> Iterator[int]:
    """A UDP port at which nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])
