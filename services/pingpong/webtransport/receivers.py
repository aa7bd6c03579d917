"""Who takes the bytes of a peer's stream, and of one that no session has (yet, or any more)."""

from __future__ import annotations

from typing import Protocol

from .control import ControlEvents, ControlStream, QpackDecoderStream, QpackEncoderStream
from .engine import QuicConnection
from .errors import ConnectionProtocolError, ErrorCode
from .h3 import StreamType


class Receiver(Protocol):
    """Whoever a stream belongs to."""

    def receive(self, data: bytes, end_stream: bool) -> None:
        """Take the next bytes."""

    def receive_reset(self, code: int, final_size: int) -> None:
        """The peer's half ended early."""

    def receive_stop(self, code: int) -> None:
        """The peer reads our half no more."""

    def writable(self) -> None:
        """Less is buffered than was asked about."""


class StreamOpener(Protocol):
    """What a stream's beginning needs of its connection."""

    quic: QuicConnection

    def begin_stream(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Look at all bytes so far."""

    def refuse_stream(self, stream_id: int, code: ErrorCode, *, ended: bool = False) -> None:
        """End both halves of a peer's stream."""


def begin_critical_stream(
    kind: int, events: ControlEvents, max_settings: int, *, is_client: bool
) -> Receiver | None:
    """Who takes a peer's unidirectional stream of HTTP/3's; None where its type is unknown.

    Raises `ConnectionProtocolError` for a push stream: a client's is of the wrong role,
    and a server's was never allowed (RFC 9114, sections 6.2.2 and 4.6).
    """
    if kind == StreamType.CONTROL:
        return ControlStream(events, max_settings, is_client=is_client)
    if kind == StreamType.QPACK_ENCODER:
        return QpackEncoderStream()
    if kind == StreamType.QPACK_DECODER:
        return QpackDecoderStream()
    if kind == StreamType.PUSH:
        code = ErrorCode.H3_ID_ERROR if is_client else ErrorCode.H3_STREAM_CREATION_ERROR
        raise ConnectionProtocolError(code, "a push stream")
    return None


class Preface:
    """A peer's stream of which too little has come to know what it is."""

    __slots__ = ("_buffer", "_connection", "_id", "_stop_code", "_streams")

    def __init__(
        self,
        connection: StreamOpener,
        streams: dict[int, Receiver],
        stream_id: int,
        data: bytes = b"",
    ) -> None:
        self._connection = connection
        self._streams = streams
        self._id = stream_id
        self._buffer = data
        self._stop_code: int | None = None

    def receive(self, data: bytes, end_stream: bool) -> None:
        """Take the next bytes; the connection decides when they suffice."""
        self._buffer += data
        self._connection.begin_stream(self._id, self._buffer, end_stream)
        receiver = self._streams.get(self._id)
        if self._stop_code is not None and receiver is not None:
            receiver.receive_stop(self._stop_code)

    def receive_reset(self, code: int, final_size: int) -> None:
        """Nobody will know whose it was (draft-16, section 4.4: lacking RESET_STREAM_AT)."""
        self._connection.refuse_stream(self._id, ErrorCode.WT_BUFFERED_STREAM_REJECTED, ended=True)

    def receive_stop(self, code: int) -> None:
        """End our half; whoever the stream turns out to belong to is told as well."""
        self._stop_code = code
        self._connection.quic.reset_stream(self._id, code)

    def writable(self) -> None:
        """Not asked for."""


class Discarded:
    """A peer's half that nobody wants; kept until it ends, so as not to begin again."""

    __slots__ = ("_id", "_streams")

    def __init__(self, streams: dict[int, Receiver], stream_id: int) -> None:
        self._streams = streams
        self._id = stream_id

    def receive(self, data: bytes, end_stream: bool) -> None:
        """Throw bytes away."""
        if end_stream:
            self._streams.pop(self._id, None)

    def receive_reset(self, code: int, final_size: int) -> None:
        """The end."""
        self._streams.pop(self._id, None)

    def receive_stop(self, code: int) -> None:
        """Our half is over already."""

    def writable(self) -> None:
        """Not asked for."""
