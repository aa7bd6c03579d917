"""Who takes the bytes of a peer's stream, and of one that no session has (yet, or any more)."""

from __future__ import annotations

from typing import Protocol

from .deadlines import SETTINGS
from .early import EarlyStream
from .errors import ConnectionProtocolError, ErrorCode, ProtocolError, StreamProtocolError
from .http3.control import ControlEvents, ControlStream, QpackDecoderStream, QpackEncoderStream
from .http3.frames import StreamType
from .quic.engine import QuicConnection


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


class CriticalStreams:
    """The peer's unidirectional streams of HTTP/3's, each of which it opens once."""

    __slots__ = ("_is_client", "_max_settings", "_opened")

    def __init__(self, max_settings: int, *, is_client: bool) -> None:
        self._is_client = is_client
        self._max_settings = max_settings
        self._opened = 0
        """Bit set of their types."""

    def begin(self, kind: int, events: ControlEvents) -> Receiver | None:
        """The receiver of a stream of a type; None where that is unknown.

        Raises `ConnectionProtocolError` for a second one, and for a push stream: a client's is
        of the wrong role, and a server's was never allowed (RFC 9114, sections 6.2 and 4.6).
        """
        receiver: Receiver
        if kind == StreamType.CONTROL:
            receiver = ControlStream(events, self._max_settings, is_client=self._is_client)
        elif kind == StreamType.QPACK_ENCODER:
            receiver = QpackEncoderStream()
        elif kind == StreamType.QPACK_DECODER:
            receiver = QpackDecoderStream()
        elif kind == StreamType.PUSH:
            code = ErrorCode.H3_ID_ERROR if self._is_client else ErrorCode.H3_STREAM_CREATION_ERROR
            raise ConnectionProtocolError(code, "a push stream")
        else:
            return None
        if self._opened & 1 << kind:
            raise ConnectionProtocolError(
                ErrorCode.H3_STREAM_CREATION_ERROR, f"a second {StreamType(kind).name} stream"
            )
        self._opened |= 1 << kind
        return receiver


def silence(awaited: int, receiver: Receiver | None) -> ProtocolError:
    """The error of a peer that has left something incomplete, on the narrowest scope.

    `receiver` is whose stream it is. A request has a code of its own (RFC 9114, section 8.1), and
    any stream of a client's that is bidirectional might have become one; a stream whose session
    does not come, or is not named, was buffered for too long (draft-16, section 4.5).
    """
    if awaited == SETTINGS:
        return ConnectionProtocolError(ErrorCode.H3_MISSING_SETTINGS, "no SETTINGS in time")
    if isinstance(receiver, EarlyStream):
        return StreamProtocolError(ErrorCode.WT_BUFFERED_STREAM_REJECTED, "no session in time")
    if not awaited & 3:
        return StreamProtocolError(ErrorCode.H3_REQUEST_INCOMPLETE, "no request in time")
    return StreamProtocolError(ErrorCode.WT_BUFFERED_STREAM_REJECTED, "no header in time")


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
