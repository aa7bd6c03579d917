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
"""A timer that is armed this much later than needed is left alone: loops count in ms."""

CATCH_UP_SHARE = 0.05
"""Part of the time in which endpoints may catch up before their timers act."""
CATCH_UP_MOST = 0.2
"""Seconds of it that may be saved up."""


class CatchUp:
    """How long endpoints may take in what waits in their sockets, before timers act.

    Endpoints with the same one share the time: several peers that flood, each at a socket of its
    own, hold up the loop no longer than one. After a pause of the whole process there is as much
    time as that took. `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._saved = CATCH_UP_MOST
        self._saved_at = self._received_at = clock()

    def received(self) -> None:
        """An endpoint has taken in packets."""
        self._received_at = self._clock()

    def run(self, receive: Callable[[], bool]) -> None:
        """Call `receive` while it takes something in and there is time; once in any case."""
        began = self._clock()
        saved = min(CATCH_UP_MOST, self._saved + CATCH_UP_SHARE * (began - self._saved_at))
        end = began + max(saved, began - self._received_at)
        while receive() and self._clock() < end:
            pass
        self._saved_at = self._clock()
        self._saved = max(0.0, saved - (self._saved_at - began))


class UdpEndpoint:
    """All QUIC connections of one socket, which it owns.

    With `accept` it is a server: it is called for each new connection and returns what its
    events are reported to. Answers to a batch of packets leave together at the batch's end;
    what is sent at any other time leaves at the next turn of the loop, or at `flush`.

    `answered` is called when the answers to a batch of packets have left, with what `flush` returned.

    With `forwarder`, which it owns, it is one of several workers on a port, as `config` has it:
    packets of other workers' connections are passed on to them.

    `catch_up` is shared with other endpoints of the loop; without it, this one has its own.
    """

    def __init__(
        self,
        sock: socket.socket,
        config: EndpointConfig,
        accept: Callable[[QuicConnection], QuicEvents] | None = None,
        error_received: Callable[[OSError], None] | None = None,
        forwarder: PacketForwarder | None = None,
        answered: Callable[[int], None] | None = None,
        catch_up: CatchUp | None = None,
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
        """To go on with packets that wait."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._catch_up = catch_up or CatchUp()
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
        """Begin a connection. Raises `OSError` where the CA file cannot be read."""
        connection = self.engine.connect(address, identity, events, time.monotonic())
        self.flush()
        return connection

    def flush(self) -> int:
        """Send what waits, now.

        Returns the monotonic clock, in nanoseconds, when the first packet was handed to
        the kernel; 0 where nothing was: there was nothing, or congestion control or the
        socket held it back.
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
        """Take in what waits, in the socket or here, at most a batch; whether it was any."""
        pump = self.pump
        before = pump.received_packets
        pump.receive_pending()
        taken = self.forwarder.receive_pending() if self.forwarder is not None else 0
        waited = self.engine.waiting_packets > 0 and not self._closed
        if waited:
            self._process_waiting()
        return pump.received_packets != before or taken > 0 or waited

    def catch_up(self) -> None:
        """Take in what has arrived while the process did something else, or was stopped.

        A batch at the least; more as far as `CatchUp` has time for it.
        """
        self._catch_up.run(self.receive_pending)

    def close(self) -> None:
        """Close the socket, after sending what waits. Nothing is reported to connections."""
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

    # The engine's time is the packet's, as is everything that is measured from it.

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
            self._catch_up.received()
            if self.engine.waiting_packets:
                self._go_on()

    def _go_on(self) -> None:
        """Come back to the packets that wait, after whatever else the loop has to do."""
        # A client has one connection: nothing else waits behind them in the socket.
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
        # What has arrived comes first: after a pause of the process, the answer that a timer
        # would give up on may be in the socket already, behind batches of others.
        self.catch_up()
        if not self._closed:
            try:
                self.engine.handle_timers(time.monotonic())
            finally:
                # A handler that raised is not to hold up the others' packets, and timers.
                self.flush()
