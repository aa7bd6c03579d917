"""The fast path of a packet through aioquic, once the handshake is over.

aioquic processes every packet as if it could be of any type, on any path and in any state. After
the handshake nearly all packets are 1-RTT packets on the one path, and nearly all answers are an
acknowledgement, datagrams, and the last bytes of some streams in one packet. `OneRttConnection`
does for these what aioquic does, without what cannot concern them, at half the cost. In all other
cases it calls aioquic, which then does all of it: what was done until then (limits granted, ended
streams forgotten) aioquic would have done first too.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.crypto import CryptoError  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from aioquic.quic.stream import QuicStream

from .. import varint
from .aioquic import HookedConnection
from .connection_ids import CONNECTION_ID_SIZE, FIXED_BIT, LONG_HEADER, SHORT_ID_AT

_ONE_RTT = tls.Epoch.ONE_RTT
_CONNECTED = QuicConnectionState.CONNECTED
_ACKED = QuicDeliveryState.ACKED
_PACKET_TYPE = QuicPacketType.ONE_RTT
_NUMBER_AT = SHORT_ID_AT + CONNECTION_ID_SIZE
_NUMBER_SIZE = 2
"""Bytes of the packet numbers that we send, as aioquic's."""
_TAG_SIZE = 16
_SPIN_BIT = 0x20
_RESERVED_BITS = 0x18
_FIRST_BYTE = FIXED_BIT | (_NUMBER_SIZE - 1)
_MAX_ACK_SIZE = 1 + 4 * 8
_MAX_STREAM_HEADER = 1 + 2 * 8 + 2
_MAX_DATAGRAM_HEADER = 1 + 2
_LENGTH_OF_2 = 0x4000
"""A variable-length integer of 2 bytes (RFC 9000, section 16)."""
_ACK = varint.encode(QuicFrameType.ACK)
_NO_FURTHER_RANGES = varint.encode(0)
_DATAGRAM = varint.encode(QuicFrameType.DATAGRAM_WITH_LENGTH)
_STREAM_WITH_LENGTH = int(QuicFrameType.STREAM_BASE) | 2
_OFFSET_BIT = 4


class OneRttConnection(HookedConnection):
    """aioquic's connection with a fast path for the usual packets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._space: QuicPacketSpace | None = None
        """The only packet space that is left; None until the handshake is over."""
        self._context: QuicReceiveContext | None = None
        """What frames are processed with, reused; None as `_space`."""
        self._ack_ranges: list[range] = []
        """The list within the `ack_queue` of `_space`: the received packets to acknowledge."""
        self._shortest_idle = 0.0

    def _forget_handshake(self) -> None:
        super()._forget_handshake()
        self._space = self._spaces[_ONE_RTT]
        self._ack_ranges = vars(self._space.ack_queue)["_RangeSet__ranges"]
        self._context = QuicReceiveContext(
            epoch=_ONE_RTT,
            host_cid=self.host_cid,
            network_path=self._network_paths[0],
            quic_logger_frames=None,
            time=0.0,
            version=None,
        )
        self._shortest_idle = self._configuration.idle_timeout
        if self._remote_max_idle_timeout is not None:
            self._shortest_idle = min(self._shortest_idle, self._remote_max_idle_timeout)

    def discard_state(self) -> None:
        """As the base class."""
        self._space = self._context = None
        self._ack_ranges = []
        super().discard_state()

    def _idle_timeout(self) -> float:
        if self._space is None:
            return super()._idle_timeout()
        probes = 3 * self._loss.probe_timeout
        return probes if probes > self._shortest_idle else self._shortest_idle

    def _is_quiet(self, path: QuicNetworkPath) -> bool:
        """Whether it is connected, on one path only."""
        return (
            self._state is _CONNECTED
            and not self._close_pending
            and len(self._network_paths) == 1
            and path.is_validated
        )

    # In.

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """As aioquic's method."""
        space, context = self._space, self._context
        path = self._network_paths[0] if self._network_paths else None
        if (
            space is None
            or context is None
            or path is None
            or data[0] & (LONG_HEADER | FIXED_BIT) != FIXED_BIT
            or data[SHORT_ID_AT:_NUMBER_AT] != self.host_cid
            or addr != path.addr
            or not self._is_quiet(path)
        ):
            super().receive_datagram(data, addr, now)
            return
        try:
            header, payload, number = self._keys.decrypt_packet(
                data, _NUMBER_AT, space.expected_packet_number
            )
        except CryptoError:
            return
        seen = space.received_packets
        if number in seen:
            return
        first = header[0]
        if first & _RESERVED_BITS:
            self.close(
                QuicErrorCode.PROTOCOL_VIOLATION,
                QuicFrameType.PADDING,
                "Reserved bits must be zero",
            )
            return
        if number >= space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > self._spin_highest_pn:
            self._spin_bit = bool(first & _SPIN_BIT) != self._is_client
            self._spin_highest_pn = number
        context.time = now
        context.host_cid = self.host_cid
        context.network_path = path
        try:
            is_ack_eliciting, _ = self._payload_received(context, payload)
        except QuicConnectionError as error:
            self._logger.warning(error)
            self.close(error.error_code, error.frame_type, error.reason_phrase)
        if self._state is not _CONNECTED or self._close_pending:
            return
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        seen.add(number)
        ranges = self._ack_ranges
        if not ranges:
            ranges.append(range(number, number + 1))
        elif ranges[-1].stop == number:
            ranges[-1] = range(ranges[-1].start, number + 1)
        else:
            space.ack_queue.add(number)
            if len(ranges) > MAX_ACK_RANGES:
                space.ack_queue.shift()
        if is_ack_eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay

    def _on_ack_delivery(
        self, delivery: QuicDeliveryState, space: QuicPacketSpace, highest_acked: int
    ) -> None:
        ranges = self._ack_ranges
        if len(ranges) == 1 and ranges[0].stop <= highest_acked + 1 and delivery is _ACKED:
            ranges.clear()
        else:
            super()._on_ack_delivery(delivery, space, highest_acked)

    # Out.

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """As aioquic's method."""
        space = self._space
        if space is None:
            return super().datagrams_to_send(now)
        path = self._network_paths[0]
        if not self._is_quiet(path) or self._has_control_frames(path):
            return super().datagrams_to_send(now)
        streams = self._sendable_streams()
        if streams is None or self._has_limits_to_send():
            return super().datagrams_to_send(now)
        self._granted_for = self.delivered
        has_ack = space.ack_at is not None and space.ack_at <= now
        datagrams = self._datagrams_pending
        if not (has_ack or streams or datagrams):
            self._pacing_at = None
            return []
        loss = self._loss
        cid = self._peer_cid.cid
        size = _NUMBER_SIZE + 1 + len(cid) + _TAG_SIZE
        if has_ack:
            if len(self._ack_ranges) != 1:
                return super().datagrams_to_send(now)
            size += _MAX_ACK_SIZE
        for data in datagrams:
            size += _MAX_DATAGRAM_HEADER + len(data)
        for _, start, stop in streams:
            size += _MAX_STREAM_HEADER + stop - start
        if (
            size > self._max_datagram_size
            or size > loss._cc.congestion_window - loss._cc.bytes_in_flight
            or not loss.may_send(now)
        ):
            return super().datagrams_to_send(now)
        # From here on the packet is sent.
        self._pacing_at = None
        number = self._packet_number
        is_ack_eliciting = bool(streams or datagrams)
        packet = QuicSentPacket(
            _ONE_RTT, is_ack_eliciting, is_ack_eliciting, False, number, _PACKET_TYPE, now
        )
        handlers = packet.delivery_handlers
        payload = b""
        if has_ack:
            payload = self._ack_frame(space, now)
            handlers.append((self._on_ack_delivery, (space, space.largest_received_packet)))
            space.ack_at = None
        if datagrams:
            for data in datagrams:
                payload += _DATAGRAM + varint.encode(len(data)) + data
            datagrams.clear()
        for stream, start, stop in streams:
            is_last = stop == stream.sender._buffer_fin
            payload += self._stream_frame(stream, start, stop, is_last=is_last)
            handlers.append((stream.sender.on_data_delivery, (start, stop, is_last)))
        sealed = self._keys.encrypt_short(
            _FIRST_BYTE | _SPIN_BIT if self._spin_bit else _FIRST_BYTE, cid, number, payload
        )
        self._packet_number = number + 1
        packet.sent_bytes = len(sealed)
        loss.on_packet_sent(packet=packet, space=space)
        path.bytes_sent += len(sealed)
        if is_ack_eliciting and not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
        return [(sealed, path.addr)]

    def _has_control_frames(self, path: QuicNetworkPath) -> bool:
        """Whether a frame is due that is neither ACK, DATAGRAM nor STREAM, nor a limit."""
        return bool(
            path.remote_challenges
            or self._handshake_done_pending
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or self._ping_pending
            or self._probe_pending
            or self._late_resets
            or self._has_unsent_ids()
            or not self._crypto_streams[_ONE_RTT].sender.buffer_is_empty
            or (self._is_client and self._remote_preferred_address is not None)
        )

    def _sendable_streams(self) -> list[tuple[QuicStream, int, int]] | None:
        """The streams that have bytes to send, each with the offsets of all of them.

        Returns None if a stream has to send something else, or is not allowed to send all.
        Forgets streams that have ended.
        """
        sendable: list[tuple[QuicStream, int, int]] = []
        ended: list[QuicStream] = []
        window = self.windows.stream
        credit = self._remote_max_data - self._remote_max_data_used
        for stream in self._streams_queue:
            sender, receiver = stream.sender, stream.receiver
            if not receiver.is_finished:
                granted = stream.max_stream_data_local
                if granted:
                    limit = receiver._buffer_start + window - granted
                    if self.held:
                        limit -= self.held.get(stream.stream_id, 0)
                    if 2 * limit >= window or stream.max_stream_data_local_sent != granted:
                        return None
            elif sender.is_finished:
                ended.append(stream)
                continue
            if receiver.stop_pending or sender.reset_pending:
                return None
            if sender.buffer_is_empty or stream.is_blocked:
                continue
            pending = sender._pending
            ranges = len(pending)
            if ranges == 1:
                start, stop = pending[0].start, pending[0].stop
                if sender._pending_eof and stop != sender._buffer_fin:
                    return None
            elif ranges:
                return None
            elif sender._pending_eof and sender._buffer_fin is not None:
                start = stop = sender._buffer_fin
            else:
                sender.buffer_is_empty = True
                continue
            if stop > sender.highest_offset:
                credit -= stop - sender.highest_offset
            if credit < 0 or stop > stream.max_stream_data_remote:
                return None
            sendable.append((stream, start, stop))
        for stream in ended:
            self._streams_queue.remove(stream)
            stream_id = stream.stream_id or 0
            del self._streams[stream_id]
            if bool(stream_id & 1) == self._is_client:
                # Let the peer open a new stream for each one that closes.
                self._stream_limit(stream_id).value += 1
        return sendable

    def _ack_frame(self, space: QuicPacketSpace, now: float) -> bytes:
        """An ACK frame of the one range."""
        acknowledged = self._ack_ranges[0]
        largest = acknowledged.stop - 1
        delay = int((now - (space.largest_received_time or now)) * 1_000_000)
        delay = delay >> self._local_ack_delay_exponent if delay > 0 else 0
        encode = varint.encode
        others = encode(largest - acknowledged.start)
        return _ACK + encode(largest) + encode(delay) + _NO_FURTHER_RANGES + others

    def _stream_frame(self, stream: QuicStream, start: int, stop: int, *, is_last: bool) -> bytes:
        """A STREAM frame with all that is to be sent."""
        sender = stream.sender
        first = sender._buffer_start
        data = bytes(sender._buffer[start - first : stop - first])
        kind = _STREAM_WITH_LENGTH | is_last
        length = (stop - start | _LENGTH_OF_2).to_bytes(2)
        if start:
            kind |= _OFFSET_BIT
            length = varint.encode(start) + length
        if data:
            sender._pending.shift()
        if stop > sender.highest_offset:
            self._remote_max_data_used += stop - sender.highest_offset
            sender.highest_offset = stop
        if is_last:
            sender._pending_eof = False
        sender.buffer_is_empty = True
        if len(self._streams_queue) > 1:
            # The others come first in the next packet.
            self._streams_queue.remove(stream)
            self._streams_queue.append(stream)
        return varint.encode(kind) + varint.encode(stream.stream_id or 0) + length + data

    # Timers.

    def get_timer(self) -> float | None:
        """As aioquic's method."""
        space, loss, at = self._space, self._loss, self._close_at
        if (
            space is None
            or at is None
            or not loss.peer_completed_address_validation
            or not self._is_quiet(self._network_paths[0])
        ):
            timer: float | None = super().get_timer()
            return timer
        lost_at: float | None = space.loss_time
        if lost_at is None and space.ack_eliciting_in_flight:
            lost_at = loss.probe_at()
        self._loss_at = lost_at
        for due in (space.ack_at, lost_at, self._pacing_at):
            if due is not None and due < at:
                at = due
        return at
