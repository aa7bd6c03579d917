"""`pingpong serve`: settings, certificate, listener, and an orderly end."""

from __future__ import annotations

import asyncio
import datetime
import errno
import gc
import os
import re
import signal
import socket
from typing import Any

from ..ops.logs import get_logger
from ..ops.settings import ServeSettings
from ..webtransport.asyncio import EndpointConfig, Limits, Listener, listen
from ..webtransport.config import Windows
from ..webtransport.connection import Connection
from ..webtransport.errors import ProtocolError
from ..webtransport.session import Session
from .handlers import Router
from .tls import Certificate, CertificateError, load_certificate, make_certificate

SHUTTING_DOWN = "the server is shutting down"

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?")
_LAST_BATCHES = 64
"""Batches of packets that are still answered at the end: under a flood there is no last one."""


class ServeError(Exception):
    """The server cannot start; the text says in one line why, and what to do."""


def make_hosts(bind_host: str) -> list[str]:
    """The names and addresses that a made certificate is for: this machine's, as it knows them."""
    hosts = ["localhost", "127.0.0.1", "::1"]
    if _HOST_NAME.fullmatch(name := socket.gethostname()):
        hosts.append(name)
    host = bind_host.partition("%")[0]  # a zone is this machine's own and in no certificate
    if host not in ("::", "0.0.0.0"):
        hosts.append(host)
    return list(dict.fromkeys(hosts))


def get_certificate(settings: ServeSettings, now: datetime.datetime) -> Certificate:
    """The certificate that the settings name, or one made for this machine.

    Raises `ServeError`.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        try:
            return make_certificate(make_hosts(settings.bind_host), now)
        except ValueError as error:
            raise ServeError(
                f"cannot listen on {settings.bind_host}: {error} (--bind-host)"
            ) from None
    try:
        return load_certificate(settings.tls_cert_file, settings.tls_key_file)
    except CertificateError as error:
        raise ServeError(str(error)) from error


def endpoint_config(settings: ServeSettings, certificate: Certificate) -> EndpointConfig:
    """What the QUIC endpoint is made with.

    Each session takes a stream beside those that it opens, its CONNECT stream.
    """
    return EndpointConfig(
        certificate=certificate.certificate,
        certificate_chain=certificate.chain,
        private_key=certificate.private_key,
        idle_timeout=settings.idle_timeout,
        max_connections=settings.max_connections,
        max_handshakes=settings.max_handshakes,
        windows=Windows(
            streams_bidi=settings.max_streams + settings.max_sessions,
            streams_uni=settings.max_streams + 8,
        ),
    )


class PingServer(Router):
    """The server's handler of connections: answers, and writes down what happens."""

    __slots__ = ("_logger", "protocol_errors")

    def __init__(self, settings: ServeSettings) -> None:
        super().__init__(settings.max_message_size)
        self._logger = get_logger("pingpong.server").bind()
        self.protocol_errors = 0

    def session_requested(self, session: Session) -> None:
        """Answer, and say so."""
        super().session_requested(session)
        request = session.request
        self._logger.debug(
            "session_requested",
            path=request.path,
            authority=request.authority,
            protocol=session.protocol,
            state=session.state.value,
        )

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """A peer broke the rules."""
        self.protocol_errors += 1
        self._logger.debug("protocol_error", error=str(error))


def start(settings: ServeSettings, certificate: Certificate) -> Listener:
    """Begin to listen. Raises `ServeError` where the port cannot be had."""
    limits = Limits(
        max_sessions=settings.max_sessions,
        initial_max_streams_bidi=settings.max_streams,
        initial_max_streams_uni=settings.max_streams,
    )
    try:
        return listen(
            PingServer(settings),
            settings.bind_host,
            settings.bind_port,
            config=endpoint_config(settings, certificate),
            limits=limits,
        )
    except OSError as error:
        raise ServeError(_listen_failure(settings, error)) from error


def _listen_failure(settings: ServeSettings, error: OSError) -> str:
    where = f"UDP port {settings.bind_port} of {settings.bind_host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another with --bind-port, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{where} needs more rights: choose one above 1023 with --bind-port"
    text = error.strerror or str(error)
    return f"cannot listen on {where}: {text} (--bind-host, --bind-port)"


def signal_future(*signals: signal.Signals) -> asyncio.Future[signal.Signals]:
    """Done when one of the signals comes; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def receive(number: signal.Signals) -> None:
        if received.done():
            os._exit(128 + number)
        received.set_result(number)

    for number in signals:
        loop.add_signal_handler(number, receive, number)
    return received


def answer_what_has_come(listener: Listener) -> None:
    """Answer the packets that wait in the socket: they were sent before anybody heard of the end."""
    pump = listener.endpoint.pump
    for _ in range(_LAST_BATCHES):
        received = pump.received_packets
        pump.receive_pending()
        if pump.received_packets == received:
            break


def collect_garbage_seldom() -> None:
    """Have Python look for unreachable cycles seldom, and never among what is there by now.

    Connections live long, and only their ends leave cycles. By its defaults the collector
    visits all of them every few thousand pings, which holds up each time every ping.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)


async def serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `ServeError` where it cannot begin."""
    logger = get_logger("pingpong.server")
    stopped = signal_future(signal.SIGTERM, signal.SIGINT)
    now = datetime.datetime.now(datetime.UTC)
    certificate = get_certificate(settings, now)
    if (warning := certificate.warning(now)) is not None:
        logger.warning("certificate", warning=warning)
    listener = start(settings, certificate)
    pump = listener.endpoint.pump
    facts: dict[str, Any] = {
        "host": listener.local_address[0],
        "port": listener.port,
        "certificate": "file" if settings.tls_cert_file else "made",
        "sha256": certificate.sha256.hex(),
        "not_after": certificate.not_after.isoformat(),
        "receive_buffer": pump.receive_buffer.got,
    }
    collect_garbage_seldom()
    logger.info("listening", **facts)
    received = await stopped
    logger.info("stopping", signal=received.name, connections=len(listener.connections))
    answer_what_has_come(listener)
    listener.drain()
    await listener.close(0, SHUTTING_DOWN)
    logger.info("stopped")
