"""quinn-proto for Python: a QUIC endpoint and its connections, without I/O, threads or a clock.

Times are in nanoseconds of a monotonic clock. A connection is an integer, its handle. Functions do
nothing for a handle of a connection that is forgotten.
"""

from typing import Any, Final, final

__version__: str

# Kinds of events. An event is a tuple that begins with its kind.
READY: Final[int]
"""The peer's transport parameters are known, and data can be sent."""
CONNECTED: Final[int]
"""The handshake is complete."""
DATAGRAM: Final[int]
"""Payload."""
STREAM_DATA: Final[int]
"""Stream id, bytes, whether the stream ends."""
STREAM_RESET: Final[int]
"""Stream id, code, final size."""
STOP_SENDING: Final[int]
"""Stream id, code."""
WRITABLE: Final[int]
"""Stream id."""
STREAM_CREDIT: Final[int]
"""The peer raised a stream limit."""
LOST: Final[int]
"""(Code, reason, whether by the peer, by the application, by a timeout), whether it was connected."""

# What became of a packet.
DROPPED: Final[int]
RECEIVED: Final[int]
ACCEPTED: Final[int]
VERSION_NEGOTIATION: Final[int]
RETRY: Final[int]
INVALID: Final[int]
REFUSED: Final[int]
STATELESS_RESET: Final[int]
FAILED: Final[int]
WAITING: Final[int]
"""It is of a connection that is throttled, and comes in place of the events: for `process`."""

class QuicError(Exception):
    """Its arguments are the code of RFC 9000, section 20.1, and a reason."""

@final
class Authorities:
    """The authorities of PEM files. Certificates that cannot be read are left out."""

    def __new__(cls, pem: bytes) -> Authorities: ...
    def __len__(self) -> int: ...

@final
class Waiting:
    """A packet of a connection that is throttled."""

@final
class Endpoint:
    """All connections of one UDP socket."""

    def __new__(
        cls,
        now: int,
        *,
        idle_timeout: int,
        window: int,
        stream_window: int,
        streams_bidi: int,
        streams_uni: int,
        worker: int,
        workers: int,
        retry_key: bytes,
        reset_key: bytes,
        max_connections: int,
        max_handshakes: int,
    ) -> Endpoint: ...
    def __len__(self) -> int: ...
    def use_certificate(self, chain: list[bytes], key: bytes) -> None: ...
    def connect(
        self,
        address: tuple[Any, ...],
        server_name: str,
        now: int,
        *,
        authorities: Authorities | None = None,
        pin: bytes | None = None,
    ) -> int: ...
    def receive(
        self, data: bytes, address: tuple[Any, ...], now: int
    ) -> tuple[int, int, Any, bool]:
        """Outcome, handle, events or None, whether `events` has more."""

    def process(self, waiting: Waiting) -> tuple[int, int, Any, bool]: ...
    def throttle(self, handle: int, throttled: bool) -> None: ...
    def events(self, handle: int) -> tuple[list[tuple[Any, ...]], bool]:
        """Events, and whether there are more."""

    def transmit(self, now: int) -> tuple[list[tuple[tuple[Any, ...], list[bytes]]], bool]:
        """Packets by address; whether `take_drained` or `take_grown` have something."""

    def next_timer(self) -> int | None: ...
    def handle_timers(self, now: int) -> list[tuple[int, list[tuple[Any, ...]], bool]]: ...
    def take_drained(self) -> list[int]: ...
    def take_grown(self) -> list[int]: ...
    def abandon(self, handle: int) -> None: ...
    def close(self, handle: int, code: int, reason: str) -> None: ...
    def ping(self, handle: int) -> None: ...
    def send_datagram(self, handle: int, data: bytes) -> bool: ...
    def max_datagram_size(self, handle: int) -> int: ...
    def can_open_stream(self, handle: int, unidirectional: bool) -> bool: ...
    def open_stream(self, handle: int, header: bytes, unidirectional: bool) -> int: ...
    def send_stream(self, handle: int, stream_id: int, data: bytes, end_stream: bool) -> None: ...
    def reset_stream(self, handle: int, stream_id: int, code: int) -> int: ...
    def stop_sending(self, handle: int, stream_id: int, code: int) -> bool: ...
    def buffered(self, handle: int, stream_id: int) -> int: ...
    def notify_writable(self, handle: int, stream_id: int, below: int) -> None: ...
    def hold(self, handle: int, stream_id: int, size: int) -> None: ...
    def release(self, handle: int, stream_id: int, size: int) -> bool: ...
    def is_receive_closed(self, handle: int, stream_id: int) -> bool: ...
    def count_buffers(self, handle: int) -> int: ...
    def address(self, handle: int) -> tuple[Any, ...] | None: ...
    def idle_timeout(self, handle: int) -> int: ...
    def peer_certificate(self, handle: int) -> bytes | None: ...
    def duplicate_packets(self, handle: int) -> int: ...
    def statistics(self, handle: int) -> tuple[int, int, int] | None:
        """Smoothed RTT in nanoseconds, congestion window in bytes, lost packets."""
