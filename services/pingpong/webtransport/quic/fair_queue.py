"""A fair queue of packets, so that one connection does not delay the others.

It works like FQ-CoDel (RFC 8290), but by processing time: a flow that has used its quantum of a
round is queued, and the queued flows are served round-robin, one packet each. A flow that sends
little is never queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

QUANTUM = 0.002
"""Seconds of processing that a flow has in each round before its packets are queued."""
MAX_PACKETS = 512
"""Packets of a flow that may be queued: twice a full window."""
MAX_ALL_PACKETS = 4_096
"""Packets of all flows that may be queued. All flows have the same share, at least one."""
MAX_SIZE = 1_500
"""Bytes of a packet that may be queued. 4,096 packets of 64 KiB would take too much memory."""

Packet = tuple[Any, ...]


class Flow:
    """A flow: a connection, or all packets that match no connection."""

    __slots__ = ("packets", "round", "spent")

    def __init__(self) -> None:
        self.packets: deque[Packet] | None = None
        """Queued packets; None if there are none."""
        self.spent = 0.0
        """Seconds of processing that are not yet paid by a quantum."""
        self.round = 0


class FairQueue:
    """The queued packets. `clock` gives seconds.

    A round is the time between two calls of `next_round`.
    """

    __slots__ = ("_flows", "_round", "clock", "length")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.length = 0
        """Queued packets."""
        self._flows: deque[Flow] = deque()
        self._round = 0

    def next_round(self) -> None:
        """Begin a round: every flow gets its quantum."""
        self._round += 1

    def may_process(self, flow: Flow) -> bool:
        """Whether to process a flow's next packet now; otherwise `enqueue` it."""
        if flow.packets is not None:
            return False
        if flow.round != self._round:
            flow.spent -= QUANTUM * (self._round - flow.round)
            if flow.spent < 0.0:
                flow.spent = 0.0
            flow.round = self._round
        return flow.spent < QUANTUM

    def spend(self, flow: Flow, seconds: float) -> bool:
        """Count processing time of a flow. Returns whether it may go on: `may_process`."""
        may_process = self.may_process(flow)
        flow.spent += seconds
        return may_process and flow.spent < QUANTUM

    def enqueue(self, flow: Flow, packet: Packet, size: int = 0) -> bool:
        """Queue a packet of `size` bytes; false if it has to be dropped.

        That is if the queue of its flow is full, or if it is too large.
        """
        if size > MAX_SIZE:
            return False
        if flow.packets is None:
            flow.packets = deque((packet,))
            self._flows.append(flow)
        elif len(flow.packets) < min(MAX_PACKETS, MAX_ALL_PACKETS // len(self._flows)):
            flow.packets.append(packet)
        else:
            return False
        self.length += 1
        return True

    def dequeue(self) -> tuple[Flow, Packet] | None:
        """Remove and return the next packet, round-robin over the flows."""
        if not self._flows:
            return None
        flow = self._flows.popleft()
        assert flow.packets
        packet = flow.packets.popleft()
        self.length -= 1
        if flow.packets:
            self._flows.append(flow)
        else:
            flow.packets = None
        return flow, packet
