"""A worker: one UDP socket, its sessions, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from socket import socket

from prometheus_client import Metric

from ...ping import PROTOCOL
from ...settings import ServeSettings
from ...telemetry.health import LoopLag, Result
from ...telemetry.logs import dropped_lines, get_logger
from ...telemetry.process import standard_registry
from ...webtransport import (
    Address,
    Connection,
    ConnectionClosed,
    ProtocolError,
    Session,
    SharedKeys,
)
from ...webtransport.asyncio import (
    EndpointConfig,
    Limits,
    Listener,
    PacketForwarder,
    choose_engine,
    listen,
)
from ...webtransport.certificates import Certificate
from .. import ServeError, metrics
from ..auth.access import Access
from ..health import DRAIN, EVENT_LOOP, SELF_PING, WORKERS, Health, while_draining
from ..self_ping import SelfPing
from ..sessions.admission import Admission
from ..sessions.counters import DROP_REASONS, ECHO, MODES, MessageCounters
from ..sessions.handlers import PingSession, Router
from .endpoint import endpoint_config, listen_failure, loopback

SHUTTING_DOWN = "the server is shutting down"
SECOND_SIGNAL = (
    "waiting for sessions to leave until the timeout; a second Ctrl-C ends the server at once"
)

MAX_DATAGRAM = 65_535

_HOUSEKEEPING_INTERVAL = 1.0
"""Seconds between two checks of files."""
_LAST_BATCHES = 64
"""Batches of packets that are still answered at shutdown. A flood would have no last one."""


class PingServer(Router):
    """The handler of a worker's connections: admits, answers, counts and logs."""

    def __init__(self, settings: ServeSettings, admission: Admission) -> None:
        super().__init__(
            settings.max_message_size, admission=admission, rate_limit=settings.rate_limit
        )
        self.protocol_errors = 0
        self.session_request_timeouts = 0
        self.self_ping: SelfPing | None = None
        self._logger = get_logger("pingpong.server").bind()
        self._over: asyncio.Future[None] | None = None

    def session_requested(self, session: Session) -> None:
        """Accept or refuse a request, and log it."""
        if self.self_ping is not None and self.self_ping.recognizes(session.request):
            # The self-ping is authenticated by its secret, and not counted.
            handler = PingSession(session, MessageCounters(), MAX_DATAGRAM, is_v1=True)
            session.accept(handler, PROTOCOL)
            return
        super().session_requested(session)
        request = session.request
        self._logger.debug(
            "session_requested",
            path=request.path.partition("?")[0],  # the query may be a secret
            authority=request.authority,
            protocol=session.protocol,
            state=session.state.value,
        )

    def connect_streams_closed(self, connection: Connection) -> None:
        """Wake `wait_closed`."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def connection_closed(self, connection: Connection, closed: ConnectionClosed) -> None:
        """Wake `wait_closed`."""
        self.connect_streams_closed(connection)

    def session_request_timed_out(self, connection: Connection) -> None:
        """Count and log a client that requested no session in time."""
        self.session_request_timeouts += 1
        self._logger.debug("session_request_timed_out")

    def protocol_error(self, connection: Connection, error: ProtocolError) -> None:
        """Count and log a protocol violation."""
        self.protocol_errors += 1
        self._logger.debug("protocol_violated", error=str(error))

    async def wait_closed(self, connections: Collection[Connection]) -> None:
        """Wait until all CONNECT streams of these connections are closed."""
        # One after the other: each end wakes this, and thousands of them end.
        for connection in connections:
            while connection.has_connect_streams and connection.closed is None:
                self._over = asyncio.get_running_loop().create_future()
                await self._over


class Worker:
    """Serves one UDP port in this process, from `start` to `close`.

    With several workers it is number `index` of `count`: it gets a bound socket, a forwarder to
    the other workers, and the `keys` that they share.
    """

    def __init__(
        self,
        settings: ServeSettings,
        certificate: Certificate,
        *,
        sock: socket | None = None,
        forwarder: PacketForwarder | None = None,
        index: int = 0,
        count: int = 1,
        keys: SharedKeys | None = None,
    ) -> None:
        self._settings = settings
        self._certificate = certificate
        self._sock = sock
        self._handover = forwarder
        self._index = index
        self._count = count
        self._keys = keys or SharedKeys()
        self._access = Access(settings)
        self._handler = PingServer(settings, self._access.admission)
        self._listener: Listener | None = None
        self._self_ping: SelfPing | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lag = LoopLag()
        self._registry = standard_registry(self)
        self._logger = get_logger("pingpong.server")

    @property
    def host(self) -> str:
        """The address of the socket."""
        return str(self._listening.local_address[0])

    @property
    def port(self) -> int:
        """The UDP port of the socket."""
        return self._listening.port

    @property
    def _listening(self) -> Listener:
        assert self._listener is not None, "the worker has not been started"
        return self._listener

    async def start(self) -> None:
        """Start to serve. Raises `ServeError`."""
        settings = self._settings
        await self._access.start()
        config = endpoint_config(settings, self._certificate, self._count)
        config = replace(config, keys=self._keys, worker=self._index, workers=self._count)
        limits = Limits(
            max_sessions=settings.max_sessions,
            initial_max_streams_bidi=settings.max_streams,
            initial_max_streams_uni=settings.max_streams,
        )
        try:
            listener = self._listener = listen(
                self._handler,
                settings.bind_host,
                settings.bind_port,
                config=config,
                limits=limits,
                sock=self._sock,
                forwarder=self._handover,
                answered=self._handler.counters.send_delay.record_sent,
            )
        except OSError as error:
            raise ServeError(listen_failure(settings, error)) from error
        buffer = listener.receive_buffer
        self._logger.debug("socket_opened", receive_buffer=buffer.got, asked=buffer.asked)
        self._lag.start()
        if settings.self_ping_interval:
            self._ping_itself(listener.local_address, settings.self_ping_interval)
        self._tasks.append(asyncio.create_task(self._watch_files()))

    def _ping_itself(self, address: Address, interval: float) -> None:
        self._self_ping = self._handler.self_ping = SelfPing(
            loopback(address),
            lambda: self._certificate.sha256,
            interval,
            # Its first packets are routed to this worker. One engine in a process is enough.
            EndpointConfig(
                worker=self._index,
                workers=self._count,
                engine=choose_engine(self._settings.engine, server=True),
            ),
        )
        self._tasks.append(asyncio.create_task(self._self_ping.run()))

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL)
            try:
                self._access.check()
            except Exception:
                self._logger.exception("housekeeping_failed")

    def health(self) -> Health:
        """The results of the health checks."""
        now = time.monotonic()
        ping = Result(True, "the self-ping is off")
        if self._self_ping is not None:
            ping = Result(*self._self_ping.result(now))
        results = {
            EVENT_LOOP: self._lag.result(),
            WORKERS: Result(True, "one, in this process"),
            DRAIN: Result(True, "not draining"),
            SELF_PING: ping,
        }
        if self._handler.admission.draining:
            results |= while_draining(self._settings.drain_stay_ready)
        return Health(results)

    async def families(self) -> list[Metric]:
        """The current metrics."""
        return list(self._registry.collect())

    def use_certificate(self, certificate: Certificate) -> None:
        """Use another certificate in new handshakes."""
        self._certificate = certificate
        if self._listener is None:
            return  # `start` uses it
        self._listening.use_certificate(certificate)

    def reload(self) -> None:
        """Reload the files."""
        self._access.check()

    async def drain(self) -> None:
        """Drain the sessions until the drain timeout, then close the remaining ones.

        Packets that arrived before are answered, including those in the socket. New sessions are
        refused until `close`.
        """
        listener = self._listening
        self._handler.admission.draining = True
        self._end_tasks()
        answer_what_has_come(listener)
        listener.drain()
        sessions = self._handler.admission.active
        if sessions:
            self._logger.info(
                "drain_started",
                sessions=sessions,
                timeout=self._settings.drain_timeout,
                hint=SECOND_SIGNAL,
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout):
                await self._handler.wait_closed(tuple(listener.connections))
        left = self._handler.admission.active
        if left:
            self._logger.info("drain_timed_out", sessions=left, reason=SHUTTING_DOWN)
        answer_what_has_come(listener)
        await listener.close_sessions(0, SHUTTING_DOWN)

    async def close(self) -> None:
        """Close everything at once."""
        self._end_tasks()
        self._lag.close()
        await self._access.close()
        if self._listener is not None:
            await self._listener.close(0, SHUTTING_DOWN, timeout=0)

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    def collect(self) -> Iterator[Metric]:
        """The metrics of its own, for Prometheus."""
        admission, messages = self._handler.admission, self._handler.counters
        sessions = admission.counters
        listener = self._listening
        packets = listener.counters
        self_pings = self._self_ping.count if self._self_ping is not None else 0
        yield metrics.SESSIONS_ACTIVE.metric([((), sessions.active)])
        yield metrics.SESSIONS.metric(((name,), n) for name, n in sessions.results.items())
        yield metrics.SESSION_DURATION.metric([((), sessions.durations)])
        yield metrics.CONNECTIONS_ACTIVE.metric([((), len(listener.connections))])
        yield metrics.HANDSHAKES_ACTIVE.metric([((), listener.unfinished_handshakes)])
        yield metrics.HANDSHAKES.metric(
            [
                (("completed",), packets.handshakes),
                (("failed",), packets.handshake_failures),
                (("refused",), packets.refused_connections),
            ]
        )
        yield metrics.RESETS_SENT.metric([((), packets.resets_sent)])
        negotiations = packets.version_negotiations
        yield metrics.VERSION_NEGOTIATIONS_SENT.metric([((), negotiations)])
        forwarder = self._handover
        yield metrics.HANDED_OVER.metric([((), forwarder.forwarded_packets if forwarder else 0)])
        yield metrics.RETRIES_SENT.metric([((), packets.retries_sent)])
        yield metrics.RETRIES_INVALID.metric([((), packets.retries_invalid)])
        yield metrics.RECEIVED.metric(((mode,), n) for mode, n in messages.received.items())
        yield metrics.ANSWERED.metric(((mode,), n) for mode, n in messages.answered.items())
        yield metrics.DROPPED.metric(
            ((mode, reason), messages.dropped[mode, reason])
            for mode in (*MODES, ECHO)
            for reason in DROP_REASONS
        )
        yield metrics.RECEIVED_BYTES.metric([((), messages.received_bytes)])
        yield metrics.SENT_BYTES.metric([((), messages.sent_bytes)])
        yield metrics.ANSWER_DURATION.metric([((), messages.answer_durations)])
        dropped = packets.dropped_packets + (forwarder.dropped_packets if forwarder else 0)
        yield metrics.PACKETS_DROPPED.metric([((), dropped)])
        yield metrics.PACKETS_OVERFLOWED.metric([((), listener.overflowed_packets)])
        yield metrics.PACKETS_THROTTLED.metric([((), packets.throttled_packets)])
        yield metrics.BUFFERS_EXCEEDED.metric([((), packets.buffers_exceeded)])
        yield metrics.PACKETS_UNSENT.metric([((), listener.unsent_packets)])
        errors = self._handler.protocol_errors + packets.protocol_errors
        yield metrics.PROTOCOL_ERRORS.metric([((), errors)])
        unused = self._handler.session_request_timeouts
        yield metrics.CONNECTIONS_UNUSED.metric([((), unused)])
        yield metrics.TOKENS_RELOAD_FAILED.metric([((), int(self._access.token_reload_failed))])
        yield metrics.SELF_PINGS.metric([((), self_pings)])
        if self._count == 1:
            yield metrics.WORKERS.metric([((), 1)])
            yield metrics.WORKER_RESTARTS.metric([((), 0)])
        yield metrics.DRAINING.metric([((), int(admission.draining))])
        yield metrics.EVENT_LOOP_LAG.metric([((), self._lag.counts)])
        yield metrics.LOG_LINES_DROPPED.metric([((), dropped_lines())])


def answer_what_has_come(listener: Listener) -> None:
    """Answer the packets in the socket: the peers sent them before they knew of the shutdown."""
    for _ in range(_LAST_BATCHES):
        if not listener.receive_pending():
            break
