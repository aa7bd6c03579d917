"""The CONNECT stream of a session: frames and capsules, in and out."""

from __future__ import annotations

from collections.abc import Iterator

from .capsules import CapsuleDecoder, CapsuleType
from .errors import ConnectionProtocolError, ErrorCode, SessionProtocolError
from .events import Headers
from .http3.frames import FrameReader, FrameType, encode_frame, encode_headers
from .quic.engine import QuicConnection


class ConnectStream:
    """Both directions of the CONNECT stream, each of which ends once."""

    __slots__ = (
        *("_bare", "_capsules", "_closed", "_frames", "_id", "_quic"),
        *("receive_open", "send_open"),
    )

    def __init__(self, quic: QuicConnection, stream_id: int, max_field_section: int) -> None:
        self._quic = quic
        self._id = stream_id
        self._frames: FrameReader | None = FrameReader.for_request(
            max_field_section, is_client=quic.is_client
        )
        self._capsules: CapsuleDecoder | None = None
        self._bare = False
        self._closed = False
        """Whether WT_CLOSE_SESSION arrived. Any data after it is an error."""
        self.send_open = True
        self.receive_open = True

    # In.

    def receive(self, data: bytes, end_stream: bool) -> Iterator[tuple[int, bytes]]:
        """Parse bytes into frames, as `FrameReader.feed` does; none after `abort`.

        Iterate to the end. Raises `ProtocolError` as `FrameReader.feed` does, if the stream ends
        within a frame or a capsule, and for data after WT_CLOSE_SESSION (section 6).
        """
        if end_stream:
            self.receive_open = False
        if self._frames is None:
            return
        if data:
            self._check_not_closed()
        if not self._bare:
            for frame in self._frames.feed(data):
                self._check_not_closed()
                yield frame
        elif data:
            yield FrameType.DATA, data
        if self._has_begun_frame or self._capsules is not None:
            self._check_not_closed()
            if end_stream and self._has_begun_frame:
                raise ConnectionProtocolError(ErrorCode.H3_FRAME_ERROR, "FIN within a frame")
            if end_stream:
                raise SessionProtocolError(ErrorCode.H3_MESSAGE_ERROR, "FIN within a capsule")

    def use_bare_capsules(self) -> None:
        """Read and write capsules without DATA frames from now on."""
        self._bare = True

    def capsules(self, payload: bytes) -> Iterator[tuple[CapsuleType, bytes]]:
        """Parse the payload of DATA frames into capsules. Raises as `CapsuleDecoder.feed` does."""
        decoder = self._capsules
        if decoder is None:
            decoder = CapsuleDecoder()
        capsules = decoder.feed(payload)
        # Capsules are mostly complete: an idle session keeps no decoder.
        self._capsules = decoder if decoder.incomplete else None
        for kind, value in capsules:
            self._check_not_closed()
            self._closed = kind is CapsuleType.WT_CLOSE_SESSION
            yield kind, value

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are buffered of incomplete frames and capsules."""
        return (self._frames.buffered_bytes if self._frames is not None else 0) + (
            self._capsules.buffered_bytes if self._capsules is not None else 0
        )

    @property
    def _has_begun_frame(self) -> bool:
        return self._frames is not None and self._frames.incomplete

    def _check_not_closed(self) -> None:
        if self._closed:
            raise SessionProtocolError(ErrorCode.H3_MESSAGE_ERROR, "data after WT_CLOSE_SESSION")

    # Out.

    def send_headers(self, headers: Headers, *, end_stream: bool = False) -> None:
        """Send a field section."""
        self._send(encode_headers(headers), end_stream)

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded frame."""
        self._send(frame, False)

    def send_capsule(self, capsule: bytes, *, end_stream: bool = False) -> None:
        """Send a capsule."""
        self._send(capsule if self._bare else encode_frame(FrameType.DATA, capsule), end_stream)

    def end(self) -> None:
        """Send FIN. Does nothing if our side has ended."""
        if self.send_open:
            self._send(b"", True)

    def reset(self, code: int) -> None:
        """Reset our side, even if FIN is in flight."""
        self.send_open = False
        self._quic.reset_stream(self._id, code)

    def stop(self, code: int) -> None:
        """Send STOP_SENDING. Does nothing if the peer's side has ended."""
        if self.receive_open:
            self._quic.stop_sending(self._id, code)

    def abort(self, code: int) -> None:
        """Reset our side, stop the peer's, and ignore all further data."""
        self._frames = None
        self._capsules = None
        self.reset(code)
        self.stop(code)

    def _send(self, data: bytes, end_stream: bool) -> None:
        if self.send_open:
            self._quic.send_stream(self._id, data, end_stream)
            self.send_open = not end_stream
