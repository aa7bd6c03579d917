"""Implements `engine.QuicEndpoint` with aioquic: routing, admission, timers.

A packet is routed to its connection by the destination connection id. A packet without a
connection is dropped, answered without state (Version Negotiation, Retry, CONNECTION_REFUSED,
stateless reset: RFC 9000, sections 6, 8.1.2, 5.2.2 and 10.3), or begins a connection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import QuicErrorCode, QuicHeader, QuicPacketType, pull_quic_header

from ..certificates import Certificate
from . import stateless
from .buffers import limit_buffers
from .config import EndpointConfig, ServerIdentity
from .connection import AioquicConnection
from .connection_ids import (
    CONNECTION_ID_SIZE,
    FIXED_BIT,
    LONG_HEADER,
    LONG_ID_AT,
    RESET_TOKEN_SIZE,
    SHORT_ID_AT,
    ConnectionIds,
)
from .engine import Address, EndpointCounters, QuicConnection, QuicEvents, Wake
from .fair_queue import FairQueue, Flow
from .retry import RetryTokens
from .timers import Timers

_SMALLEST_FIRST_ID = 8  # bytes of a client's first connection id (RFC 9000, section 7.2)
_STATELESS_RATE = 1_000.0
"""Refusals a second, and stateless resets a second, at most. Further packets get no answer."""
_PROCESSING_TIME = 0.002
"""Seconds for which queued packets are processed before the socket is read again."""
_TIMER_GRANULARITY = 0.001
"""Timers may fire this much early or late: event loops have a resolution of milliseconds."""
_VERIFY_NOTHING = 0  # `ssl.CERT_NONE`, without the module


class AioquicEndpoint:
    """The connections of one UDP socket.

    `accept` is called for each connection of a client, and returns the receiver of its events.
    `wake` is called when there is something to send outside of `receive` and `handle_timers`.
    `clock` measures the processing time of packets, in seconds; without it, no packet is queued.
    """

    def __init__(
        self,
        config: EndpointConfig,
        wake: Wake,
        accept: Callable[[QuicConnection], QuicEvents] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.counters = EndpointCounters()
        self._queue = FairQueue(clock)
        self._unmatched = Flow()
        """Packets that match no connection: new handshakes, and packets that are not for us."""
        self._buffered = 0
        """Bytes that all connections buffer, at their last counts."""
        self._config = config
        self._wake = wake
        self._accept = accept
        self._routes: dict[bytes, AioquicConnection] = {}
        self._connections: set[AioquicConnection] = set()
        self._handshakes: dict[AioquicConnection, None] = {}
        self._to_transmit: OrderedDict[AioquicConnection, None] = OrderedDict()
        """Connections that may have something to send."""
        self._stateless_packets: list[tuple[Address, list[bytes]]] = []
        self._timers: Timers[AioquicConnection] = Timers()
        self._ids = ConnectionIds(config.keys.reset, config.worker, config.workers)
        self._retry = RetryTokens(config.keys.retry)
        self._reset_tokens: dict[bytes, AioquicConnection] = {}
        """The tokens by which a stateless reset of a peer is recognized."""
        self._refusals = stateless.TokenBucket(_STATELESS_RATE)
        self._resets = stateless.TokenBucket(_STATELESS_RATE)
        self._server: QuicConfiguration | None = None
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
    ) -> AioquicConnection:
        """Begin a connection to a server. Call `transmit` afterwards.

        Raises `OSError` if the CA file is not readable.
        """
        configuration = for_client(self._config, identity)
        connection = AioquicConnection(
            self, configuration, self._config, self._ids, identity.certificate_hash
        )
        connection.events = events(connection)
        self._add(connection)
        connection.connect(address, now)
        return connection

    def use_certificate(self, certificate: Certificate) -> None:
        """Use another certificate in new handshakes."""
        self._server = for_server(self._config, certificate)

    def receive(self, data: bytes, address: Address, now: float, arrival: int) -> None:
        """Process a UDP payload. Reports its events before it returns, or in `process_waiting`.

        A packet that is queued is processed later, but with its own arrival time as "now".
        """
        if not data:
            return
        connection = self._connection_of(data)
        flow = self._unmatched if connection is None else connection.flow
        if self._queue.may_process(flow):
            self._process(flow, connection, data, address, now, arrival)
        elif not self._queue.enqueue(flow, (data, address, now, arrival), len(data)):
            self.counters.throttled_packets += 1

    @property
    def waiting_packets(self) -> int:
        """Packets that are queued for `process_waiting`."""
        return self._queue.length

    def process_waiting(self) -> None:
        """Process queued packets for at most some milliseconds. Call `transmit` afterwards."""
        queue = self._queue
        end = queue.clock() + _PROCESSING_TIME
        while (taken := queue.dequeue()) is not None:
            flow, packet = taken
            self._process(flow, self._connection_of(packet[0]), *packet)
            if queue.clock() >= end:
                break

    def transmit(self, now: float) -> Sequence[tuple[Address, list[bytes]]]:
        """Build the packets to send now, grouped by address, in order."""
        groups, touched = self._stateless_packets, self._to_transmit
        clock = self._queue.clock
        time = clock()
        try:
            while touched:
                connection, _ = touched.popitem(last=False)
                last: Address = None
                for packet, address in connection.transmit(now):
                    if address is last:
                        groups[-1][1].append(packet)
                    else:
                        groups.append((address, [packet]))
                        last = address
                self._arm(connection)
                before, time = time, clock()
                connection.flow.spent += time - before
        except Exception:
            # A handler raised. The other connections still have to send.
            self._wake()
            raise
        self._queue.next_round()
        self._stateless_packets = []
        return groups

    def next_timer(self) -> float | None:
        """When to call `handle_timers`; None: never."""
        return self._timers.next()

    def handle_timers(self, now: float) -> None:
        """Handle the timers that are due. Call `transmit` afterwards."""
        due = now + _TIMER_GRANULARITY / 2
        while (connection := self._timers.take(due)) is not None:
            timer = connection.next_timer()
            if timer is None or timer > due:
                self._arm(connection)
                continue
            self._to_transmit[connection] = None
            try:
                connection.handle_timer(max(now, timer))
            except Exception:
                self._wake()
                raise

    def close(self) -> None:
        """Forget all connections without sending anything. No callback is called afterwards."""
        for connection in self._connections:
            connection.discard_state()
        for table in (
            *(self._connections, self._handshakes, self._routes, self._reset_tokens),
            *(self._to_transmit, self._stateless_packets, self._timers),
        ):
            table.clear()
        self._queue = FairQueue(self._queue.clock)
        self._wake = lambda: None
        self._accept = self._server = None

    # For its connections.

    def buffers_counted(self, change: int) -> None:
        """The buffers of a connection changed by `change` bytes.

        If all connections together are above the limit, close the one that buffers most.
        """
        self._buffered += change
        if change <= 0 or self._buffered <= self._config.max_buffered:
            return
        limit = self._config.max_buffered
        self._buffered = limit_buffers(self._connections, limit, self.counters)

    def request_transmit(self, connection: AioquicConnection) -> None:
        """A connection has something to send.

        If another connection had requested it before, `transmit` is about to be called.
        """
        if not self._to_transmit:
            self._wake()
        self._to_transmit[connection] = None

    def handshake_completed(self, connection: AioquicConnection) -> None:
        """A handshake is complete on this side."""
        self._handshakes.pop(connection, None)
        self.counters.handshakes += 1
        connection.counted_handshake = True

    def connection_ended(self, connection: AioquicConnection, timed_out: bool) -> None:
        """A connection ended. It stays for the closing or draining period."""
        self._handshakes.pop(connection, None)
        self.counters.protocol_errors += connection.peer_broke_rules
        if not connection.counted_handshake:
            self.counters.handshake_failures += 1
            self.counters.handshake_timeouts += timed_out

    def reset_token_changed(self, connection: AioquicConnection, before: bytes) -> None:
        """The stateless reset token of a connection's peer changed."""
        self._forget_reset_token(connection, before)
        if connection.reset_token:
            self._reset_tokens[connection.reset_token] = connection

    def add_route(self, connection_id: bytes, connection: AioquicConnection) -> None:
        """A connection issued another connection id."""
        self._routes[connection_id] = connection

    def remove_route(self, connection_id: bytes) -> None:
        """The peer retired a connection id."""
        self._routes.pop(connection_id, None)

    # The rest.

    def _add(self, connection: AioquicConnection) -> None:
        self._connections.add(connection)
        for connection_id in connection.connection_ids:
            self._routes[connection_id] = connection

    def _connection_of(self, data: bytes) -> AioquicConnection | None:
        # RFC 8999: a long header has the version, then each connection id after its length.
        if not data[0] & LONG_HEADER:
            return self._routes.get(data[SHORT_ID_AT : SHORT_ID_AT + CONNECTION_ID_SIZE])
        size = data[5] if len(data) > LONG_ID_AT else 255
        return self._routes.get(data[LONG_ID_AT : LONG_ID_AT + size])

    def _process(
        self,
        flow: Flow,
        connection: AioquicConnection | None,
        data: bytes,
        address: Address,
        now: float,
        arrival: int,
    ) -> None:
        clock = self._queue.clock
        begun = clock()
        try:
            if connection is None:
                connection = self._receive_unmatched(data, address, now)
                if connection is None:
                    return
            self._to_transmit[connection] = None
            connection.receive(data, address, now, arrival)
        finally:
            flow.spent += clock() - begun

    def _arm(self, connection: AioquicConnection) -> None:
        timer = connection.next_timer()
        if timer is None:
            self._forget(connection)
        else:
            self._timers.set(connection, timer)

    def _forget(self, connection: AioquicConnection) -> None:
        if connection in self._connections and connection.is_discardable:
            self._connections.discard(connection)
            self._buffered -= connection.buffered_bytes
            self._handshakes.pop(connection, None)
            for connection_id in connection.connection_ids:
                self._routes.pop(connection_id, None)
            self._routes.pop(connection.first_route, None)
            self._forget_reset_token(connection, connection.reset_token)
            self._timers.remove(connection)
            # Again, in case a handler raised before.
            connection.discard_state()

    def _forget_reset_token(self, connection: AioquicConnection, token: bytes) -> None:
        # A peer may have claimed the token of another connection.
        if self._reset_tokens.get(token) is connection:
            del self._reset_tokens[token]

    def _receive_unmatched(
        self, data: bytes, address: Address, now: float
    ) -> AioquicConnection | None:
        """Process a packet that matches no connection. Returns the connection that it begins."""
        if (
            not data[0] & LONG_HEADER
            or self._server is None
            or len(data) < SMALLEST_MAX_DATAGRAM_SIZE
        ):
            self._receive_unroutable(data, address, now)
            return None
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_SIZE)
        except ValueError:
            self.counters.dropped_packets += 1
            return None
        versions = self._server.supported_versions
        if header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            self.counters.dropped_packets += 1
        elif header.version not in versions:
            self.counters.version_negotiations += 1
            self._stateless_packets.append(
                (address, [stateless.version_negotiation(header, versions)])
            )
        elif header.packet_type is QuicPacketType.INITIAL:
            return self._admit(header, address, now)
        else:
            self.counters.dropped_packets += 1
        return None

    def _admit(self, header: QuicHeader, address: Address, now: float) -> AioquicConnection | None:
        """Process a client's first packet: begin a connection, send Retry, or refuse."""
        if len(header.destination_cid) < _SMALLEST_FIRST_ID:
            self.counters.dropped_packets += 1
            return None
        original_id = header.destination_cid
        retry_id: bytes | None = None
        if header.token:
            try:
                validated = self._retry.validate(address, header.destination_cid, header.token, now)
            except ValueError:
                self.counters.retries_invalid += 1
                self._refuse(header, address, QuicErrorCode.INVALID_TOKEN, now)
                return None
            if validated is not None:
                original_id, retry_id = validated, header.destination_cid
        if len(self._connections) >= self._config.max_connections:
            self.counters.refused_connections += 1
            self._refuse(header, address, QuicErrorCode.CONNECTION_REFUSED, now)
            return None
        if retry_id is None and len(self._handshakes) >= self._config.max_handshakes:
            self._send_retry(header, address, now)
            return None
        if len(self._handshakes) >= self._config.max_validated_handshakes:
            # All of these may be of one attacker, who must not lock out everyone else.
            self._give_up(next(iter(self._handshakes)), now)
        assert self._server is not None
        assert self._accept is not None
        connection = AioquicConnection(
            self,
            self._server,
            self._config,
            self._ids,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        connection.events = self._accept(connection)
        connection.give_up_at = now + self._config.handshake_timeout
        self.counters.connections += 1
        self._handshakes[connection] = None
        connection.first_route = header.destination_cid
        self._routes[header.destination_cid] = connection
        self._add(connection)
        return connection

    def _give_up(self, connection: AioquicConnection, now: float) -> None:
        """Close a connection whose handshake is not complete."""
        connection.give_up_at = now
        connection.handle_timer(now)
        self._to_transmit[connection] = None

    def _send_retry(self, header: QuicHeader, address: Address, now: float) -> None:
        self.counters.retries_sent += 1
        retry_id = self._ids.make()
        token = self._retry.make(address, header.destination_cid, retry_id, now)
        self._stateless_packets.append((address, [stateless.retry(header, retry_id, token)]))

    def _refuse(self, header: QuicHeader, address: Address, code: int, now: float) -> None:
        if self._refusals.take(now):
            self._stateless_packets.append((address, stateless.connection_refused(header, code)))

    def _receive_unroutable(self, data: bytes, address: Address, now: float) -> None:
        """Process a packet that matches no connection and begins none."""
        # A hash table with a random key: the look-up time reveals nothing about the tokens.
        connection = self._reset_tokens.get(data[-RESET_TOKEN_SIZE:])
        if (
            connection is not None
            and connection.address == address
            and len(data) >= stateless.MIN_RESET_SIZE
        ):
            self.counters.resets_received += 1
            self._to_transmit[connection] = None
            connection.reset_received(now)
            return
        if (
            self._server is not None
            and data[0] & (LONG_HEADER | FIXED_BIT) == FIXED_BIT
            and len(data) > stateless.MIN_RESET_SIZE
            and self._resets.take(now)
        ):
            self.counters.resets_sent += 1
            token = self._ids.reset_token(data[SHORT_ID_AT : SHORT_ID_AT + CONNECTION_ID_SIZE])
            self._stateless_packets.append((address, [stateless.stateless_reset(len(data), token)]))
        else:
            self.counters.dropped_packets += 1


def for_client(config: EndpointConfig, identity: ServerIdentity) -> QuicConfiguration:
    """The configuration of a client."""
    configuration = _for_any(config, is_client=True)
    configuration.server_name = identity.server_name
    if identity.insecure or identity.certificate_hash is not None:
        configuration.verify_mode = _VERIFY_NOTHING
    elif identity.ca_file is not None or identity.ca_path is not None:
        configuration.load_verify_locations(cafile=identity.ca_file, capath=identity.ca_path)
    return configuration


def for_server(config: EndpointConfig, certificate: Certificate) -> QuicConfiguration:
    """The configuration of a server with a certificate."""
    configuration = _for_any(config, is_client=False)
    configuration.certificate = certificate.certificate
    configuration.certificate_chain = list(certificate.chain)
    configuration.private_key = certificate.private_key
    return configuration


def _for_any(config: EndpointConfig, *, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=["h3"],
        connection_id_length=CONNECTION_ID_SIZE,
        idle_timeout=config.idle_timeout,
        is_client=is_client,
        max_data=config.windows.connection,
        max_stream_data=config.windows.stream,
        max_datagram_frame_size=65_535,
    )
