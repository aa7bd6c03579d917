"""The critical streams of HTTP/3: control, QPACK encoder and decoder (RFC 9114, section 6.2.1).

They stay open as long as the connection; the end of one is a connection error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import ConnectionProtocolError, ErrorCode
from ..quic.engine import QuicConnection
from ..varint import encode as encode_varint
from .frames import (
    FrameReader,
    FrameType,
    StreamType,
    decode_integer,
    decode_settings,
    encode_frame,
)

_CONTROL = encode_varint(StreamType.CONTROL)
_GOAWAY = int(FrameType.GOAWAY)
_CONTINUATION_BYTES = 9
"""The most bytes after the prefix of a 62-bit integer, with seven bits each."""


class CriticalStream:
    """A unidirectional stream that must not end."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def receive(self, data: bytes, end_stream: bool, arrival: int) -> None:
        """Process the next bytes. Raises `ConnectionProtocolError` at the end of the stream."""
        if data:
            self.receive_data(data)
        if end_stream:
            self._ended()

    def receive_data(self, data: bytes) -> None:
        """Process bytes that are not empty. Subclasses override it."""

    def receive_reset(self, code: int, final_size: int) -> None:
        """Raises `ConnectionProtocolError` with H3_CLOSED_CRITICAL_STREAM."""
        self._ended()

    def receive_stop(self, code: int) -> None:
        """Raises `ConnectionProtocolError` with H3_CLOSED_CRITICAL_STREAM."""
        self._ended()

    def _ended(self) -> None:
        raise ConnectionProtocolError(
            ErrorCode.H3_CLOSED_CRITICAL_STREAM, f"the {self._name} stream was closed"
        )


class LocalControlStream(CriticalStream):
    """Our control stream."""

    __slots__ = ("_id", "_quic", "goaway_sent")

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__("control")
        self._quic = quic
        self._id = -1
        self.goaway_sent = False

    def open(self, settings: bytes) -> int:
        """Open the stream and send a SETTINGS frame. Returns the stream's id."""
        self._id = self._quic.open_stream(_CONTROL + settings, True)
        return self._id

    def send_goaway(self, identifier: int) -> None:
        """Send GOAWAY once; does nothing before the stream is open."""
        if self._id >= 0 and not self.goaway_sent:
            self.goaway_sent = True
            frame = encode_frame(FrameType.GOAWAY, encode_varint(identifier))
            self._quic.send_stream(self._id, frame)


class ControlStream(CriticalStream):
    """The peer's control stream.

    `settings_received` is called first, and once. `goaway_received` is called with the id from
    which on the peer accepts no requests (no pushes, if the peer is a client); later ids are never
    higher (RFC 9114, section 5.2).
    """

    __slots__ = (
        *("_frames", "_goaway_id", "_goaway_received", "_has_settings", "_is_client"),
        *("_last_push_id", "_settings_received"),
    )

    def __init__(
        self,
        settings_received: Callable[[Mapping[int, int]], None],
        goaway_received: Callable[[int], None],
        max_settings: int,
        *,
        is_client: bool,
    ) -> None:
        super().__init__("control")
        self._settings_received = settings_received
        self._goaway_received = goaway_received
        self._frames = FrameReader.for_control(max_settings)
        self._goaway_id: int | None = None
        self._has_settings = False
        self._is_client = is_client
        self._last_push_id = -1

    def receive_data(self, data: bytes) -> None:
        """Process frames. Raises `ConnectionProtocolError` as RFC 9114, section 7.2, requires."""
        first = self._frames.first_type(data) if not self._has_settings else None
        if first is not None and first != FrameType.SETTINGS:
            raise ConnectionProtocolError(
                ErrorCode.H3_MISSING_SETTINGS, f"frame 0x{first:x} before SETTINGS"
            )
        for kind, payload in self._frames.feed(data):
            if kind == _GOAWAY:
                self._receive_goaway(decode_integer(payload, "GOAWAY"))
            elif kind == FrameType.SETTINGS:
                self._receive_settings(payload)
            elif kind == FrameType.MAX_PUSH_ID:
                self._receive_max_push_id(payload)
            elif kind == FrameType.CANCEL_PUSH:
                decode_integer(payload, "CANCEL_PUSH")
                # No push was ever promised or allowed, so any id is above the limit.
                raise ConnectionProtocolError(ErrorCode.H3_ID_ERROR, "CANCEL_PUSH of no push")

    def _receive_settings(self, payload: bytes) -> None:
        if self._has_settings:
            raise ConnectionProtocolError(ErrorCode.H3_FRAME_UNEXPECTED, "a second SETTINGS")
        self._has_settings = True
        self._settings_received(decode_settings(payload))

    def _receive_goaway(self, identifier: int) -> None:
        last = self._goaway_id
        if (self._is_client and identifier & 3) or (last is not None and identifier > last):
            raise ConnectionProtocolError(ErrorCode.H3_ID_ERROR, f"GOAWAY with {identifier}")
        if identifier != last:  # a packet may repeat it some hundred times
            self._goaway_id = identifier
            self._goaway_received(identifier)

    def _receive_max_push_id(self, payload: bytes) -> None:
        if self._is_client:
            raise ConnectionProtocolError(
                ErrorCode.H3_FRAME_UNEXPECTED, "MAX_PUSH_ID from a server"
            )
        identifier = decode_integer(payload, "MAX_PUSH_ID")
        if identifier < self._last_push_id:
            raise ConnectionProtocolError(ErrorCode.H3_ID_ERROR, "MAX_PUSH_ID went down")
        self._last_push_id = identifier


class QpackEncoderStream(CriticalStream):
    """The peer's QPACK encoder stream. We allow no dynamic table.

    So the only valid instruction is Set Dynamic Table Capacity to zero, one byte (RFC 9204,
    section 4.3.1).
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("QPACK encoder")

    def receive_data(self, data: bytes) -> None:
        """Raises `ConnectionProtocolError` with QPACK_ENCODER_STREAM_ERROR."""
        if data.strip(b"\x20"):
            raise ConnectionProtocolError(
                ErrorCode.QPACK_ENCODER_STREAM_ERROR, "an entry for a table of capacity 0"
            )


class QpackDecoderStream(CriticalStream):
    """The peer's QPACK decoder stream. Only Stream Cancellation is valid: there are no entries.

    An instruction is a prefixed integer (RFC 9204, section 4.4). Stream Cancellation begins with
    the bits 01 and six bits of the integer; the highest bit of each further byte says whether
    another one follows.
    """

    __slots__ = ("_continuation",)

    def __init__(self) -> None:
        super().__init__("QPACK decoder")
        self._continuation = 0
        """Bytes that the current integer may still have; 0 between instructions."""

    def receive_data(self, data: bytes) -> None:
        """Raises `ConnectionProtocolError` with QPACK_DECODER_STREAM_ERROR."""
        for byte in data:
            if self._continuation:
                self._continuation = self._continuation - 1 if byte >= 0x80 else 0
                if byte >= 0x80 and not self._continuation:
                    raise ConnectionProtocolError(
                        ErrorCode.QPACK_DECODER_STREAM_ERROR, "an integer that is too long"
                    )
            elif byte & 0xC0 == 0x40:
                self._continuation = _CONTINUATION_BYTES if byte & 0x3F == 0x3F else 0
            else:
                raise ConnectionProtocolError(
                    ErrorCode.QPACK_DECODER_STREAM_ERROR,
                    "an acknowledgement of an entry that was never sent",
                )


class CriticalStreams:
    """The peer's critical streams. It may open each type once."""

    __slots__ = ("_is_client", "_max_settings", "_opened")

    def __init__(self, max_settings: int, *, is_client: bool) -> None:
        self._is_client = is_client
        self._max_settings = max_settings
        self._opened = 0
        """Bit set of their types."""

    def begin(
        self,
        kind: int,
        settings_received: Callable[[Mapping[int, int]], None],
        goaway_received: Callable[[int], None],
    ) -> CriticalStream | None:
        """Create the receiver of a stream of type `kind`; None if the type is unknown.

        Raises `ConnectionProtocolError` for a second stream of a type, and for a push stream: a
        client must not open one, and we never allowed a server to (RFC 9114, sections 6.2 and
        4.6).
        """
        receiver: CriticalStream
        if kind == StreamType.CONTROL:
            receiver = ControlStream(
                settings_received,
                goaway_received,
                self._max_settings,
                is_client=self._is_client,
            )
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
