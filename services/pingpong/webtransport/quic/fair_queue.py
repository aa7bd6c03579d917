"""A fair queue of packets, so that one connection does not hold up the others.

Fair queueing by the time that packets take, in the manner of RFC 8290: a flow that has had its
share of a turn waits, and while flows wait, each in turn has a packet processed. A flow that sends
little never waits, whatever the others do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

QUANTUM = 0.002
"""Seconds of a turn that a flow's packets are processed in as they come."""
MAX_PACKETS = 512
"""Packets of a flow that may wait. A full window of an honest peer is half as many."""
MAX_ALL_PACKETS = 4_096
"""Packets of all flows that may wait. Each has the same part of them, and one at the least."""
MAX_SIZE = 1_500
"""Bytes of a packet that may wait: of those that have 64 KiB, as many are too much to keep."""

Packet = tuple[Any, ...]


class Flow:
    """What has a share of its own: a connection, or the packets of none, together."""

    __slots__ = ("packets", "round", "spent")

    def __init__(self) -> None:
        self.packets: deque[Packet] | None = None
        """Those that wait; None where there are none."""
        self.spent = 0.0
        """Seconds of processing beyond what earlier turns have paid for."""
        self.round = 0


class FairQueue:
    """The packets that wait. `clock` gives seconds since any moment.

    A turn is what happens between two calls of `next_round`.
    """

    __slots__ = ("_flows", "_round", "clock", "length")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.length = 0
        """Packets that wait."""
        self._flows: deque[Flow] = deque()
        self._round = 0

    def next_round(self) -> None:
        """Every flow has a share again."""
        self._round += 1

    def may_process(self, flow: Flow) -> bool:
        """Whether a flow's next packet is to be processed now; otherwise, `put` it here."""
        if flow.packets is not None:
            return False
        if flow.round != self._round:
            flow.spent = max(0.0, flow.spent - QUANTUM * (self._round - flow.round))
            flow.round = self._round
        return flow.spent < QUANTUM

    def enqueue(self, flow: Flow, packet: Packet, size: int = 0) -> bool:
        """Have a packet of `size` bytes wait; false where it is to be dropped.

        That is where too many of its flow wait, or where it is too large.
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
        """The next packet of the flow whose turn it is."""
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
