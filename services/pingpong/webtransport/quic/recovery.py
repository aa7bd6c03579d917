"""Acknowledgements, at a cost that does not grow with what is in flight.

The receiving half of aioquic's loss recovery (RFC 9002): it copies the list of all packets in
flight for each ACK frame, of which a peer can put hundreds into a packet. It also remembers every
packet until it is acknowledged, or one after it is: a peer that acknowledges nothing makes it grow
by an object for each acknowledgement that it gets, which nothing else bounds.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace

_TIMER_GRANULARITY = 0.001
"""Seconds (RFC 9002, section 6.1.2); aioquic takes no round trip for shorter."""
_MAX_ROUND_TRIP = 5.0
"""Seconds. A longer one is that of a peer which acknowledges late: by it the idle timeout and the
closing period, three probe timeouts at least (RFC 9000, section 10), would become hours."""
_MAX_ACK_ONLY = 64
"""1-RTT packets that are remembered of those which ask for no acknowledgement: what is in them,
acknowledgements, is in later ones too."""


class Recovery(QuicPacketRecovery):
    """aioquic's loss recovery with another way to take acknowledgements in."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ack_only: deque[int] = deque()
        """Numbers of 1-RTT packets that are remembered though they ask for nothing."""

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """Remember a packet."""
        super().on_packet_sent(packet=packet, space=space)
        if not packet.in_flight and space.is_application_data:
            self.ack_only.append(packet.packet_number)
            if len(self.ack_only) > _MAX_ACK_ONLY:
                space.sent_packets.pop(self.ack_only.popleft(), None)

    def acknowledge(
        self, ranges: list[tuple[int, int]], ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Take an ACK frame in: its ranges, lowest and highest number of each, highest first.

        `ack_delay` and `now` are seconds.
        """
        largest = ranges[0][1]
        if largest > space.largest_acked_packet:
            space.largest_acked_packet = largest
        sent = space.sent_packets
        # In the order in which they were sent. Those that stay below the largest are few: loss
        # detection takes them away, up to the last three (RFC 9002, section 6.1.1).
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
                handler(QuicDeliveryState.ACKED, *args)
        if is_ack_eliciting and acknowledged[0] == largest:
            self._round_trip_measured(now - (newest.sent_time or now), ack_delay, now)
        self._detect_loss(now=now, space=space)
        # A client goes on backing off until it knows that its address is validated (RFC 9002,
        # section 6.2.1).
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def _round_trip_measured(self, sample: float, ack_delay: float, now: float) -> None:
        """RFC 9002, section 5."""
        sample = min(sample, _MAX_ROUND_TRIP)
        latest = max(sample, _TIMER_GRANULARITY)
        self._rtt_min = min(self._rtt_min, latest)
        ack_delay = min(ack_delay, self.max_ack_delay)
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
        self._cc.on_rtt_measurement(now=now, rtt=sample)
        self._pacer.update_rate(
            congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed
        )
