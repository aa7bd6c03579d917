"""The seam: what this package asks of a QUIC engine, and what it promises it.

It lies at the endpoint, not at the connection: a packet goes in with its sender and
arrival time; the engine finds the connection, reports what happened by plain calls to
the connection's `QuicEvents`, and packets come out, those to one address together. So
an engine that routes connection ids itself fits as well as one that does not. The ids that
it makes name their worker, as `connection_ids.worker_of` reads it.

Times are seconds of one monotonic clock, passed in as `now`; arrival times of packets
are nanoseconds of the same clock, as the kernel took them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .config import ServerIdentity

if TYPE_CHECKING:
    from cryptography import x509

    from ..certificates import Certificate

Address = Any
"""A socket address as the socket module gives it; opaque to the engine's users."""


class QuicEvents(Protocol):
    """What an engine reports of one connection, in the order in which it happened."""

    def handshake_completed(self) -> None:
        """The peer's transport parameters are known, and data can be sent.

        To a server this comes as soon as it has keys, so that its settings leave with its
        first flight; to a client when it has verified the server.
        """

    def stream_data_received(
        self, stream_id: int, data: bytes, end_stream: bool, arrival: int
    ) -> None:
        """The next bytes of a stream, in order, of a packet that came at `arrival`.

        `data` is empty only with `end_stream`.
        """

    def stream_reset_received(self, stream_id: int, code: int, final_size: int) -> None:
        """The peer ended its half early, having sent `final_size` bytes in all."""

    def stop_sending_received(self, stream_id: int, code: int) -> None:
        """The peer reads no more: the stream's owner is to reset it.

        Not reported of a half that is complete and has been sent, which is left to arrive
        (RFC 9000, section 3.5), nor of one that is reset already.
        """

    def stream_writable(self, stream_id: int) -> None:
        """`buffered` has fallen to what `notify_writable` was asked for."""

    def stream_credit_received(self) -> None:
        """The peer allows more streams than before."""

    def datagram_received(self, data: bytes, arrival: int) -> None:
        """The payload of a DATAGRAM frame (RFC 9221), of a packet that came at `arrival`."""

    def buffered_bytes(self) -> int:
        """Bytes of what was reported that are kept, without `QuicConnection.hold`."""
        ...

    def deadline_passed(self, now: float) -> None:
        """`QuicConnection.deadline` has come, and is None again."""

    def connection_terminated(
        self, code: int, reason: str, by_peer: bool, is_application: bool, timed_out: bool
    ) -> None:
        """The last call: the connection is gone. See `events.ConnectionClosed`."""


class QuicConnection(Protocol):
    """What is asked of one connection. Nothing leaves before the endpoint transmits."""

    is_client: bool
    max_datagram_size: int
    """Bytes that one DATAGRAM frame can carry on this connection; 0: the peer takes none."""
    reset_stream_at: bool
    """Whether both sides have offered RESET_STREAM_AT."""
    arrival: int
    """When the last packet came, in nanoseconds: the time of what a packet does not bring."""
    deadline: float | None
    """When to report `deadline_passed`; None: never. For the engine's user to set."""

    @property
    def address(self) -> Address:
        """The peer's address, as last seen."""
        ...

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The certificate that the server has shown; None before."""
        ...

    @property
    def duplicate_packets(self) -> int:
        """Packets that the network delivered more than once, 1-RTT packets only."""
        ...

    @property
    def idle_timeout(self) -> float:
        """Seconds of silence after which the connection is over, as both sides want it."""
        ...

    @property
    def close_is_authenticated(self) -> bool:
        """False where the peer's close came before the handshake had shown who the peer is.

        All who see a first packet can forge that (RFC 9001, section 7).
        """
        ...

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's stream limit allows one more."""
        ...

    def open_stream(self, header: bytes, unidirectional: bool) -> int:
        """Open a stream that begins with `header`, and return its id."""
        ...

    def send_stream(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Queue bytes on a stream. Nothing happens where our half is already over."""

    def send_datagram(self, data: bytes) -> bool:
        """Queue a datagram; false where the queue is full and it was dropped."""
        ...

    def reset_stream(self, stream_id: int, code: int, reliable_size: int = 0) -> int:
        """End our half early. Nothing happens where it is already over.

        Its first `reliable_size` bytes are delivered all the same, where both sides have
        RESET_STREAM_AT. Returns how many of the bytes queued will never be sent.
        """
        ...

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Ask the peer to end its half. Nothing happens where it is already over."""

    def buffered(self, stream_id: int) -> int:
        """Bytes of a stream that the peer has not acknowledged yet, sent or not."""
        ...

    def notify_writable(self, stream_id: int, below: int) -> None:
        """Report `stream_writable`, once, when `buffered` has fallen to `below` or less."""

    def hold(self, stream_id: int, size: int) -> None:
        """The last `size` bytes reported are kept by the reader: grant no credit for them."""

    def release(self, stream_id: int, size: int) -> None:
        """`size` held bytes were consumed: credit for as many can be granted again."""

    def is_receive_closed(self, stream_id: int) -> bool:
        """Whether the peer's half of a stream that it began has come and gone."""
        ...

    def ping(self) -> None:
        """Have the peer answer with an acknowledgement: keeps the connection from idling out."""

    def close(self, code: int, reason: str = "", *, is_application: bool = True) -> None:
        """Close the connection with CONNECTION_CLOSE. Further calls do nothing."""


@dataclass(slots=True)
class EndpointCounters:
    """What an endpoint did, since it was made. All of them only grow."""

    connections: int = 0
    handshakes: int = 0
    handshake_failures: int = 0
    handshake_timeouts: int = 0
    """Of the failures: those that the peer did not go on with."""
    retries_sent: int = 0
    retries_invalid: int = 0
    refused_connections: int = 0
    version_negotiations: int = 0
    resets_sent: int = 0
    resets_received: int = 0
    """Stateless resets (RFC 9000, section 10.3): by the latter, connections ended."""
    dropped_packets: int = 0
    """Packets of no connection that were answered with nothing."""
    protocol_errors: int = 0
    """Connections that ended since a packet of the peer's broke QUIC's rules, or cost too much."""
    throttled_packets: int = 0
    """Packets dropped because too many of their connection's waited already."""
    buffers_exceeded: int = 0
    """Connections closed because all together kept too much, and these the most."""


class QuicEndpoint(Protocol):
    """What is asked of an engine: all connections of one UDP socket."""

    counters: EndpointCounters

    @property
    def unfinished_handshakes(self) -> int:
        """Connections of clients that have not completed their handshake."""
        ...

    def connect(
        self,
        address: Address,
        identity: ServerIdentity,
        events: Callable[[QuicConnection], QuicEvents],
        now: float,
    ) -> QuicConnection:
        """Begin a connection to a server; `transmit` afterwards.

        `events` is called once, with the connection, before anything is reported of it.
        Raises `OSError` where the CA file is unreadable.
        """
        ...

    def use_certificate(self, certificate: Certificate) -> None:
        """Show another certificate in handshakes that begin from now on."""

    def receive(self, data: bytes, address: Address, now: float, arrival: int) -> None:
        """Take a UDP payload in; reports its events before it returns, or in `process_waiting`."""

    @property
    def waiting_packets(self) -> int:
        """Packets that `process_waiting` has to process."""
        ...

    def process_waiting(self) -> None:
        """Process packets that wait, for some milliseconds; `transmit` afterwards."""

    def transmit(self, now: float) -> Sequence[tuple[Address, list[bytes]]]:
        """What is to be sent now, grouped: the packets to one address in their order."""
        ...

    def next_timer(self) -> float | None:
        """When `handle_timers` wants to be called next, at the earliest."""
        ...

    def handle_timers(self, now: float) -> None:
        """Let connections whose time has come act; `transmit` afterwards."""

    def close(self) -> None:
        """Forget all connections and send nothing. No callback is called afterwards."""


Wake = Callable[[], None]
"""Called by an engine when it has something to transmit that no caller waits for."""
