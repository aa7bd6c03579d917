"""The interface to a QUIC engine: an endpoint, its connections, and their events.

The interface is at the endpoint: a packet goes in with its source address and arrival time; the
engine routes it to its connection, reports events by calling the connection's `QuicEvents`, and
returns packets to send, grouped by address. So it fits engines with and without their own routing.
Connection ids must encode the worker, as `connection_ids.worker_of` reads it.

`now` is in seconds of a monotonic clock. Arrival times are the kernel's receive times of packets,
in nanoseconds of the same clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .config import ServerIdentity

if TYPE_CHECKING:
    from cryptography import x509

    from ..certificates import Certificate

RESET_REASON = "stateless reset: the peer no longer has this connection"
"""The reason with which a stateless reset ends a connection."""

Address = Any
"""A socket address as the socket module has it; opaque to the engine's users."""


class PathStatistics(NamedTuple):
    """What a connection knows of its path (RFC 9002)."""

    smoothed_rtt: float
    """The smoothed round-trip time, in seconds."""
    congestion_window: int
    """Bytes that may be in flight."""
    lost_packets: int
    """Packets that the connection sent and declared lost."""


class QuicEvents(Protocol):
    """The events of one connection, in order."""

    def handshake_completed(self) -> None:
        """The peer's transport parameters are known, and data can be sent.

        A server gets this as soon as it has keys, so that its SETTINGS are in its first flight; a
        client when it has verified the server.
        """

    def stream_data_received(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """The next bytes of a stream, in order, of a packet that arrived at `arrival`.

        `data` is empty only with `end_stream`.
        """

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None:
        """The peer reset its side of a stream, with its final size."""

    def stop_sending_received(self, stream_id: int, code: int) -> None:
        """The peer sent STOP_SENDING. The owner of the stream has to reset it.

        Not reported for a stream that was sent completely, which still arrives (RFC 9000, section
        3.5), or that is reset already.
        """

    def stream_writable(self, stream_id: int) -> None:
        """`buffered` fell to the value that was passed to `notify_writable`."""

    def stream_credit_received(self) -> None:
        """The peer raised a stream limit."""

    def datagram_received(self, data: bytes, arrival: int) -> None:
        """The payload of a DATAGRAM frame (RFC 9221), of a packet that arrived at `arrival`."""

    def buffered_bytes(self) -> int:
        """Bytes that the receiver of the events buffers, without those of
        `QuicConnection.hold`."""
        ...

    def deadline_passed(self, now: float) -> None:
        """`QuicConnection.deadline` passed, and is None again."""

    def connection_terminated(
        self, code: int, reason: str, by_peer: bool, is_application: bool, timed_out: bool
    ) -> None:
        """The connection ended. The last call. For the arguments see `events.ConnectionClosed`."""


class QuicConnection(Protocol):
    """One connection. Nothing is sent before `QuicEndpoint.transmit`."""

    is_client: bool
    max_datagram_size: int
    """Bytes of the largest DATAGRAM payload; 0: the peer accepts none."""
    reset_stream_at: bool
    """Whether both sides support RESET_STREAM_AT."""
    arrival: int
    """When the last packet arrived, in nanoseconds: for data that is delivered later."""
    deadline: float | None
    """When to report `deadline_passed`; None: never. The user sets it."""

    @property
    def address(self) -> Address:
        """The peer's address, as last seen."""
        ...

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """Client: the server's certificate, or None."""
        ...

    @property
    def duplicate_packets(self) -> int:
        """1-RTT packets that the network duplicated."""
        ...

    @property
    def path_statistics(self) -> PathStatistics | None:
        """Statistics of the path; None before a round trip was measured. Not for each packet."""
        ...

    @property
    def idle_timeout(self) -> float:
        """The negotiated idle timeout, in seconds."""
        ...

    @property
    def close_is_authenticated(self) -> bool:
        """False if the peer closed the connection before the handshake authenticated it.

        Anyone who sees the first packet can forge such a close (RFC 9001, section 7).
        """
        ...

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's stream limit allows one more stream."""
        ...

    def open_stream(self, header: bytes, unidirectional: bool) -> int:
        """Open a stream that begins with `header`, and return its id."""
        ...

    def send_stream(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Queue bytes on a stream. Does nothing if our side has ended."""

    def send_datagram(self, data: bytes) -> bool:
        """Queue a datagram; false if it was dropped because the queue is full."""
        ...

    def reset_stream(self, stream_id: int, code: int, reliable_size: int = 0) -> int:
        """Reset our side. Does nothing if it has ended.

        Its first `reliable_size` bytes are still delivered if both sides support RESET_STREAM_AT.
        Returns the number of queued bytes that will not be sent.
        """
        ...

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Send STOP_SENDING. Does nothing if the peer's side has ended."""

    def buffered(self, stream_id: int) -> int:
        """Bytes of a stream that the peer has not acknowledged, sent or queued."""
        ...

    def notify_writable(self, stream_id: int, below: int) -> None:
        """Report `stream_writable` once, when `buffered` is at most `below`."""

    def hold(self, stream_id: int, size: int) -> None:
        """The reader buffers the last `size` bytes: grant no credit for them."""

    def release(self, stream_id: int, size: int) -> None:
        """`size` held bytes were read: grant credit for them."""

    def is_receive_closed(self, stream_id: int) -> bool:
        """Whether the peer's side of a stream that it opened has ended."""
        ...

    def ping(self) -> None:
        """Send PING, which the peer must acknowledge: a keep-alive."""

    def close(self, code: int, reason: str = "", *, is_application: bool = True) -> None:
        """Close the connection with CONNECTION_CLOSE. Further calls do nothing."""


@dataclass(slots=True)
class EndpointCounters:
    """Counters of an endpoint. They never decrease."""

    connections: int = 0
    handshakes: int = 0
    handshake_failures: int = 0
    handshake_timeouts: int = 0
    """Handshake failures because the peer sent nothing more."""
    retries_sent: int = 0
    retries_invalid: int = 0
    refused_connections: int = 0
    version_negotiations: int = 0
    resets_sent: int = 0
    resets_received: int = 0
    """Stateless resets that ended a connection (RFC 9000, section 10.3)."""
    dropped_packets: int = 0
    """Packets that matched no connection and got no answer."""
    protocol_errors: int = 0
    """Connections that ended because the peer violated the protocol or a limit."""
    throttled_packets: int = 0
    """Packets that were dropped because the queue of their connection was full."""
    buffers_exceeded: int = 0
    """Connections that were closed to free buffers, since they buffered most."""


class QuicEndpoint(Protocol):
    """A QUIC engine: all connections of one UDP socket."""

    counters: EndpointCounters

    def __len__(self) -> int:
        """The number of connections, with those in the closing or draining period."""
        ...

    @property
    def unfinished_handshakes(self) -> int:
        """Connections of clients whose handshake is not complete."""
        ...

    def connect(
        self,
        address: Address,
        identity: ServerIdentity,
        events: Callable[[QuicConnection], QuicEvents],
        now: float,
    ) -> QuicConnection:
        """Begin a connection to a server. Call `transmit` afterwards.

        `events` is called with the connection, and returns the receiver of its events. Raises
        `OSError` if the CA file is not readable.
        """
        ...

    def use_certificate(self, certificate: Certificate) -> None:
        """Use another certificate in new handshakes."""

    def receive(self, data: bytes, address: Address, now: float, arrival: int) -> None:
        """Process a UDP payload. Reports its events before it returns, or in `process_waiting`."""

    @property
    def waiting_packets(self) -> int:
        """Packets that are queued for `process_waiting`."""
        ...

    def process_waiting(self) -> None:
        """Process queued packets for at most some milliseconds. Call `transmit` afterwards."""

    def transmit(self, now: float) -> Sequence[tuple[Address, list[bytes]]]:
        """Build the packets to send now, grouped by address, in order."""
        ...

    def next_timer(self) -> float | None:
        """When to call `handle_timers`; None: never. It may be called early."""
        ...

    def handle_timers(self, now: float) -> None:
        """Handle the timers that are due. Call `transmit` afterwards."""

    def close(self) -> None:
        """Forget all connections without sending anything. No callback is called afterwards."""


Wake = Callable[[], None]
"""Called by an engine when it has something to send outside of `receive` and timers."""
