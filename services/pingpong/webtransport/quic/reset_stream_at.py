"""Adds RESET_STREAM_AT to aioquic (draft-ietf-quic-reliable-stream-reset).

A stream reset should still deliver the stream's header, which names its session.
"""

from __future__ import annotations

from typing import Any

from aioquic.buffer import UINT_VAR_MAX_SIZE, Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import EPOCHS, QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.stream import QuicStream

from .. import varint
from .connection_ids import ConnectionIds
from .hardening import HardenedConnection
from .reassembly import StreamReceiver

RESET_STREAM_AT = 0x24
RESET_STREAM_AT_PARAMETERS = (0x1D, 0x17F7586D2CB571)
"""The transport parameter, and its code point in earlier drafts."""
_PARAMETERS = b"".join(varint.encode(one) + b"\0" for one in RESET_STREAM_AT_PARAMETERS)
_RESET_STREAM_AT_CAPACITY = 1 + 4 * UINT_VAR_MAX_SIZE


def _reset_error(code: QuicErrorCode, reason: str) -> QuicConnectionError:
    return QuicConnectionError(code, RESET_STREAM_AT, f"RESET_STREAM_AT: {reason}")


class ResettingConnection(HardenedConnection):
    """aioquic's connection with RESET_STREAM_AT."""

    def __init__(self, configuration: QuicConfiguration, ids: ConnectionIds, **kwargs: Any) -> None:
        super().__init__(configuration, ids, **kwargs)
        self.peer_resets_at = False
        self.peer_broke_rules = False
        """Whether the connection ended because the peer violated the protocol."""
        self.delivered = 0
        """Bytes of all streams that were reported, or discarded."""
        self._sent_resets: dict[int | None, tuple[int, int]] = {}
        """Streams that we reset with RESET_STREAM_AT, until it is acknowledged: code and reliable
        size."""
        self._late_resets: list[QuicStream] = []
        """Of these, streams whose reliable bytes have to be sent before the reset."""
        self._pending_resets: dict[int, tuple[int, int, int]] = {}
        """RESET_STREAM_AT received before its reliable bytes: code, final size, reliable size."""

    _FRAMES = HardenedConnection._FRAMES | {
        RESET_STREAM_AT: ("_handle_reset_stream_at_frame", EPOCHS("01"), 1, True, False)
    }

    def note_delivered(self, size: int) -> None:
        """Bytes of a stream were reported."""
        self.delivered += size
        self.buffers.grown += size

    # Transport parameters.

    def _serialize_transport_parameters(self) -> bytes:
        parameters: bytes = super()._serialize_transport_parameters()
        return parameters + _PARAMETERS

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        buffer = Buffer(data=data)
        while not buffer.eof():
            identifier = buffer.pull_uint_var()
            value = buffer.pull_bytes(buffer.pull_uint_var())
            if identifier in RESET_STREAM_AT_PARAMETERS:
                if value:
                    raise _reset_error(
                        QuicErrorCode.TRANSPORT_PARAMETER_ERROR, "the parameter is not empty"
                    )
                self.peer_resets_at = True

    # RESET_STREAM_AT in.

    def _handle_reset_stream_at_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        stream_id = buf.pull_uint_var()
        code = buf.pull_uint_var()
        final_size = buf.pull_uint_var()
        reliable_size = buf.pull_uint_var()
        if reliable_size > final_size:
            raise _reset_error(QuicErrorCode.FRAME_ENCODING_ERROR, "reliable size above final")
        self._assert_stream_can_receive(frame_type, stream_id)
        stream = self._get_or_create_stream(frame_type, stream_id)
        if final_size > stream.max_stream_data_local:
            raise _reset_error(QuicErrorCode.FLOW_CONTROL_ERROR, "over stream data limit")
        earlier = self._pending_resets.get(stream_id)
        if earlier is not None:
            if earlier[0] != code:
                raise _reset_error(QuicErrorCode.STREAM_STATE_ERROR, "another error code")
            if earlier[1] != final_size:
                raise _reset_error(QuicErrorCode.FINAL_SIZE_ERROR, "another final size")
            # The reliable size can only be lowered; a higher one was reordered.
            reliable_size = min(reliable_size, earlier[2])
        if stream.receiver.starting_offset() >= reliable_size:
            self._reset_received(context, stream_id, code, final_size)
        elif not stream.receiver.is_finished:
            self._pending_resets[stream_id] = (code, final_size, reliable_size)

    def _reset_received(
        self, context: QuicReceiveContext, stream_id: int, code: int, final_size: int
    ) -> None:
        buffer = Buffer(data=b"".join(map(varint.encode, (stream_id, code, final_size))))
        self._handle_reset_stream_frame(context, QuicFrameType.RESET_STREAM, buffer)

    def _handle_reset_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        known = len(self._events)
        super()._handle_reset_stream_frame(context, frame_type, buf)
        if len(self._events) > known:
            # The bytes between the last one reported and the final size are discarded.
            receiver = self._streams[self._events[-1].stream_id].receiver  # type: ignore[attr-defined]
            self.delivered += receiver.highest_offset - receiver.starting_offset()
            assert isinstance(receiver, StreamReceiver)
            receiver.discard()

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        try:
            result: tuple[bool, bool] = super()._payload_received(
                context, plain, crypto_frame_required
            )
            if self._sent_resets:
                self._forget_needless_resets()
            if self._pending_resets:
                for stream_id, (code, final_size, reliable_size) in list(
                    self._pending_resets.items()
                ):
                    stream = self._streams.get(stream_id)
                    if stream is None or stream.receiver.is_finished:
                        del self._pending_resets[stream_id]
                    elif stream.receiver.starting_offset() >= reliable_size:
                        del self._pending_resets[stream_id]
                        self._reset_received(context, stream_id, code, final_size)
            return result
        except QuicConnectionError as error:
            # A TLS alert is counted as a failed handshake.
            is_alert = error.error_code >> 8 == QuicErrorCode.CRYPTO_ERROR >> 8
            self.peer_broke_rules = error.frame_type is None or not is_alert
            raise

    # RESET_STREAM_AT out.

    def _reset_at(self, stream: QuicStream, code: int, reliable_size: int) -> None:
        """Reset the sending part after `reliable_size` bytes."""
        self._sent_resets[stream.stream_id] = (code, reliable_size)
        self._send_no_more_than(stream, reliable_size)
        if stream.sender.highest_offset >= reliable_size:
            stream.sender.reset_pending = True
        else:
            self._late_resets.append(stream)

    def _send_no_more_than(self, stream: QuicStream, size: int) -> None:
        sender = stream.sender
        if sender._buffer_stop > size:
            sender._pending.subtract(size, sender._buffer_stop)
        sender._pending_eof = False
        sender.buffer_is_empty = not len(sender._pending)

    def _is_reset(self, stream: QuicStream) -> bool:
        """Whether the sending part was reset, by RESET_STREAM or RESET_STREAM_AT."""
        return stream.sender._reset_error_code is not None or stream.stream_id in self._sent_resets

    def _write_reset_stream_frame(self, builder: QuicPacketBuilder, stream: QuicStream) -> None:
        reset = self._sent_resets.get(stream.stream_id)
        if reset is None:
            super()._write_reset_stream_frame(builder, stream)
            return
        code, reliable_size = reset
        buffer = builder.start_frame(
            RESET_STREAM_AT,
            capacity=_RESET_STREAM_AT_CAPACITY,
            handler=self._on_reset_at_delivery,
            handler_args=(stream,),
        )
        # Bytes after the reliable size that were lost are not retransmitted.
        self._send_no_more_than(stream, reliable_size)
        stream.sender.reset_pending = False
        buffer.push_uint_var(stream.stream_id or 0)
        buffer.push_uint_var(code)
        buffer.push_uint_var(stream.sender.highest_offset)
        buffer.push_uint_var(reliable_size)

    def _forget_needless_resets(self) -> None:
        """Drop resets of streams that were acknowledged completely."""
        for stream_id in list(self._sent_resets):
            stream = self._streams.get(stream_id or 0)
            if stream is None or stream.sender.is_finished:
                del self._sent_resets[stream_id]
                if stream is not None:
                    stream.sender.reset_pending = False

    def _on_reset_at_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        reset = self._sent_resets.get(stream.stream_id)
        if reset is None:
            return
        code, reliable_size = reset
        sender = stream.sender
        if delivery is QuicDeliveryState.ACKED and sender._buffer_start >= reliable_size:
            del self._sent_resets[stream.stream_id]
            # From here on as after RESET_STREAM: nothing is retransmitted.
            sender._reset_error_code = code
            sender._buffer = bytearray()
            sender.buffer_is_empty = True
            sender.is_finished = True
        else:
            # Lost, or acknowledged before the reliable bytes: send it again.
            sender.reset_pending = True

    def _begin_late_resets(self) -> None:
        late = [stream for stream in self._late_resets if stream.stream_id in self._sent_resets]
        self._late_resets = []
        for stream in late:
            if stream.sender.highest_offset >= self._sent_resets[stream.stream_id][1]:
                stream.sender.reset_pending = True
            else:
                self._late_resets.append(stream)
