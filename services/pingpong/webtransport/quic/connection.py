"""Implements `engine.QuicConnection` with aioquic."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, Protocol

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ..errors import ErrorCode
from .aioquic import StreamCreditReceived
from .config import EndpointConfig
from .connection_ids import ConnectionIds
from .engine import Address, PathStatistics, QuicEvents
from .fair_queue import Flow
from .one_rtt import OneRttConnection

_COUNT_BUFFERS_AFTER = 16 << 10
"""Bytes by which buffers may grow before they are counted again."""
_IDLE_REASON = "Idle timeout"
"""aioquic's reason phrase for an idle timeout, which has no error code."""


class Owner(Protocol):
    """What a connection reports to the endpoint that made it."""

    def request_transmit(self, connection: AioquicConnection) -> None:
        """The connection may have something to send."""

    def buffers_counted(self, change: int) -> None:
        """The buffers of the connection changed by `change` bytes since the last count."""

    def handshake_completed(self, connection: AioquicConnection) -> None:
        """The handshake is complete on this side."""

    def connection_ended(self, connection: AioquicConnection, timed_out: bool) -> None:
        """The connection ended; `timed_out`: by the idle timeout."""

    def reset_token_changed(self, connection: AioquicConnection, before: bytes) -> None:
        """The stateless reset token of the peer changed; `before` is the old one."""

    def add_route(self, connection_id: bytes, connection: AioquicConnection) -> None:
        """The peer got a new connection id."""

    def remove_route(self, connection_id: bytes) -> None:
        """The peer retired a connection id."""


class AioquicConnection:
    """Implements `engine.QuicConnection` with aioquic."""

    __slots__ = (
        "_certificate_hash",
        "_close_packets",
        "_closing_received",
        "_count_buffers_at",
        "_has_data",
        "_owner",
        "_peer_id",
        "_queue",
        "_quic",
        "_reported_end",
        "_writable_below",
        "arrival",
        "buffered_bytes",
        "counted_handshake",
        "deadline",
        "events",
        "first_route",
        "flow",
        "give_up_at",
        "is_client",
        "max_datagram_size",
        "reset_stream_at",
        "reset_token",
    )

    def __init__(
        self,
        owner: Owner,
        configuration: QuicConfiguration,
        config: EndpointConfig,
        ids: ConnectionIds,
        certificate_hash: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        self._owner = owner
        self._quic = OneRttConnection(
            configuration, config.windows, ids, key_limits=config.key_limits, **kwargs
        )
        self._queue: deque[events.QuicEvent] = self._quic.event_queue
        self._certificate_hash = certificate_hash
        self._close_packets: list[tuple[bytes, Address]] = []
        self._closing_received = 0
        """Packets that arrived after we sent CONNECTION_CLOSE, which may be lost."""
        self._has_data = False
        self._peer_id: object = None
        self._reported_end = False
        self._writable_below: dict[int, int] = {}
        self._count_buffers_at = _COUNT_BUFFERS_AFTER
        self.arrival = 0
        self.buffered_bytes = 0
        """Bytes that were buffered at the last count."""
        self.counted_handshake = False
        self.deadline: float | None = None
        self.events: QuicEvents | None = None
        self.is_client: bool = configuration.is_client
        self.max_datagram_size = 0
        self.reset_stream_at = False
        self.reset_token = b""
        """The token of a stateless reset of the peer; empty if there is none."""
        self.first_route = b""
        """For the endpoint: the destination connection id of the client's first packet."""
        self.flow = Flow()
        self.give_up_at: float | None = None
        """When the handshake times out; None for no timeout, or if it is complete."""

    # `engine.QuicConnection`.

    @property
    def address(self) -> Address:
        """The peer's address, as last seen."""
        return self._quic.get_peer_address()

    @property
    def duplicate_packets(self) -> int:
        """Packets that the network duplicated."""
        return self._quic.duplicate_packets

    @property
    def path_statistics(self) -> PathStatistics | None:
        """Statistics of the path; None before a round trip was measured."""
        return self._quic.path_statistics

    @property
    def peer_broke_rules(self) -> bool:
        """For the endpoint: whether the connection ended because the peer violated the
        protocol."""
        return self._quic.peer_broke_rules

    @property
    def idle_timeout(self) -> float:
        """The negotiated idle timeout, in seconds."""
        return self._quic.idle_timeout

    @property
    def close_is_authenticated(self) -> bool:
        """False if the peer closed the connection before the handshake authenticated it."""
        return self._quic.close_is_authenticated

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's stream limit allows one more stream."""
        return self._quic.can_open_stream(unidirectional)

    def open_stream(self, header: bytes, unidirectional: bool) -> int:
        """Open a stream that begins with `header`, and return its id."""
        stream_id: int = self._quic.get_next_available_stream_id(unidirectional)
        self._quic.send_stream_data(stream_id, header)
        self._request_transmit()
        return stream_id

    def send_stream(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Queue bytes on a stream."""
        if self._quic.write(stream_id, data, end_stream):
            self._request_transmit()

    def send_datagram(self, data: bytes) -> bool:
        """Queue a datagram; false if it was dropped because the queue is full."""
        if not self._quic.queue_datagram(data):
            return False
        self._request_transmit()
        return True

    def reset_stream(self, stream_id: int, code: int, reliable_size: int = 0) -> int:
        """Reset our side, and deliver its first `reliable_size` bytes if the peer supports
        that."""
        unsent = self._quic.reset(stream_id, code, reliable_size)
        if unsent is None:
            return 0
        self._request_transmit()
        return unsent

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Send STOP_SENDING."""
        if self._quic.stop(stream_id, code):
            self._request_transmit()

    def buffered(self, stream_id: int) -> int:
        """Bytes of a stream that the peer has not acknowledged, sent or queued."""
        return self._quic.buffered(stream_id)

    def notify_writable(self, stream_id: int, below: int) -> None:
        """Report `stream_writable` once, when `buffered` is at most `below`."""
        self._writable_below[stream_id] = below

    def hold(self, stream_id: int, size: int) -> None:
        """The reader buffers `size` bytes: grant no credit for them."""
        quic = self._quic
        quic.held[stream_id] = quic.held.get(stream_id, 0) + size
        quic.held_total += size

    @property
    def held(self) -> int:
        """Bytes of all streams that readers buffer."""
        return self._quic.held_total

    def release(self, stream_id: int, size: int) -> None:
        """`size` held bytes were read: grant credit for them."""
        quic = self._quic
        held = quic.held.get(stream_id, 0)
        size = min(size, held)
        quic.held_total -= size
        if held > size:
            quic.held[stream_id] = held - size
        elif held:
            del quic.held[stream_id]
        self._request_transmit()

    def is_receive_closed(self, stream_id: int) -> bool:
        """Whether the receiving part of a stream that the peer opened has ended."""
        return self._quic.is_receive_closed(stream_id)

    def ping(self) -> None:
        """Send PING, which the peer must acknowledge: a keep-alive."""
        self._quic.send_ping(0)
        self._request_transmit()

    def close(self, code: int, reason: str = "", *, is_application: bool = True) -> None:
        """Close the connection with CONNECTION_CLOSE. A long reason is truncated."""
        frame_type = None if is_application else int(QuicFrameType.PADDING)
        self._quic.close(code, frame_type, reason)
        self._request_transmit()

    # For the endpoint.

    @property
    def connection_ids(self) -> list[bytes]:
        """The connection ids that the peer may use now."""
        return self._quic.connection_ids

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """Client: the server's certificate, or None."""
        return self._quic.peer_certificate

    @property
    def is_discardable(self) -> bool:
        """Whether the closing or draining period is over, so the endpoint may forget it."""
        return self._reported_end and self._quic.get_timer() is None

    def connect(self, address: Address, now: float) -> None:
        """Client: begin the handshake."""
        self._quic.connect(address, now)
        self._request_transmit()

    def receive(self, data: bytes, address: Address, now: float, arrival: int) -> None:
        """Process a packet, and report its events."""
        self.arrival = arrival
        quic = self._quic
        if self._close_packets:
            self._closing_received += 1
            return
        try:
            quic.receive_datagram(data, address, now)
        except Exception:
            self.close(ErrorCode.H3_INTERNAL_ERROR)
            raise
        if self._queue or quic.ending is not None or self._writable_below:
            self._report()

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Build the packets to send now."""
        quic = self._quic
        if quic.peer_id is not self._peer_id:
            self._note_peer_id()
        has_news, self._has_data = self._has_data, False
        if not quic.prepare(now, has_news=has_news):
            return []
        if self._close_packets:
            return self._repeat_close()
        packets: list[tuple[bytes, Address]] = quic.datagrams_to_send(now)
        if quic.ending is not None:
            self._close_packets = packets
            self._report()
        elif self._queue:
            self._report()
        if quic.buffers.grown > self._count_buffers_at:
            before = self.buffered_bytes
            self._owner.buffers_counted(self.count_buffers() - before)
        return packets

    def count_buffers(self) -> int:
        """Count the bytes that are buffered, here and above."""
        self._count_buffers_at = self._quic.buffers.grown + _COUNT_BUFFERS_AFTER
        self.buffered_bytes = self._quic.buffered_bytes()
        if self.events is not None:
            self.buffered_bytes += self.events.buffered_bytes()
        return self.buffered_bytes

    def next_timer(self) -> float | None:
        """When to call `handle_timer`; None: never."""
        timer: float | None = self._quic.get_timer()
        if timer is not None:
            if self.give_up_at is not None and self.give_up_at < timer:
                timer = self.give_up_at
            if self.deadline is not None and self.deadline < timer:
                timer = self.deadline
        return timer

    def handle_timer(self, now: float) -> None:
        """Handle timeouts: acknowledge, retransmit, probe, close."""
        # If the timer fired early, a delayed acknowledgement is sent now, without another timer.
        self._has_data = True
        if self.give_up_at is not None and now >= self.give_up_at:
            self._quic.give_up(now)
        else:
            self._quic.handle_timer(now)
        self._report()
        if self.deadline is not None and now >= self.deadline:
            self._pass_deadline(now)

    def reset_received(self, now: float) -> None:
        """The peer sent a stateless reset: the connection ends."""
        self._quic.reset_received(now)
        self._report()

    def discard_state(self) -> None:
        """Release the state of a connection that has ended and reported it.

        It also breaks the reference cycle between the connection and its user.
        """
        self.events = None
        self._quic.discard_state()

    # The rest.

    def _request_transmit(self) -> None:
        self._has_data = True
        self._owner.request_transmit(self)

    def _report(self) -> None:
        sink = self.events
        queue = self._queue
        arrival = self.arrival
        try:
            while queue:
                event = queue.popleft()
                if isinstance(event, events.StreamDataReceived):
                    self._quic.note_delivered(len(event.data))
                    if sink is not None:
                        sink.stream_data_received(
                            event.stream_id, event.data, event.end_stream, arrival
                        )
                elif isinstance(event, events.DatagramFrameReceived):
                    if sink is not None:
                        sink.datagram_received(event.data, arrival)
                else:
                    report = self._REPORTS.get(type(event))
                    if report is not None:
                        report(self, event)
            if self._writable_below and sink is not None:
                self._report_writable(sink)
            if self._quic.ending is not None:
                if not self._reported_end:
                    self._report_end(self._quic.ending)
                if self._quic.has_ended:
                    self.discard_state()
        except Exception:
            # A handler raised, so the connection's state may be inconsistent.
            self.close(ErrorCode.H3_INTERNAL_ERROR)
            raise

    def _pass_deadline(self, now: float) -> None:
        self.deadline = None
        try:
            if self.events is not None:
                self.events.deadline_passed(now)
        except Exception:
            self.close(ErrorCode.H3_INTERNAL_ERROR)
            raise

    def _report_negotiated(self, event: events.ProtocolNegotiated) -> None:
        if not self.is_client:
            self._begin()

    def _report_handshake(self, event: events.HandshakeCompleted) -> None:
        if self._certificate_hash is not None and (seen := self._hash()) != self._certificate_hash:
            self.close(
                QuicErrorCode.CRYPTO_ERROR + tls.AlertDescription.bad_certificate,
                f"its SHA-256 is {seen.hex()}, not the one that was given",
                is_application=False,
            )
            # Ignore what the wrong server sent with its handshake.
            self._queue.clear()
            return
        self.give_up_at = None
        self._owner.handshake_completed(self)
        if self.is_client:
            self._begin()

    def _begin(self) -> None:
        self.reset_stream_at = self._quic.peer_resets_at
        self._note_peer_id()
        if self.events is not None:
            self.events.handshake_completed()

    def _hash(self) -> bytes:
        certificate = self._quic.peer_certificate
        assert certificate is not None
        return certificate.fingerprint(hashes.SHA256())

    def _repeat_close(self) -> list[tuple[bytes, Address]]:
        # Send it less and less often, so that two closing sides do not answer each other for ever
        # (RFC 9000, section 10.2.1).
        received = self._closing_received
        return self._close_packets if received and not received & (received - 1) else []

    def _note_peer_id(self) -> None:
        self._peer_id = self._quic.peer_id
        self._set_datagram_size()
        before, self.reset_token = self.reset_token, self._quic.reset_token
        if self.reset_token != before:
            self._owner.reset_token_changed(self, before)

    def _set_datagram_size(self) -> None:
        self.max_datagram_size = self._quic.fit_datagrams()

    def _report_reset(self, event: events.StreamReset) -> None:
        if self.events is not None:
            self.events.stream_reset_received(
                event.stream_id, event.error_code, self._quic.final_size(event.stream_id)
            )

    def _report_stop(self, event: events.StopSendingReceived) -> None:
        # An earlier event may have ended our side.
        if self.events is not None and self._quic.sending(event.stream_id):
            self.events.stop_sending_received(event.stream_id, event.error_code)

    def _report_stream_credit(self, event: StreamCreditReceived) -> None:
        if self.events is not None:
            self.events.stream_credit_received()

    def _report_issued(self, event: events.ConnectionIdIssued) -> None:
        self._owner.add_route(event.connection_id, self)

    def _report_retired(self, event: events.ConnectionIdRetired) -> None:
        self._owner.remove_route(event.connection_id)

    def _report_writable(self, sink: QuicEvents) -> None:
        for stream_id, below in list(self._writable_below.items()):
            if self.buffered(stream_id) <= below:
                del self._writable_below[stream_id]
                sink.stream_writable(stream_id)

    def _report_end(self, ending: events.ConnectionTerminated) -> None:
        self._reported_end = True
        self._writable_below.clear()
        self.give_up_at = self.deadline = None
        by_peer = self._quic.closed_by_peer
        timed_out = (
            not by_peer
            and ending.error_code == QuicErrorCode.INTERNAL_ERROR
            and ending.reason_phrase == _IDLE_REASON
        )
        self._owner.connection_ended(self, timed_out)
        if self.events is not None:
            self.events.connection_terminated(
                ending.error_code,
                ending.reason_phrase,
                by_peer,
                ending.frame_type is None,
                timed_out,
            )

    _REPORTS: ClassVar[dict[type[events.QuicEvent], Any]] = {
        events.ProtocolNegotiated: _report_negotiated,
        events.HandshakeCompleted: _report_handshake,
        events.StreamReset: _report_reset,
        events.StopSendingReceived: _report_stop,
        events.ConnectionIdIssued: _report_issued,
        events.ConnectionIdRetired: _report_retired,
        StreamCreditReceived: _report_stream_credit,
    }
