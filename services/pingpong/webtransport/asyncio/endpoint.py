"""A QUIC endpoint on a UDP socket of the running loop: packets, timers, and when to send."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from ..quic.config import EndpointConfig, ServerIdentity
from ..quic.connection_ids import worker_of
from ..quic.engine import Address, QuicConnection, QuicEndpoint, QuicEvents
from ..quic.engines import make_endpoint
from ..udp.forwarding import PacketForwarder
from ..udp.pump import Pump

_NANOSECOND = 1e-9
_TIMER_LEEWAY = 0.0005
"""Seconds; a timer that is this much late is not armed again: event loops count in ms."""

BUDGET_SHARE = 0.05
"""The part of all time that a budget gets."""
MAX_BUDGET = 0.2
"""Seconds that a budget can save."""


class ReceiveBudget:
    """The time that endpoints may spend on packets in their sockets before timers act.

    Endpoints share a budget, so that several flooding peers, each on its own socket, block the event
    loop no longer than one. After a pause of the process there is as much time as the pause took.
    `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._saved = MAX_BUDGET
        self._saved_at = self._received_at = clock()

    def received(self) -> None:
        """Note that an endpoint received packets."""
        self._received_at = self._clock()

    def run(self, receive: Callable[[], bool]) -> None:
        """Call `receive` at least once, and while it receives something and there is time."""
        began = self._clock()
        saved = min(MAX_BUDGET, self._saved + BUDGET_SHARE * (began - self._saved_at))
        end = began + max(saved, began - self._received_at)
        while receive() and self._clock() < end:
            pass
        self._saved_at = self._clock()
        self._saved = max(0.0, saved - (self._saved_at - began))


class UdpEndpoint:
    """All QUIC connections of one socket, which it owns.

    With `accept` it is a server: `accept` is called for each new connection and returns the receiver
    of its events. The answers to a batch of packets are sent together at the batch's end; other
    packets in the next turn of the event loop, or by `flush`.

    `answered` is called after the answers to a batch are sent, with the result of `flush`.

    With `forwarder`, which it owns, it is one of several workers on a port, as in `config`: packets
    of other workers' connections are forwarded to them.

    `budget` is shared with other endpoints of the loop; without it, this one has its own.
    """

    def __init__(
        self,
        sock: socket.socket,
        config: EndpointConfig,
        accept: Callable[[QuicConnection], QuicEvents] | None = None,
        error_received: Callable[[OSError], None] | None = None,
        forwarder: PacketForwarder | None = None,
        answered: Callable[[int], None] | None = None,
        budget: ReceiveBudget | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.engine: QuicEndpoint = make_endpoint(
            config, self._wake, accept, clock=time.perf_counter
        )
        self.pump = Pump(
            sock,
            self._loop,
            receive=self._receive if forwarder is None else self._receive_or_forward,
            batch_received=self._batch_received,
            error_received=error_received,
        )
        self._is_client = accept is None
        self._answered = answered
        self.forwarder = forwarder
        self._worker, self._workers = config.worker, config.workers
        if forwarder is not None:
            forwarder.start(
                self._loop,
                receive=self._receive,
                note_source=self.pump.note_source,
                batch_received=self._batch_received,
            )
        self._woken: asyncio.Handle | None = None
        self._working: asyncio.Handle | None = None
        """Continues with waiting packets."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._budget = budget or ReceiveBudget()
        self._closed = False

    @property
    def local_address(self) -> Address:
        """The address that the socket is bound to."""
        return self.pump.local_address

    def connect(
        self,
        address: Address,
        identity: ServerIdentity,
        events: Callable[[QuicConnection], QuicEvents],
    ) -> QuicConnection:
        """Begin a connection. Raises `OSError` if the CA file cannot be read."""
        connection = self.engine.connect(address, identity, events, time.monotonic())
        self.flush()
        return connection

    def flush(self) -> int:
        """Send queued packets now.

        Returns when the first packet was passed to the kernel, in nanoseconds of the monotonic
        clock; 0 if none was: there was none, or congestion control or the socket blocked it.
        """
        sent_at = 0
        if self._woken is not None:
            self._woken.cancel()
            self._woken = None
        if not self._closed:
            send = self.pump.send
            for address, packets in self.engine.transmit(time.monotonic()):
                at = send(packets, address)
                sent_at = sent_at or at
            self._arm()
        return sent_at

    def receive_pending(self) -> bool:
        """Process at most a batch of waiting packets. Returns whether there were any."""
        pump = self.pump
        before = pump.received_packets
        pump.receive_pending()
        taken = self.forwarder.receive_pending() if self.forwarder is not None else 0
        waited = self.engine.waiting_packets > 0 and not self._closed
        if waited:
            self._process_waiting()
        return pump.received_packets != before or taken > 0 or waited

    def receive_backlog(self) -> None:
        """Process the packets that arrived while the process was busy or suspended.

        At least a batch, and more if the budget allows.
        """
        self._budget.run(self.receive_pending)

    def close(self) -> None:
        """Send queued packets and close the socket. Nothing is reported to connections."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            if self._woken is not None:
                self._woken.cancel()
                self._woken = None
            if self._working is not None:
                self._working.cancel()
                self._working = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._answered = None
            self.engine.close()
            self.pump.close()
            if self.forwarder is not None:
                self.forwarder.close()

    # The engine's time is the packet's arrival time, from which everything is measured.

    def _receive(self, data: bytes, address: Address, arrival: int) -> None:
        self.engine.receive(data, address, arrival * _NANOSECOND, arrival)

    def _receive_or_forward(self, data: bytes, address: Address, arrival: int) -> None:
        worker = worker_of(data, self._workers)
        if worker == self._worker:
            self._receive(data, address, arrival)
        elif self.forwarder is not None:
            self.forwarder.forward(worker, data, address, arrival, self.pump.source(address))

    def _batch_received(self) -> None:
        try:
            sent_at = self.flush()
            if sent_at and self._answered is not None:
                self._answered(sent_at)
        finally:
            self._budget.received()
            if self.engine.waiting_packets:
                self._go_on()

    def _go_on(self) -> None:
        """Continue with the waiting packets in the next turn of the event loop."""
        # A client has one connection: the socket has no packets of others.
        self.pump.paused = self._is_client
        if self._working is None and not self._closed:
            self._working = self._loop.call_soon(self._process_waiting)

    def _process_waiting(self) -> None:
        self.pump.paused = False
        if self._working is not None:
            self._working.cancel()
            self._working = None
        for step in (self.engine.process_waiting, self._batch_received):
            try:
                step()
            except Exception as exc:
                self.pump.callback_failed(exc)

    def _wake(self) -> None:
        if self._woken is None and not self._closed:
            self._woken = self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._woken = None
        self.flush()

    def _arm(self) -> None:
        when = self.engine.next_timer()
        if when is None:
            return
        if self._timer is not None:
            if self._timer_at <= when + _TIMER_LEEWAY:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_later(max(0.0, when - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        # Packets first: after a pause of the process, the answer that a timer waits for may be in
        # the socket already.
        self.receive_backlog()
        if not self._closed:
            try:
                self.engine.handle_timers(time.monotonic())
            finally:
                # An exception of a handler does not stop the other packets and timers.
                self.flush()
