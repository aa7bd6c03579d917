"""Implements `engine.QuicEndpoint` with quinn-proto, which `pingpong_engine` wraps (services/engine).

The extension module routes packets, keeps timers, and limits unfinished handshakes. This module
reports its events, gives up handshakes that take too long, reads certificates, and limits the time
and the buffers of a connection.

A connection whose packets take too much time is throttled: the extension module then returns its
packets as they are, and they wait in the fair queue. The first packet of a batch, mostly the only
one, is not measured. What a connection sends at once is limited by its congestion window.

What it cannot do that aioquic can is in `engines.CAPABILITIES`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pingpong_engine as quinn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..errors import ErrorCode
from .buffers import limit_buffers
from .config import EndpointConfig, ServerIdentity
from .engine import (
    RESET_REASON,
    Address,
    EndpointCounters,
    PathStatistics,
    QuicConnection,
    QuicEvents,
    Wake,
)
from .fair_queue import FairQueue, Flow
from .timers import Timers

if TYPE_CHECKING:
    from ..certificates import Certificate

# Names of this module are found faster than those of another.
_RECEIVED, _ACCEPTED, _WAITING = quinn.RECEIVED, quinn.ACCEPTED, quinn.WAITING
_DATAGRAM, _STREAM_DATA = quinn.DATAGRAM, quinn.STREAM_DATA
_TIMER_GRANULARITY = 0.001
"""Timers may fire this much early or late: event loops have a resolution of milliseconds."""
_SECOND = 1_000_000_000
_INTERNAL_ERROR = 0x01
_CRYPTO_ERRORS = range(0x100, 0x200)
_LONG_TYPE, _INITIAL = 0xF0, 0xC0
"""Of the first byte of a packet: header form and type; those of an Initial packet of QUIC 1."""
_PROCESSING_TIME = 0.002
"""Seconds for which queued packets are processed before the socket is read again."""
_MAX_CLOSE_REASON = 256
"""Bytes of the reason of a close, which has to fit in a packet."""
_TIMEOUT_REASON = "Idle timeout"


class QuinnConnection:
    """Implements `engine.QuicConnection`."""

    __slots__ = (
        "_address",
        "_certificate",
        "_certificate_hash",
        "_deadline",
        "_engine",
        "_handle",
        "_owner",
        "_path",
        "arrival",
        "buffered_bytes",
        "close_is_authenticated",
        "closing",
        "duplicate_packets",
        "events",
        "flow",
        "give_up_at",
        "handshake_counted",
        "has_ended",
        "idle_timeout",
        "is_client",
        "max_datagram_size",
        "reset_stream_at",
    )

    def __init__(
        self,
        owner: QuinnEndpoint,
        handle: int,
        address: Address,
        idle_timeout: float,
        certificate_hash: bytes | None = None,
        *,
        is_client: bool,
    ) -> None:
        self._owner = owner
        self._engine: quinn.Endpoint = owner.engine
        self._handle = handle
        self._address = address
        self._certificate: x509.Certificate | None = None
        self._certificate_hash = certificate_hash
        self._deadline: float | None = None
        self._path: PathStatistics | None = None
        self.arrival = 0
        self.buffered_bytes = 0
        """Bytes that were buffered at the last count."""
        self.close_is_authenticated = True
        self.closing: tuple[int, str] | None = None
        """Code and reason of a close of ours that is not reported."""
        self.duplicate_packets = 0
        """1-RTT packets that the network duplicated."""
        self.events: QuicEvents | None = None
        self.flow = Flow()
        """The processing time of its packets."""
        self.give_up_at: float | None = None
        """When the handshake times out; None for no timeout, or if it is complete."""
        self.handshake_counted = False
        self.has_ended = False
        self.idle_timeout = idle_timeout
        self.is_client = is_client
        self.max_datagram_size = 0
        self.reset_stream_at = False

    # `engine.QuicConnection`.

    @property
    def address(self) -> Address:
        """The peer's address, as last seen."""
        address = self._engine.address(self._handle)
        if address is not None:
            self._address = address
        return self._address

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """Client: the certificate that the server showed, or None."""
        if self._certificate is None:
            encoded = self._engine.peer_certificate(self._handle)
            if encoded is not None:
                try:
                    self._certificate = x509.load_der_x509_certificate(encoded)
                except ValueError:
                    return None
        return self._certificate

    @property
    def path_statistics(self) -> PathStatistics | None:
        """What is known of the path; None before a round trip was measured."""
        if self.handshake_counted and not self.has_ended and self.closing is None:
            known = self._engine.statistics(self._handle)
            if known is not None:
                rtt, congestion_window, lost_packets = known
                self._path = PathStatistics(rtt / _SECOND, congestion_window, lost_packets)
        return self._path

    @property
    def deadline(self) -> float | None:
        """When to report `deadline_passed`; None: never."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        self._deadline = deadline
        if deadline is not None:
            self._owner.timers.set(self, deadline)

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's stream limit allows one more stream."""
        return self._engine.can_open_stream(self._handle, unidirectional)

    def open_stream(self, header: bytes, unidirectional: bool) -> int:
        """Open a stream that begins with `header`, and return its id."""
        self._owner.request_transmit()
        return self._engine.open_stream(self._handle, header, unidirectional)

    def send_stream(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Queue bytes on a stream."""
        self._engine.send_stream(self._handle, stream_id, data, end_stream)
        self._owner.request_transmit()

    def send_datagram(self, data: bytes) -> bool:
        """Queue a datagram; false if it was dropped because the queue is full."""
        self._owner.request_transmit()
        return self._engine.send_datagram(self._handle, data)

    def reset_stream(self, stream_id: int, code: int, reliable_size: int = 0) -> int:
        """Reset our side. What the peer has not received is lost, also of `reliable_size`."""
        self._owner.report_later(self)
        return self._engine.reset_stream(self._handle, stream_id, code)

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Send STOP_SENDING. The end of the stream is reported as a reset."""
        if self._engine.stop_sending(self._handle, stream_id, code):
            self._owner.report_later(self)

    def buffered(self, stream_id: int) -> int:
        """Bytes of a stream that wait for the peer's credit; those that were sent do not count."""
        return self._engine.buffered(self._handle, stream_id)

    def notify_writable(self, stream_id: int, below: int) -> None:
        """Report `stream_writable` once, when `buffered` is at most `below`."""
        self._engine.notify_writable(self._handle, stream_id, below)
        self._owner.report_later(self)

    def hold(self, stream_id: int, size: int) -> None:
        """The reader buffers `size` bytes: read no more of the stream, so grant no credit."""
        self._engine.hold(self._handle, stream_id, size)

    def release(self, stream_id: int, size: int) -> None:
        """`size` held bytes were read."""
        if self._engine.release(self._handle, stream_id, size):
            self._owner.report_later(self)

    def is_receive_closed(self, stream_id: int) -> bool:
        """Whether the receiving part of a stream that the peer opened has ended."""
        return self._engine.is_receive_closed(self._handle, stream_id)

    def ping(self) -> None:
        """Send PING, which the peer must acknowledge: a keep-alive."""
        self._engine.ping(self._handle)
        self._owner.request_transmit()

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection with CONNECTION_CLOSE. A long reason is truncated."""
        if self.has_ended or self.closing is not None:
            return
        reason = reason.encode()[:_MAX_CLOSE_REASON].decode(errors="ignore")
        self._keep_certificate()
        # To let the close pass, the engine opens the congestion window.
        _ = self.path_statistics
        self._engine.close(self._handle, code, reason)
        self.closing = (code, reason)
        self._owner.report_later(self)

    # For the endpoint.

    def count_buffers(self) -> int:
        """Count the bytes that are buffered, here and above."""
        self.buffered_bytes = self._engine.count_buffers(self._handle)
        if self.events is not None:
            self.buffered_bytes += self.events.buffered_bytes()
        return self.buffered_bytes

    def begin(self) -> None:
        """The peer's transport parameters are known."""
        self.idle_timeout = self._engine.idle_timeout(self._handle) / _SECOND
        self.max_datagram_size = self._engine.max_datagram_size(self._handle)

    def explain(self, code: int, reason: str) -> str:
        """Why this side refused the server's certificate."""
        pin, certificate = self._certificate_hash, self.peer_certificate
        if pin is None or certificate is None or code not in _CRYPTO_ERRORS:
            return reason
        seen = certificate.fingerprint(hashes.SHA256())
        if seen == pin:
            return reason
        return f"its SHA-256 is {seen.hex()}, not the one that was given"

    def end(self) -> QuicEvents | None:
        """It has ended. Returns the receiver of its events, which gets no more after the last."""
        self._keep_certificate()
        if self.is_client:
            _ = self.path_statistics
        events, self.events = self.events, None
        self.has_ended = True
        self.closing = self.deadline = self.give_up_at = None
        return events

    def next_timer(self) -> float | None:
        """The earlier of the deadlines that the engine does not know."""
        times = [time for time in (self._deadline, self.give_up_at) if time is not None]
        return min(times, default=None)

    @property
    def handle(self) -> int:
        """The engine's number for it."""
        return self._handle

    def _keep_certificate(self) -> None:
        if self.is_client:
            _ = self.peer_certificate


class QuinnEndpoint:
    """The connections of one UDP socket. For the arguments see `endpoint.AioquicEndpoint`."""

    def __init__(
        self,
        config: EndpointConfig,
        wake: Wake,
        accept: Callable[[QuicConnection], QuicEvents] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.counters = EndpointCounters()
        self.timers: Timers[QuinnConnection] = Timers()
        self._config = config
        self._queue = FairQueue(clock)
        self._unmatched = Flow()
        """Packets that begin connections."""
        self._throttled: set[QuinnConnection] = set()
        self._throttles_unmatched = False
        self._is_in_round = False
        """Whether a packet was received since the last `transmit`."""
        self._time = 0.0
        """When the last packet of this round was processed; 0.0: it was not measured."""
        self._buffered = 0
        """Bytes that all connections buffer, at their last counts."""
        self._to_abandon: list[int] = []
        """Connections to forget when their close is sent, so that their buffers are free."""
        self._wake = wake
        self._accept = accept
        self._connections: dict[int, QuinnConnection] = {}
        self._handshakes: dict[QuinnConnection, None] = {}
        self._to_report: dict[QuinnConnection, None] = {}
        """Connections with events that came of a call, not of a packet."""
        self._requested = False
        """Whether `transmit` is about to be called."""
        self.engine = _engine(config)
        if accept is not None:
            assert config.certificate is not None
            self.use_certificate(config.certificate)

    def __len__(self) -> int:
        """The number of connections, with those in the closing or draining period."""
        return len(self._connections)

    # `engine.QuicEndpoint`.

    @property
    def unfinished_handshakes(self) -> int:
        """Connections of clients whose handshake is not complete."""
        return len(self._handshakes)

    def connect(
        self,
        address: Address,
        identity: ServerIdentity,
        events: Callable[[QuicConnection], QuicEvents],
        now: float,
    ) -> QuinnConnection:
        """Begin a connection to a server. Call `transmit` afterwards.

        Raises `OSError` if the CA file is not readable, or the address none to connect to.
        """
        pin = identity.certificate_hash
        accepts_any = identity.insecure or pin is not None
        handle = self.engine.connect(
            address,
            identity.server_name,
            int(now * _SECOND),
            authorities=None if accepts_any else _authorities(identity),
            pin=None if identity.insecure else pin,
        )
        connection = self._add(handle, address, pin, is_client=True)
        connection.events = events(connection)
        return connection

    def use_certificate(self, certificate: Certificate) -> None:
        """Use another certificate in new handshakes. Raises `CertificateError`."""
        _use_certificate(self.engine, certificate)

    def receive(self, data: bytes, address: Address, now: float, arrival: int) -> None:
        """Process a UDP payload. Reports its events before it returns, or in `process_waiting`."""
        self._requested = True
        if self._throttles_unmatched and data and data[0] & _LONG_TYPE == _INITIAL:
            self._enqueue(self._unmatched, (data, address, now, arrival), len(data))
            return
        begun = 0.0
        if self._is_in_round:
            begun = self._time or self._queue.clock()
        self._is_in_round = True
        outcome, handle, events, more = self.engine.receive(data, address, arrival)
        if outcome == _RECEIVED:
            connection = self._connections[handle]
            connection.arrival = arrival
            if events or more:
                self._report(connection, events, more)
            else:  # it may be a duplicate
                connection.duplicate_packets = self.engine.duplicate_packets(handle)
            if begun:
                self._spend(connection.flow, begun, connection)
        else:
            self._process_other(begun, outcome, handle, events, data, address, now, arrival)

    @property
    def waiting_packets(self) -> int:
        """Packets that are queued for `process_waiting`."""
        return self._queue.length

    def process_waiting(self) -> None:
        """Process queued packets for at most some milliseconds. Call `transmit` afterwards."""
        self._requested = True
        queue = self._queue
        time = queue.clock()
        end = time + _PROCESSING_TIME
        while time < end and (taken := queue.dequeue()) is not None:
            _, packet = taken
            if len(packet) == 2:
                waiting, arrival = packet
                outcome, handle, events, more = self.engine.process(waiting)
                connection = self._connections.get(handle)
                if outcome == _RECEIVED and connection is not None:
                    connection.arrival = arrival
                    self._report(connection, events, more)
                    self._spend(connection.flow, time, connection)
            else:
                data, address, now, arrival = packet
                outcome, handle, events, more = self.engine.receive(data, address, arrival)
                if outcome == _RECEIVED:
                    connection = self._connections[handle]
                    connection.arrival = arrival
                    self._report(connection, events, more)
                    self._spend(connection.flow, time, connection)
                else:
                    self._process_other(time, outcome, handle, events, data, address, now, arrival)
            time = queue.clock()

    def transmit(self, now: float) -> Sequence[tuple[Address, list[bytes]]]:
        """Build the packets to send now, grouped by address, in order."""
        if self._to_report:
            self._requested = True
            self._report_waiting()
        self._requested = False
        groups, is_news = self.engine.transmit(int(now * _SECOND))
        self._queue.next_round()
        self._is_in_round = False
        self._time = 0.0
        if self._throttled or self._throttles_unmatched:
            self._end_throttling()
        if self._to_abandon:
            for handle in self._to_abandon:
                self.engine.abandon(handle)
            self._to_abandon.clear()
            is_news = True
        if is_news:
            self._forget()
            self._limit_buffers()
        return groups

    def next_timer(self) -> float | None:
        """When to call `handle_timers`; None: never."""
        at = self.engine.next_timer()
        ours = self.timers.next()
        if at is None:
            return ours
        theirs = at / _SECOND
        return theirs if ours is None or theirs < ours else ours

    def handle_timers(self, now: float) -> None:
        """Handle the timers that are due. Call `transmit` afterwards."""
        self._requested = True
        for handle, events, more in self.engine.handle_timers(int(now * _SECOND)):
            connection = self._connections.get(handle)
            if connection is not None:
                self._report(connection, events, more)
        due = now + _TIMER_GRANULARITY / 2
        while (connection := self.timers.take(due)) is not None:
            self._pass_time(connection, due)
        self._forget()

    def close(self) -> None:
        """Forget all connections without sending anything. No callback is called afterwards."""
        for connection in self._connections.values():
            connection.end()
            self.engine.abandon(connection.handle)
        for table in (self._connections, self._handshakes, self._to_report, self.timers):
            table.clear()
        self._throttled.clear()
        self._throttles_unmatched = False
        self._queue = FairQueue(self._queue.clock)
        self._wake = lambda: None
        self._accept = None

    # For its connections.

    def request_transmit(self) -> None:
        """A connection has something to send."""
        if not self._requested:
            self._requested = True
            self._wake()

    def report_later(self, connection: QuinnConnection) -> None:
        """A call on the connection may have caused events, which are reported in `transmit`."""
        self._to_report[connection] = None
        self.request_transmit()

    # The rest.

    def _enqueue(self, flow: Flow, packet: tuple[Any, ...], size: int) -> None:
        if not self._queue.enqueue(flow, packet, size):
            self.counters.throttled_packets += 1

    def _process_other(
        self,
        begun: float,
        outcome: int,
        handle: int,
        waiting: Any,
        data: bytes,
        address: Address,
        now: float,
        arrival: int,
    ) -> None:
        """Process a packet that has no events: of no connection, of a new one, or one to wait."""
        if outcome == _WAITING:
            self._enqueue(self._connections[handle].flow, (waiting, arrival), len(data))
            return
        if outcome == _ACCEPTED:
            self._admit(handle, address, now, arrival)
        else:
            self._count(outcome)
        if begun:
            self._spend(self._unmatched, begun)

    def _spend(self, flow: Flow, begun: float, connection: QuinnConnection | None = None) -> None:
        """Count the time of a packet that began to be processed at `begun`."""
        queue = self._queue
        self._time = time = queue.clock()
        if not queue.spend(flow, time - begun):
            if connection is None:
                self._throttles_unmatched = True
            else:
                self._throttle(connection)

    def _throttle(self, connection: QuinnConnection) -> None:
        if connection not in self._throttled and not connection.has_ended:
            self._throttled.add(connection)
            self.engine.throttle(connection.handle, True)

    def _end_throttling(self) -> None:
        may_process = self._queue.may_process
        for connection in [one for one in self._throttled if may_process(one.flow)]:
            self._throttled.discard(connection)
            self.engine.throttle(connection.handle, False)
        if self._throttles_unmatched:
            self._throttles_unmatched = not may_process(self._unmatched)

    def _limit_buffers(self) -> None:
        for handle in self.engine.take_grown():
            connection = self._connections.get(handle)
            if connection is not None:
                before = connection.buffered_bytes
                self._buffered += connection.count_buffers() - before
        limit = self._config.max_buffered
        if self._buffered <= limit:
            return
        for connection in self._connections.values():
            if connection.has_ended:  # its closing period needs no buffers
                self.engine.abandon(connection.handle)
        self._forget()
        connections = self._connections.values()
        self._buffered = limit_buffers(connections, limit, self.counters)
        self._to_abandon += [
            connection.handle for connection in connections if connection.closing is not None
        ]

    def _add(
        self, handle: int, address: Address, pin: bytes | None = None, *, is_client: bool
    ) -> QuinnConnection:
        connection = QuinnConnection(
            self, handle, address, self._config.idle_timeout, pin, is_client=is_client
        )
        self._connections[handle] = connection
        return connection

    def _admit(self, handle: int, address: Address, now: float, arrival: int) -> None:
        assert self._accept is not None
        if len(self._handshakes) >= self._config.max_validated_handshakes:
            # All of these may be of one attacker, who must not lock out everyone else.
            self._give_up(next(iter(self._handshakes)))
        connection = self._add(handle, address, is_client=False)
        connection.arrival = arrival
        try:
            connection.events = self._accept(connection)
        except Exception:
            del self._connections[handle]
            self.engine.abandon(handle)
            raise
        connection.give_up_at = now + self._config.handshake_timeout
        self.timers.set(connection, connection.give_up_at)
        self._handshakes[connection] = None
        self.counters.connections += 1
        self._report(connection, *self.engine.events(handle))

    def _count(self, outcome: int) -> None:
        counters = self.counters
        if outcome == quinn.VERSION_NEGOTIATION:
            counters.version_negotiations += 1
        elif outcome == quinn.RETRY:
            counters.retries_sent += 1
        elif outcome == quinn.INVALID:
            counters.retries_invalid += 1
        elif outcome == quinn.REFUSED:
            counters.refused_connections += 1
        elif outcome == quinn.STATELESS_RESET:
            counters.resets_sent += 1
        elif outcome == quinn.FAILED:
            counters.connections += 1
            counters.handshake_failures += 1
        else:
            counters.dropped_packets += 1

    def _report_waiting(self) -> None:
        waiting = self._to_report
        try:
            while waiting:
                connection, _ = waiting.popitem()
                self._report(connection, *self.engine.events(connection.handle))
        except Exception:
            # A handler raised. The other connections still have to send.
            self._requested = False
            self.request_transmit()
            raise

    def _report(self, connection: QuinnConnection, events: list[Any], more: bool) -> None:
        arrival = connection.arrival
        try:
            while True:
                for event in events:
                    sink = connection.events
                    if sink is None or connection.closing is not None:
                        break
                    kind = event[0]
                    if kind == _DATAGRAM:
                        sink.datagram_received(event[1], arrival)
                    elif kind == _STREAM_DATA:
                        sink.stream_data_received(event[1], event[2], event[3], arrival)
                    else:
                        self._report_other(connection, sink, event)
                if not more:
                    break
                events, more = self.engine.events(connection.handle)
            if connection.closing is not None:
                code, reason = connection.closing
                self._end(connection, code, reason, False, True, False)
        except Exception:
            # A handler raised, so the connection's state may be inconsistent.
            connection.close(ErrorCode.H3_INTERNAL_ERROR)
            raise

    def _report_other(
        self, connection: QuinnConnection, sink: QuicEvents, event: tuple[Any, ...]
    ) -> None:
        kind = event[0]
        if kind == quinn.STREAM_RESET:
            sink.stream_reset_received(event[1], event[2], event[3])
        elif kind == quinn.STOP_SENDING:
            sink.stop_sending_received(event[1], event[2])
        elif kind == quinn.WRITABLE:
            sink.stream_writable(event[1])
        elif kind == quinn.STREAM_CREDIT:
            sink.stream_credit_received()
        elif kind == quinn.READY:
            connection.begin()
            sink.handshake_completed()
        elif kind == quinn.CONNECTED:
            connection.give_up_at = None
            connection.handshake_counted = True
            self._handshakes.pop(connection, None)
            self.counters.handshakes += 1
        elif kind == quinn.LOST:
            self._lose(connection, event[1], was_connected=event[2])

    def _lose(
        self,
        connection: QuinnConnection,
        ending: tuple[int, str, bool, bool, bool],
        *,
        was_connected: bool,
    ) -> None:
        code, reason, by_peer, is_application, timed_out = ending
        if by_peer:
            connection.close_is_authenticated = was_connected
            self.counters.resets_received += reason == RESET_REASON and not is_application
        elif not timed_out:
            self.counters.protocol_errors += not connection.is_client or was_connected
            reason = connection.explain(code, reason)
        self._end(connection, code, reason, by_peer, is_application, timed_out)

    def _end(
        self,
        connection: QuinnConnection,
        code: int,
        reason: str,
        by_peer: bool,
        is_application: bool,
        timed_out: bool,
    ) -> None:
        if connection.has_ended:
            return
        self._handshakes.pop(connection, None)
        self._to_report.pop(connection, None)
        self.timers.remove(connection)
        if not connection.handshake_counted:
            self.counters.handshake_failures += 1
            self.counters.handshake_timeouts += timed_out
        events = connection.end()
        if events is not None:
            events.connection_terminated(code, reason, by_peer, is_application, timed_out)

    def _give_up(self, connection: QuinnConnection) -> None:
        """Forget a connection whose handshake is not complete."""
        self.engine.abandon(connection.handle)
        self._end(connection, *_TIMED_OUT)

    def _pass_time(self, connection: QuinnConnection, due: float) -> None:
        if connection.give_up_at is not None and connection.give_up_at <= due:
            self._give_up(connection)
            return
        deadline = connection.deadline
        if deadline is not None and deadline <= due:
            connection.deadline = None
            events = connection.events
            try:
                if events is not None:
                    events.deadline_passed(max(due - _TIMER_GRANULARITY / 2, deadline))
            except Exception:
                connection.close(ErrorCode.H3_INTERNAL_ERROR)
                raise
        timer = connection.next_timer()
        if timer is not None:
            self.timers.set(connection, timer)

    def _forget(self) -> None:
        for handle in self.engine.take_drained():
            connection = self._connections.pop(handle, None)
            if connection is None:
                continue
            self._buffered -= connection.buffered_bytes
            self._throttled.discard(connection)
            if not connection.has_ended:
                self._end(connection, *_TIMED_OUT)


_TIMED_OUT = (_INTERNAL_ERROR, _TIMEOUT_REASON, False, False, True)


def check_certificate(certificate: Certificate) -> None:
    """Raises `CertificateError` if a server cannot use the certificate."""
    _use_certificate(_engine(EndpointConfig()), certificate)


def _engine(config: EndpointConfig) -> quinn.Endpoint:
    windows = config.windows
    return quinn.Endpoint(
        0,
        idle_timeout=int(config.idle_timeout * _SECOND),
        window=windows.connection,
        stream_window=windows.stream,
        streams_bidi=windows.streams_bidi,
        streams_uni=windows.streams_uni,
        worker=config.worker,
        workers=config.workers,
        retry_key=config.keys.retry,
        reset_key=config.keys.reset,
        max_connections=config.max_connections,
        max_handshakes=config.max_handshakes,
    )


def _use_certificate(engine: quinn.Endpoint, certificate: Certificate) -> None:
    chain = (certificate.certificate, *certificate.chain)
    key = certificate.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    try:
        engine.use_certificate([one.public_bytes(Encoding.DER) for one in chain], key)
    except ValueError:
        from ..certificates import CertificateError

        raise CertificateError(
            "the engine quinn cannot use the key of this certificate: use ECDSA P-256 or P-384,"
            " Ed25519 or RSA with 2048 to 4096 bits, or choose aioquic"
        ) from None


def _authorities(identity: ServerIdentity) -> quinn.Authorities:
    """The authorities that a client trusts. Raises `OSError` if a file is not readable."""
    file, folder = identity.ca_file, identity.ca_path
    if file is None and folder is None:
        import certifi

        file = certifi.where()
    # What is in a folder is not looked at for each connection: a system has hundreds of files.
    stamps = [(os.stat(one).st_mtime_ns, os.stat(one).st_size) for one in (file, folder) if one]
    return _read_authorities(file, folder, tuple(stamps))


@functools.lru_cache(maxsize=8)
def _read_authorities(
    file: str | None, folder: str | None, stamps: tuple[tuple[int, int], ...]
) -> quinn.Authorities:
    """Read PEM files; `stamps` changes when they do."""
    files = [] if file is None else [file]
    if folder is not None:
        # The names that OpenSSL gives them: a hash, and a number.
        names = sorted(os.listdir(folder))
        files += [os.path.join(folder, name) for name in names if name.rpartition(".")[2].isdigit()]
    content = []
    for name in files:
        with open(name, "rb") as opened:
            content.append(opened.read())
    return quinn.Authorities(b"\n".join(content))
