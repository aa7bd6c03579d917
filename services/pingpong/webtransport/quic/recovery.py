"""Processes acknowledgements at a bounded cost (RFC 9002).

aioquic's loss recovery copies the list of all packets in flight for each ACK frame, and a peer can
put hundreds of them into a packet. It also remembers each packet until it, or a later one, is
acknowledged. So with a peer that acknowledges nothing, its memory grows with each packet that has
only an ACK.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace

from .engine import PathStatistics

_ACKED = QuicDeliveryState.ACKED
_TIMER_GRANULARITY = 0.001
"""Seconds (RFC 9002, section 6.1.2): the shortest round trip of aioquic."""
_MAX_ROUND_TRIP = 5.0
"""Seconds. A longer sample means that the peer acknowledged late. It would extend the idle timeout
and the closing period, at least three probe timeouts (RFC 9000, section 10), to hours."""
_MIN_PACE, _MAX_PACE = 0.000_001, 1.0
"""Seconds between two packets, as aioquic's."""
_MAX_ACK_ONLY = 64
"""1-RTT packets with only an ACK that are remembered. Later packets repeat their ranges."""


class Recovery(QuicPacketRecovery):
    """aioquic's loss recovery, with its own processing of ACK frames."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probe_timeout: float = self.get_probe_timeout()
        """Seconds; of 1-RTT packets, without backoff. It changes with each measured round trip."""
        self.lost_packets = 0
        self.ack_only: deque[int] = deque()
        """Packet numbers of the remembered 1-RTT packets that are not ack-eliciting."""

    @property
    def path_statistics(self) -> PathStatistics | None:
        """Statistics of the path; None before a round trip was measured."""
        if not self._rtt_initialized:
            return None
        return PathStatistics(self._rtt_smoothed, self.congestion_window, self.lost_packets)

    def _on_packets_lost(
        self,
        *,
        congestion_event: bool = True,
        now: float,
        packets: Iterable[QuicSentPacket],
        persistent_congestion: bool = False,
        space: QuicPacketSpace,
    ) -> None:
        packets = list(packets)
        if congestion_event:  # others are sent again as probes
            self.lost_packets += len(packets)
        super()._on_packets_lost(
            congestion_event=congestion_event,
            now=now,
            packets=packets,
            persistent_congestion=persistent_congestion,
            space=space,
        )

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """Remember a packet."""
        space.sent_packets[packet.packet_number] = packet
        if packet.is_ack_eliciting:
            space.ack_eliciting_in_flight += 1
            if self.handshake_confirmed or not space.is_application_data:
                self._time_of_last_sent_ack_eliciting_packet = packet.sent_time or 0.0
        if packet.in_flight:
            self._cc.on_packet_sent(packet=packet)
        elif space.is_application_data:
            self.ack_only.append(packet.packet_number)
            if len(self.ack_only) > _MAX_ACK_ONLY:
                space.sent_packets.pop(self.ack_only.popleft(), None)

    def probe_at(self) -> float:
        """When to send a probe, if ack-eliciting 1-RTT packets are in flight."""
        at: float = self._time_of_last_sent_ack_eliciting_packet
        return at + self.probe_timeout * (1 << self._pto_count)

    def may_send(self, now: float) -> bool:
        """Whether pacing allows a packet now; then it counts as sent (RFC 9002, section 7.7)."""
        pacer = self._pacer
        each = pacer.packet_time
        if each is None:
            return True
        saved = pacer.bucket_time
        if now > pacer.evaluation_time:
            saved += now - pacer.evaluation_time
            if saved > pacer.bucket_max:
                saved = pacer.bucket_max
            pacer.evaluation_time = now
        pacer.bucket_time = saved if saved <= 0 else saved - each if saved >= each else 0.0
        return saved > 0

    def acknowledge(
        self, ranges: list[tuple[int, int]], ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Process an ACK frame. `ranges` are pairs of lowest and highest number, highest first.

        `ack_delay` and `now` are in seconds.
        """
        largest = ranges[0][1]
        if largest > space.largest_acked_packet:
            space.largest_acked_packet = largest
        sent = space.sent_packets
        # In order of sending. Few stay below the largest acknowledged: loss detection removes all
        # but three (RFC 9002, section 6.1.1).
        below: list[int] = []
        for number in sent:
            if number > largest:
                break
            below.append(number)
        acknowledged: list[int] = []
        following = iter(ranges)
        low, high = next(following)
        for number in reversed(below):
            while number < low:
                low, high = next(following, (0, -1))
            if low <= number <= high:
                acknowledged.append(number)
        if not acknowledged:
            return
        is_ack_eliciting = False
        newest = sent[acknowledged[0]]
        for number in reversed(acknowledged):
            packet = sent.pop(number)
            if packet.is_ack_eliciting:
                is_ack_eliciting = True
                space.ack_eliciting_in_flight -= 1
            if packet.in_flight:
                self._cc.on_packet_acked(packet=packet, now=now)
            for handler, args in packet.delivery_handlers:
                handler(_ACKED, *args)
        if is_ack_eliciting and acknowledged[0] == largest:
            self._round_trip_measured(now - (newest.sent_time or now), ack_delay, now)
        if next(iter(sent), largest) < space.largest_acked_packet:
            self._detect_loss(now=now, space=space)
        else:
            space.loss_time = None
        # A client does not reset the backoff until it knows that its address is validated (RFC
        # 9002, section 6.2.1).
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def _round_trip_measured(self, sample: float, ack_delay: float, now: float) -> None:
        """Update the round-trip estimates (RFC 9002, section 5)."""
        if sample > _MAX_ROUND_TRIP:
            sample = _MAX_ROUND_TRIP
        latest = sample if sample > _TIMER_GRANULARITY else _TIMER_GRANULARITY
        if latest < self._rtt_min:
            self._rtt_min = latest
        if ack_delay > self.max_ack_delay:
            ack_delay = self.max_ack_delay
        if latest > self._rtt_min + ack_delay:
            latest -= ack_delay
        self._rtt_latest = latest
        if self._rtt_initialized:
            deviation = abs(self._rtt_min - latest)
            self._rtt_variance += (deviation - self._rtt_variance) / 4
            self._rtt_smoothed += (latest - self._rtt_smoothed) / 8
        else:
            self._rtt_initialized = True
            self._rtt_first_sample_time = now
            self._rtt_variance = sample / 2
            self._rtt_smoothed = sample
        deviation = 4 * self._rtt_variance
        self.probe_timeout = self._rtt_smoothed + self.max_ack_delay
        self.probe_timeout += deviation if deviation > _TIMER_GRANULARITY else _TIMER_GRANULARITY
        self._cc.on_rtt_measurement(now=now, rtt=sample)
        self._update_pace(self._cc.congestion_window)

    def _update_pace(self, window: int) -> None:
        """As the pacer's `update_rate`: a window in a round trip, in bursts of a part of it."""
        pacer = self._pacer
        size = pacer._max_datagram_size
        # The first round trip may be zero.
        byte_time = max(self._rtt_smoothed, _MIN_PACE) / window
        each = size * byte_time
        if each > _MAX_PACE:
            each = _MAX_PACE
        pacer.packet_time = each if each > _MIN_PACE else _MIN_PACE
        burst = window // 4
        if burst > 16 * size:
            burst = 16 * size
        pacer.bucket_max = (burst if burst > 2 * size else 2 * size) * byte_time
        if pacer.bucket_time > pacer.bucket_max:
            pacer.bucket_time = pacer.bucket_max
