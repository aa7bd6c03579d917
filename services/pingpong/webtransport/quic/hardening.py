"""Limits the cost of what a peer sends.

aioquic accepts all that the specification allows, and some of that costs a thousand times more than
a normal packet (RFC 9000, section 21). This module bounds it, before and after the handshake:

- Out-of-order bytes are buffered as pieces (`reassembly`), also in the handshake.
- A stream that the peer skipped takes no memory before its first byte (RFC 9000, section 2.1).
- An acknowledgement of a packet that was never sent closes the connection (section 13.1). Packet
  numbers are skipped at random, to detect a peer that acknowledges optimistically (section 21.4).
- The frames of a packet have a cost limit, high enough for any normal packet.
- Repeated frames are merged: PADDING, PING, and consecutive bytes of a stream.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, ClassVar

from aioquic import tls
from aioquic.buffer import UINT_VAR_MAX, Buffer, BufferReadError  # type: ignore[attr-defined]
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import EPOCHS, QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import (
    NON_ACK_ELICITING_FRAME_TYPES,
    PROBING_FRAME_TYPES,
    QuicErrorCode,
    QuicFrameType,
)
from aioquic.quic.stream import (
    FinalSizeError,
    QuicStream,
    QuicStreamSender,
    StreamFinishedError,
)

from ..errors import ErrorCode
from .connection_ids import ConnectionIds
from .engine import PathStatistics
from .identity import IdentifiedConnection
from .reassembly import (
    MAX_CRYPTO_BYTES,
    MAX_CRYPTO_PIECES,
    Buffers,
    StreamReceiver,
    TooManyPiecesError,
)
from .recovery import Recovery

# Looked up once: an attribute of an enumeration takes as long as a call.
_INITIAL, _ONE_RTT = tls.Epoch.INITIAL, tls.Epoch.ONE_RTT
_CRYPTO, _ACK_ECN = int(QuicFrameType.CRYPTO), int(QuicFrameType.ACK_ECN)

MAX_FRAMES = 256
"""The cost limit of a packet's frames. A packet of 1200 bytes has room for 170 of the smallest
useful frames: resets of streams, or answers of a few bytes."""
_COSTS = {
    QuicFrameType.ACK: 4,
    QuicFrameType.ACK_ECN: 4,
    QuicFrameType.CRYPTO: 2,
    QuicFrameType.NEW_CONNECTION_ID: 8,
    QuicFrameType.PATH_CHALLENGE: 4,
    QuicFrameType.RETIRE_CONNECTION_ID: 8,
    QuicFrameType.STOP_SENDING: 2,
}
"""Frames that cost more than one; a normal packet has few of them. With WebTransport error codes a
packet can reset and stop 48 streams, which costs 144."""
_RANGES_A_FRAME = 8
"""Ranges of an ACK frame that cost as much as a frame."""
_MAX_TLS_MESSAGE = 64 << 10
"""Bytes of a server's TLS message: certificates are large."""
_SKIP_AFTER = 256, 1_024
"""The range of packets after which a packet number is skipped."""
_SKIPPED = 4
"""Skipped packet numbers that are remembered."""


class HardenedConnection(IdentifiedConnection):
    """aioquic's connection, with limits on what it accepts."""

    _loss: Recovery

    def __init__(self, configuration: QuicConfiguration, ids: ConnectionIds, **kwargs: Any) -> None:
        super().__init__(configuration, ids, **kwargs)
        self.buffers = Buffers()
        self._loss = Recovery(
            congestion_control_algorithm=configuration.congestion_control_algorithm,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=self._max_datagram_size,
            peer_completed_address_validation=not self._is_client,
            send_probe=self._send_probe,
            logger=self._logger,
        )
        # aioquic's own table holds a method of this object for each type of frame.
        vars(self)["_QuicConnection__frame_handlers"] = {}
        self._frames_left = 0
        self._ids_wanted = False
        self._unopened: set[int] = set()
        """The peer's streams that were skipped by one with a higher id."""
        self._skip_at = random.randint(*_SKIP_AFTER)
        self._skipped: deque[int] = deque(maxlen=_SKIPPED)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        # In the handshake nothing else limits the buffers.
        for stream in self._crypto_streams.values():
            stream.receiver = StreamReceiver(None, Buffers(), most=MAX_CRYPTO_PIECES)

    @property
    def path_statistics(self) -> PathStatistics | None:
        """Statistics of the path; None before a round trip was measured."""
        return self._loss.path_statistics

    # Packets.

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        """Process the frames of a packet. Returns whether it is ack-eliciting, and only
        probing."""
        if not plain:
            raise _violation(QuicFrameType.PADDING, "a packet without frames")
        buffer = Buffer(data=plain)
        frames = self._FRAMES
        epoch = context.epoch
        in_handshake = epoch is not _ONE_RTT
        self._frames_left = MAX_FRAMES
        is_ack_eliciting = False
        is_probing = True
        while not buffer.eof():
            frame_type = None
            try:
                frame_type = buffer.pull_uint_var()
                frame = frames.get(frame_type)
                if frame is None:
                    raise _malformed(frame_type, "a frame of unknown type")
                handler, epochs, cost, frame_is_ack_eliciting, frame_is_probing = frame
                if in_handshake and epoch not in epochs:
                    raise _violation(frame_type, "a frame of another type of packet")
                self._frames_left -= cost
                if self._frames_left < 0:
                    raise _excessive("more frames than a packet has room for")
                getattr(self, handler)(context, frame_type, buffer)
            except BufferReadError:
                raise _malformed(frame_type, "a frame that ends early") from None
            except StreamFinishedError:
                pass  # The stream has been discarded.
            except TooManyPiecesError:
                raise _too_many_pieces(frame_type) from None
            if frame_type == _CRYPTO:
                crypto_frame_required = False
            if frame_is_ack_eliciting:
                is_ack_eliciting = True
            if not frame_is_probing:
                is_probing = False
        if crypto_frame_required:
            # RFC 9000, section 17.2.2.
            raise _violation(QuicFrameType.PADDING, "a first packet without a CRYPTO frame")
        if self._ids_wanted:
            self._ids_wanted = False
            super()._replenish_connection_ids()
        return is_ack_eliciting, is_probing

    def _replenish_connection_ids(self) -> None:
        # Once per packet: the peer cannot retire ids that it has not seen.
        self._ids_wanted = True

    # Frames.

    def _handle_padding_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        """Skip a run of PADDING, or of PING: many count as one."""
        at = buf.tell()
        rest = buf.data_slice(at, buf.capacity)
        buf.seek(at + len(rest) - len(rest.lstrip(bytes((frame_type,)))))

    _handle_ping_frame = _handle_padding_frame

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        pull = buf.pull_uint_var
        high = pull()
        delay = pull()
        count = pull()
        low = high - pull()
        if high >= self._packet_number:
            raise _violation(frame_type, "an acknowledgement of what was not sent")
        ranges = [(low, high)]
        if count:
            self._frames_left -= count // _RANGES_A_FRAME
            for _ in range(count):
                high = low - pull() - 2
                low = high - pull()
                ranges.append((low, high))
        if low < 0:
            raise _malformed(frame_type, "an acknowledgement of a negative packet number")
        if frame_type == _ACK_ECN:
            for _ in range(3):
                pull()
        if self._skipped:
            self._check_skipped(frame_type, ranges)
        epoch = context.epoch
        if epoch is not _INITIAL:
            self._loss.peer_completed_address_validation = True
        self._loss.acknowledge(
            ranges,
            (delay << self._remote_ack_delay_exponent) / 1_000_000,
            context.time,
            self._spaces[epoch],
        )

    def _check_skipped(self, frame_type: int, ranges: list[tuple[int, int]]) -> None:
        oldest = self._skipped[0]
        for low, high in ranges:
            if high < oldest:
                return
            if any(low <= skipped <= high for skipped in self._skipped):
                raise _violation(frame_type, "an acknowledgement of what was not sent")

    def _skip_packet_number(self) -> None:
        self._skipped.append(self._packet_number)
        self._packet_number += 1
        self._skip_at = self._packet_number + random.randint(*_SKIP_AFTER)

    def _handle_crypto_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        at = buf.tell()
        end = buf.pull_uint_var() + buf.pull_uint_var()
        buf.seek(at)
        read = self._crypto_streams[context.epoch].receiver.starting_offset()
        most = _MAX_TLS_MESSAGE if self._is_client else MAX_CRYPTO_BYTES
        if end - read > MAX_CRYPTO_BYTES or (
            end > read and end - read + len(self.tls._receive_buffer) > most
        ):
            raise _too_many_pieces(frame_type)
        super()._handle_crypto_frame(context, frame_type, buf)

    def _handle_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        pull = buf.pull_uint_var
        stream_id = pull()
        start = pull() if frame_type & 4 else 0
        length = pull() if frame_type & 2 else buf.capacity - buf.tell()
        end = start + length
        if end > UINT_VAR_MAX:
            raise _malformed(frame_type, "a stream longer than can be")
        data = buf.pull_bytes(length)
        stream = self._streams.get(stream_id)
        if stream is None or stream_id & 2:
            self._assert_stream_can_receive(frame_type, stream_id)
            stream = self._get_or_create_stream(frame_type, stream_id)
        receiver = stream.receiver
        assert isinstance(receiver, StreamReceiver)
        limit = self._local_max_data
        more = end - receiver.highest_offset if end > receiver.highest_offset else 0
        if end > stream.max_stream_data_local or limit.used + more > limit.value:
            raise _error(QuicErrorCode.FLOW_CONTROL_ERROR, frame_type, "more data than allowed")
        try:
            ready = receiver.receive(start, data, frame_type & 1 != 0)
        except FinalSizeError as error:
            raise _error(QuicErrorCode.FINAL_SIZE_ERROR, frame_type, str(error)) from None
        limit.used += more
        if ready is None:
            return
        if self._events:
            # Merge with the last event of the stream: frames of one byte are then cheap.
            before = self._events[-1]
            if isinstance(before, events.StreamDataReceived) and before.stream_id == stream_id:
                before.data += ready
                before.end_stream = receiver.is_finished
                return
        self._events.append(events.StreamDataReceived(ready, receiver.is_finished, stream_id))

    # Streams.

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        stream = self._streams.get(stream_id)
        if stream is not None:
            return stream
        if bool(stream_id & 1) != self._is_client:
            if self._stream_is_discarded(stream_id):
                raise StreamFinishedError
            raise _error(
                QuicErrorCode.STREAM_STATE_ERROR, frame_type, "a stream that was not opened"
            )
        limit = self._local_max_streams_uni if stream_id & 2 else self._local_max_streams_bidi
        number = stream_id >> 2
        if number >= limit.value:
            raise _error(QuicErrorCode.STREAM_LIMIT_ERROR, frame_type, "more streams than allowed")
        if number >= limit.used:
            self._unopened.update(range(limit.used << 2 | stream_id & 3, stream_id, 4))
            limit.used = number + 1
        elif stream_id in self._unopened:
            self._unopened.discard(stream_id)
        else:
            raise StreamFinishedError
        is_unidirectional = bool(stream_id & 2)
        # Not by its __init__, which would make a receiver that is replaced at once.
        stream = QuicStream.__new__(QuicStream)
        stream.stream_id = stream_id
        stream.is_blocked = False
        if is_unidirectional:
            stream.max_stream_data_local = self._local_max_stream_data_uni
            stream.max_stream_data_remote = 0
        else:
            stream.max_stream_data_local = self._local_max_stream_data_bidi_remote
            stream.max_stream_data_remote = self._remote_max_stream_data_bidi_local
        stream.max_stream_data_local_sent = stream.max_stream_data_local
        stream.receiver = StreamReceiver(stream_id, self.buffers)
        stream.sender = QuicStreamSender(stream_id, writable=not is_unidirectional)
        self._streams[stream_id] = stream
        self._streams_queue.append(stream)
        return stream

    def _get_or_create_stream_for_send(self, stream_id: int) -> QuicStream:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = super()._get_or_create_stream_for_send(stream_id)
            stream.receiver = StreamReceiver(
                stream_id, self.buffers, readable=not stream.receiver.is_finished
            )
        return stream

    _FRAMES: ClassVar[dict[int, tuple[str, frozenset[tls.Epoch], int, bool, bool]]] = {
        frame_type: (
            f"_handle_{name}_frame",
            EPOCHS(epochs),
            _COSTS.get(frame_type, 1),
            frame_type not in NON_ACK_ELICITING_FRAME_TYPES,
            frame_type in PROBING_FRAME_TYPES,
        )
        for name, epochs, *frame_types in (
            ("padding", "IH01", 0x00),
            ("ping", "IH01", 0x01),
            ("ack", "IH1", 0x02, 0x03),
            ("reset_stream", "01", 0x04),
            ("stop_sending", "01", 0x05),
            ("crypto", "IH1", 0x06),
            ("new_token", "1", 0x07),
            ("stream", "01", *range(0x08, 0x10)),
            ("max_data", "01", 0x10),
            ("max_stream_data", "01", 0x11),
            ("max_streams_bidi", "01", 0x12),
            ("max_streams_uni", "01", 0x13),
            ("data_blocked", "01", 0x14),
            ("stream_data_blocked", "01", 0x15),
            ("streams_blocked", "01", 0x16, 0x17),
            ("new_connection_id", "01", 0x18),
            ("retire_connection_id", "01", 0x19),
            ("path_challenge", "01", 0x1A),
            ("path_response", "1", 0x1B),
            ("connection_close", "IH01", 0x1C),
            ("connection_close", "01", 0x1D),
            ("handshake_done", "1", 0x1E),
            ("datagram", "01", 0x30, 0x31),
        )
        for frame_type in frame_types
    }
    """Frame types (RFC 9000, table 3): the method, the allowed packets, the cost, and whether it
    is ack-eliciting, and probing."""


def _error(code: int, frame_type: int | None, reason: str) -> QuicConnectionError:
    # aioquic uses None for an application error code, and for a frame type that is unreadable.
    return QuicConnectionError(code, frame_type, reason)  # type: ignore[arg-type]


def _violation(frame_type: int | None, reason: str) -> QuicConnectionError:
    return _error(QuicErrorCode.PROTOCOL_VIOLATION, frame_type, reason)


def _malformed(frame_type: int | None, reason: str) -> QuicConnectionError:
    return _error(QuicErrorCode.FRAME_ENCODING_ERROR, frame_type, reason)


def _excessive(reason: str) -> QuicConnectionError:
    # QUIC has no such error code; HTTP/3 has (RFC 9114, section 8.1).
    return _error(ErrorCode.H3_EXCESSIVE_LOAD, None, reason)


def _too_many_pieces(frame_type: int | None) -> QuicConnectionError:
    if frame_type == QuicFrameType.CRYPTO:
        return _error(
            QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too much of a handshake waits"
        )
    return _excessive("too many gaps in streams")
