"""The stream that a session lives on: frames and capsules, in and out."""

from __future__ import annotations

from collections.abc import Iterator

from .capsules import CapsuleDecoder, CapsuleType
from .errors import ConnectionProtocolError, ErrorCode, SessionProtocolError
from .events import Headers
from .http3.frames import FrameReader, FrameType, encode_frame, encode_headers
from .quic.engine import QuicConnection


class ConnectStream:
    """The CONNECT stream's two halves, each of which ends once."""

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
        """Whether WT_CLOSE_SESSION has come, and nothing may come after it."""
        self.send_open = True
        self.receive_open = True

    # In.

    def receive(self, data: bytes, end_stream: bool) -> Iterator[tuple[int, bytes]]:
        """Take bytes: frames as `FrameReader.feed` gives them; none after an abort.

        Iterate to the end. Raises `ProtocolError` as `FrameReader.feed` does, where the stream
        ends within a frame or a capsule, and for anything behind WT_CLOSE_SESSION (section 6).
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
        """From here on capsules come, and go, without DATA frames around them."""
        self._bare = True

    def capsules(self, payload: bytes) -> Iterator[tuple[CapsuleType, bytes]]:
        """Capsules of DATA frames, as `CapsuleDecoder.feed` gives them, and raises."""
        decoder = self._capsules
        if decoder is None:
            decoder = CapsuleDecoder()
        capsules = decoder.feed(payload)
        # Most of the time there is nothing to remember, so that nothing is kept.
        self._capsules = decoder if decoder.incomplete else None
        for kind, value in capsules:
            self._check_not_closed()
            self._closed = kind is CapsuleType.WT_CLOSE_SESSION
            yield kind, value

    @property
    def buffered_bytes(self) -> int:
        """Bytes that are kept of frames and capsules that have not ended."""
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

    def send_capsule(self, capsule: bytes, *, end_stream: bool = False) -> None:
        """Send a capsule."""
        self._send(capsule if self._bare else encode_frame(FrameType.DATA, capsule), end_stream)

    def end(self) -> None:
        """End our half by FIN. Nothing if it is over."""
        if self.send_open:
            self._send(b"", True)

    def reset(self, code: int) -> None:
        """End our half early, even behind a FIN that is still on its way."""
        self.send_open = False
        self._quic.reset_stream(self._id, code)

    def stop(self, code: int) -> None:
        """Ask the peer to end its half. Nothing if it is over."""
        if self.receive_open:
            self._quic.stop_sending(self._id, code)

    def abort(self, code: int) -> None:
        """End both halves; what still arrives means nothing any more."""
        self._frames = None
        self._capsules = None
        self.reset(code)
        self.stop(code)

    def _send(self, data: bytes, end_stream: bool) -> None:
        if self.send_open:
            self._quic.send_stream(self._id, data, end_stream)
            self.send_open = not end_stream
