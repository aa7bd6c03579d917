"""Adapts aioquic's connection to `engine`: five classes, each the base of the next.

    QuicConnection         aioquic's own
    IdentifiedConnection   `identity`: connection ids, keys, and how a connection ends
    HardenedConnection     `hardening`: limits the cost of what a peer sends
    ResettingConnection    `reset_stream_at`: RESET_STREAM_AT, which aioquic does not know
    HookedConnection       here: flow control, acknowledgements, methods for `connection`
    OneRttConnection       `one_rtt`: a fast path for the packets after the handshake

Only these classes, and the replacements `keys`, `reassembly` and `recovery`, use aioquic's private
names. Tests list each name, and fail when one changes. This module changes aioquic's behaviour as
follows:

- Flow control credit is granted for data that was read, not for data that arrived. So an
  application that does not read makes its peer wait.
- STOP_SENDING does not reset the stream; its owner does. A stream that was sent completely is not
  reset, so that the reason of a close still arrives (RFC 9000, section 3.5).
- An acknowledgement that is due soon is sent with an answer. Whether there is anything to send is
  checked without building a packet.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from .config import Windows
from .connection_ids import ConnectionIds
from .reset_stream_at import ResettingConnection

_ONE_RTT = tls.Epoch.ONE_RTT
_PACKET_OVERHEAD = 1 + 2 + 16
"""First byte, packet number and tag of a 1-RTT packet, without the connection id."""
_DATAGRAM_OVERHEAD = 1 + 2
"""Type and length of a DATAGRAM frame."""
_MAX_QUEUED_DATAGRAMS = 256


@dataclass
class StreamCreditReceived(events.QuicEvent):
    """The peer raised a stream limit. aioquic has no such event."""


class HookedConnection(ResettingConnection):
    """aioquic's connection with the changes that the module's docstring lists.

    The rest of the package uses only its public methods.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        windows: Windows,
        ids: ConnectionIds,
        **kwargs: Any,
    ) -> None:
        super().__init__(configuration, ids, **kwargs)
        self.windows = windows
        self._packet_begun = False
        """Whether a packet was begun since `prepare`."""
        self._granted_for = -1
        """The value of `delivered` when credit was last granted."""
        self.held: dict[int | None, int] = {}
        self.held_total = 0
        bidi, uni = self._local_max_streams_bidi, self._local_max_streams_uni
        bidi.value = bidi.sent = windows.streams_bidi
        uni.value = uni.sent = windows.streams_uni

    # STOP_SENDING, stream limits.

    def _handle_stop_sending_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        stream_id = buf.pull_uint_var()
        code = buf.pull_uint_var()
        self._assert_stream_can_send(frame_type, stream_id)
        stream = self._get_or_create_stream(frame_type, stream_id)
        sender = stream.sender
        if sender.is_finished or self._is_reset(stream):
            return
        # A complete stream that was sent still arrives. One that is complete but not sent may
        # never be: the peer grants no more credit.
        if sender._buffer_fin is None or sender.highest_offset < sender._buffer_fin:
            self._events.append(events.StopSendingReceived(error_code=code, stream_id=stream_id))

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        uni, bidi = self._streams_blocked_uni, self._streams_blocked_bidi
        blocked = list(uni if is_unidirectional else bidi)
        super()._unblock_streams(is_unidirectional)
        for stream in blocked:
            if not stream.is_blocked:
                sender, receiver = stream.sender, stream.receiver
                sender.reset_pending = sender._reset_error_code is not None
                receiver.stop_pending = receiver._stop_error_code is not None
        if not self._events or not isinstance(self._events[-1], StreamCreditReceived):
            self._events.append(StreamCreditReceived())

    # Flow control credit for data that was read.

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        granted = stream.max_stream_data_local
        if not granted or stream.receiver.is_finished:
            return
        window = self.windows.stream
        limit = stream.receiver.starting_offset() + window
        if self.held:
            limit -= self.held.get(stream.stream_id, 0)
        if 2 * (limit - granted) >= window:
            stream.max_stream_data_local = granted = limit
        if stream.max_stream_data_local_sent != granted:
            buffer = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buffer.push_uint_var(stream.stream_id or 0)
            buffer.push_uint_var(granted)
            stream.max_stream_data_local_sent = granted

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        # aioquic calls this first for the 1-RTT part of each packet.
        if self._late_resets:
            self._begin_late_resets()
        data = self._local_max_data
        window = self.windows.connection
        limit = self.delivered + window - self.held_total
        if 2 * (limit - data.value) >= window:
            data.value = limit
        for credit in (data, self._local_max_streams_bidi, self._local_max_streams_uni):
            if credit.value == credit.sent or (
                # Send a stream limit when it at least doubles what the peer has left.
                credit is not data and credit.sent - credit.used >= credit.value - credit.sent
            ):
                continue
            buffer = builder.start_frame(
                credit.frame_type,
                capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=self._on_connection_limit_delivery,
                handler_args=(credit,),
            )
            buffer.push_uint_var(credit.value)
            credit.sent = credit.value
        self._granted_for = self.delivered
        # Otherwise aioquic begins a packet and visits every stream, only to find nothing to send.
        if self._packet_begun and builder.packet_is_empty and not self._has_pending_data():
            raise QuicPacketBuilderStop
        self._packet_begun = True

    def _on_max_stream_data_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        super()._on_max_stream_data_delivery(delivery, stream)
        if delivery is not QuicDeliveryState.ACKED:
            self._granted_for = -1

    def _has_pending_data(self) -> bool:
        """Whether a stream, datagram or PING has something to send, or a stream can be
        discarded."""
        if self._datagrams_pending or self._ping_pending or self._probe_pending:
            return True
        for stream in (self._crypto_streams[tls.Epoch.ONE_RTT], *self._streams_queue):
            sender, receiver = stream.sender, stream.receiver
            if (
                (not sender.buffer_is_empty and (sender._pending_eof or len(sender._pending)))
                or sender.reset_pending
                or receiver.stop_pending
                or (sender.is_finished and receiver.is_finished)
            ):
                return True
        return False

    def _has_nothing_to_send(self, now: float) -> bool:
        """Whether there is nothing to send, as after a packet that had only acknowledgements."""
        path, *others = self._network_paths
        ack_at = self._spaces[tls.Epoch.ONE_RTT].ack_at
        return not (
            others
            or not path.is_validated
            or path.remote_challenges
            or (ack_at is not None and ack_at <= now)
            or self._pacing_at is not None
            or self._granted_for != self.delivered
            or self._late_resets
            or self._handshake_done_pending
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or self._has_limits_to_send()
            or self._has_unsent_ids()
            or self._has_pending_data()
        )

    def _has_limits_to_send(self) -> bool:
        """Whether MAX_DATA or MAX_STREAMS is due, as in `_write_connection_limits`."""
        data = self._local_max_data
        bidi, uni = self._local_max_streams_bidi, self._local_max_streams_uni
        window = self.windows.connection
        return bool(
            data.value != data.sent
            or 2 * (self.delivered + window - self.held_total - data.value) >= window
            or bidi.value - bidi.sent > bidi.sent - bidi.used
            or uni.value - uni.sent > uni.sent - uni.used
        )

    # For `connection`: what aioquic has no public method for.

    def discard_state(self) -> None:
        """As the base class; also forget streams that were reset, and buffered data."""
        super().discard_state()
        self.held.clear()
        self.held_total = self.buffers.pieces = self.buffers.size = 0
        self._unopened.clear()
        self._sent_resets.clear()
        self._late_resets.clear()
        self._pending_resets.clear()

    @property
    def event_queue(self) -> deque[events.QuicEvent]:
        """Events that were not processed yet. The caller removes them."""
        return self._events

    def prepare(self, now: float, *, has_news: bool) -> bool:
        """Call before packets are built. Returns False if there is nothing to send.

        `has_news`: data was queued, so a delayed acknowledgement is sent with it.
        """
        self._packet_begun = False
        if self._packet_number >= self._keys.review_at:
            self.review_keys(now)
        if not self._handshake_confirmed or self._close_event is not None:
            return True
        if not has_news:
            return not self._has_nothing_to_send(now)
        if self._packet_number >= self._skip_at:
            self._skip_packet_number()
        space = self._spaces[_ONE_RTT]
        if space.ack_at is not None and space.ack_at > now:
            space.ack_at = now
        return True

    def can_open_stream(self, unidirectional: bool) -> bool:
        """Whether the peer's stream limit allows one more stream."""
        if unidirectional:
            return bool(self._local_next_stream_id_uni >> 2 < self._remote_max_streams_uni)
        return bool(self._local_next_stream_id_bidi >> 2 < self._remote_max_streams_bidi)

    def sending(self, stream_id: int) -> QuicStream | None:
        """A stream whose sending part is neither reset nor completely acknowledged; or None."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender.is_finished or self._is_reset(stream):
            return None
        return stream

    def write(self, stream_id: int, data: bytes, end_stream: bool) -> bool:
        """Queue bytes on a stream; false if its sending part has ended."""
        stream = self.sending(stream_id)
        if stream is None or stream.sender._buffer_fin is not None:
            return False
        stream.sender.write(data, end_stream)
        self.buffers.grown += len(data)
        return True

    def queue_datagram(self, data: bytes) -> bool:
        """Queue a datagram; false if the queue is full."""
        if len(self._datagrams_pending) >= _MAX_QUEUED_DATAGRAMS:
            return False
        self._datagrams_pending.append(data)
        self.buffers.grown += len(data)
        return True

    def buffered_bytes(self) -> int:
        """Bytes that are buffered: received out of order, not read, or not acknowledged."""
        return (
            self.buffers.size
            + self.held_total
            + sum(map(len, self._datagrams_pending))
            + sum(len(stream.sender._buffer) for stream in self._streams.values())
        )

    def fit_datagrams(self) -> int:
        """The size of the largest datagram. Drops queued datagrams that are larger.

        One that does not fit would block all others behind it.
        """
        room = self._max_datagram_size - _PACKET_OVERHEAD - len(self._peer_cid.cid)
        room = max(0, min(room, self._remote_max_datagram_frame_size or 0) - _DATAGRAM_OVERHEAD)
        if any(len(data) > room for data in self._datagrams_pending):
            self._datagrams_pending = deque(d for d in self._datagrams_pending if len(d) <= room)
        return room

    def reset(self, stream_id: int, code: int, reliable_size: int) -> int | None:
        """Reset the sending part after `reliable_size` bytes. Returns how many bytes stay unsent.

        Returns None if it has ended already.
        """
        stream = self.sending(stream_id)
        if stream is None:
            return None
        final_size = max(stream.sender.highest_offset, reliable_size)
        unsent = max(0, stream.sender._buffer_stop - final_size)
        if reliable_size and self.peer_resets_at:
            self._reset_at(stream, code, reliable_size)
        else:
            stream.sender.reset(code)
            stream.sender._buffer = bytearray()
            if stream.is_blocked:
                # Beyond its limit the peer would close the connection: sent when the limit allows.
                stream.sender.reset_pending = False
        return unsent

    def stop(self, stream_id: int, code: int) -> bool:
        """Send STOP_SENDING; false if the receiving part has ended already."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished:
            return False
        stream.receiver.stop(code)
        if stream.is_blocked:
            stream.receiver.stop_pending = False
        return True

    def buffered(self, stream_id: int) -> int:
        """Bytes of a stream that the peer has not acknowledged."""
        stream = self.sending(stream_id)
        return stream.sender._buffer_stop - stream.sender._buffer_start if stream else 0

    def final_size(self, stream_id: int) -> int:
        """The final size of a stream that the peer reset."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else int(stream.receiver.highest_offset)

    def is_receive_closed(self, stream_id: int) -> bool:
        """Whether the receiving part of a stream that the peer opened has ended."""
        if stream_id >> 2 >= self._stream_limit(stream_id).used or stream_id in self._unopened:
            return False
        stream = self._streams.get(stream_id)
        return stream is None or bool(stream.receiver.is_finished)
