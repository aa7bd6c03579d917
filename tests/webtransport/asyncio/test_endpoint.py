from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from pingpong.webtransport.asyncio import EndpointConfig, Target, open_connection
from pingpong.webtransport.asyncio.endpoint import (
    BUDGET_SHARE,
    MAX_BUDGET,
    ReceiveBudget,
    UdpEndpoint,
)
from pingpong.webtransport.quic import fair_queue
from pingpong.webtransport.session import Session as CoreSession
from pingpong.webtransport.udp.sockets import bind_udp
from tests.webtransport.asyncio.peers import (
    Pair,
    on_a_loop,
    on_both_loops,
    serving,
    session_pair,
    silent_socket,
    stay,
    trusted,
    until,
    until_still,
)


def endpoints(pair: Pair) -> tuple[UdpEndpoint, UdpEndpoint]:
    client = pair.client._client
    assert client is not None
    return client.endpoint, pair.listening.listener.endpoint


# Sending.


@on_both_loops
async def test_what_is_sent_outside_of_a_batch_leaves_by_itself() -> None:
    async with session_pair() as pair:
        assert pair.client.datagrams.send(b"at the next turn")
        assert await pair.server.datagrams.receive() == b"at the next turn"


@on_both_loops
async def test_flush_says_when_the_packet_was_sent() -> None:
    async with session_pair() as pair:
        ours, theirs = endpoints(pair)
        await until_still(lambda: (ours.pump.sent_packets, theirs.pump.sent_packets))
        assert ours.flush() == 0
        arrivals: list[int] = []
        handler = pair.server._get_core().handler
        handler.datagram_received = lambda session, data, arrival: arrivals.append(arrival)  # type: ignore[method-assign]
        before = time.monotonic_ns()
        pair.client.datagrams.send(b"ping")
        packets = ours.pump.sent_packets
        sent_at = ours.flush()
        assert before < sent_at < time.monotonic_ns()
        assert ours.pump.sent_packets == packets + 1
        assert ours.flush() == 0
        await until(lambda: arrivals)
        assert arrivals[0] >= sent_at


@on_both_loops
async def test_answers_to_a_batch_leave_together() -> None:
    async with session_pair() as pair:
        ours, theirs = endpoints(pair)
        await until_still(lambda: (ours.pump.sent_packets, theirs.pump.sent_packets))
        flushes = 0
        transmit = theirs.engine.transmit

        def counted(now: float) -> Any:
            nonlocal flushes
            groups = list(transmit(now))
            flushes += bool(groups)
            return groups

        theirs.engine.transmit = counted  # type: ignore[method-assign]
        core = pair.server._get_core()

        def answer(session: CoreSession, data: bytes, arrival: int) -> None:
            session.send_datagram(data)

        core.handler.datagram_received = answer  # type: ignore[method-assign]
        for number in range(5):
            pair.client.datagrams.send(b"%d" % number)
        ours.flush()
        got = [await pair.client.datagrams.receive() for _ in range(5)]
        assert got == [b"%d" % number for number in range(5)]
        assert flushes == 1


@on_both_loops
async def test_packets_to_several_addresses_leave_in_one_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = UdpEndpoint(bind_udp("127.0.0.1", 0), EndpointConfig())
    receivers = [silent_socket() for _ in range(3)]
    groups = [(sock.getsockname(), [b"one", b"two"]) for sock in receivers]
    monkeypatch.setattr(endpoint.engine, "transmit", lambda now: groups)
    before = time.monotonic_ns()
    assert before < endpoint.flush() < time.monotonic_ns()
    for sock in receivers:
        with sock:
            sock.settimeout(5)
            assert [sock.recv(100), sock.recv(100)] == [b"one", b"two"]
    groups.clear()
    endpoint.close()


# Timers.


@on_both_loops
async def test_the_timer_is_armed_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = UdpEndpoint(silent_socket(), EndpointConfig())
    start = time.monotonic() + 60
    wanted: float | None = None
    monkeypatch.setattr(endpoint.engine, "next_timer", lambda: wanted)
    timers = set()

    def flush_with(when: float | None) -> None:
        nonlocal wanted
        wanted = when
        endpoint.flush()
        timers.add(endpoint._timer)

    flush_with(None)
    assert timers == {None}
    flush_with(start)
    # A later time is found when the timer fires; one that is hardly earlier is not worth it.
    for later in range(100):
        flush_with(start + later)
    flush_with(start - 0.0004)
    flush_with(None)
    assert len(timers) == 2
    flush_with(start - 1)
    assert len(timers) == 3
    flush_with(start + 1)
    assert len(timers) == 3
    endpoint.close()
    assert endpoint._timer is None


@on_both_loops
async def test_a_timer_that_finds_nothing_due_is_armed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = UdpEndpoint(silent_socket(), EndpointConfig())
    calls: list[float] = []
    times = iter([time.monotonic() + 0.02, time.monotonic() + 0.04])
    wanted: float | None = next(times)

    def handle_timers(now: float) -> None:
        nonlocal wanted
        calls.append(now)
        wanted = next(times, None)

    monkeypatch.setattr(endpoint.engine, "next_timer", lambda: wanted)
    monkeypatch.setattr(endpoint.engine, "handle_timers", handle_timers)
    endpoint.flush()
    await until(lambda: len(calls) == 2)
    assert wanted is None
    assert endpoint._timer is None
    endpoint.close()


class Paused:
    """Stops the clock that an endpoint's timers go by, and what it reads of its socket."""

    def __init__(self, endpoint: UdpEndpoint) -> None:
        self.endpoint = endpoint
        self.loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        self.loop.remove_reader(self.endpoint.pump._fd)
        if self.endpoint._timer is not None:
            self.endpoint._timer.cancel()

    def __exit__(self, *error: object) -> None:
        # As after a SIGCONT on a loop that looks at timers before sockets.
        self.endpoint._on_timer()
        self.loop.add_reader(self.endpoint.pump._fd, self.endpoint.pump.receive_pending)


@on_both_loops
async def test_a_pause_of_the_process_kills_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with session_pair(idle_timeout=0.5) as pair:
        ours, theirs = endpoints(pair)
        packets = theirs.pump.received_packets
        with monkeypatch.context() as patience, Paused(theirs):
            # The client would give up as well, hearing nothing; it is not what this is about.
            patience.setattr(ours.engine, "handle_timers", lambda now: None)
            # Longer than the idle timeout, and more packets than a batch has.
            ends = time.monotonic() + 0.7
            while time.monotonic() < ends:
                for _ in range(10):
                    pair.client.datagrams.send(b"are you there?")
                    ours.flush()
                await asyncio.sleep(0.02)
        assert theirs.pump.received_packets > packets + 64
        assert not pair.server.closed.done()
        pair.server.datagrams.send(b"still here")
        assert await pair.client.datagrams.receive() == b"still here"


@on_both_loops
async def test_a_peer_that_floods_does_not_hold_up_the_loop_at_each_timer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = UdpEndpoint(silent_socket(), EndpointConfig())
    batches = 0

    def receive_pending() -> bool:
        nonlocal batches
        batches += 1
        time.sleep(0.001)
        return True

    monkeypatch.setattr(endpoint, "receive_pending", receive_pending)
    began = time.monotonic()
    when = iter([began])
    monkeypatch.setattr(endpoint.engine, "next_timer", lambda: next(when, None))
    endpoint.flush()
    await until(lambda: batches)
    assert batches <= MAX_BUDGET / 0.001 + 1
    endpoint.close()


class Time:
    """A clock, and sockets of which each batch takes some milliseconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def catch_up(self, shared: ReceiveBudget, batches: int, seconds: float = 0.01) -> int:
        """Catch up on a socket in which so many batches wait; how many were taken in."""
        taken = 0

        def receive() -> bool:
            nonlocal taken
            if taken == batches:
                return False
            taken += 1
            self.now += seconds
            shared.received()
            return True

        shared.run(receive)
        return taken


def test_sockets_that_are_flooded_share_the_time_to_catch_up() -> None:
    machine = Time()
    shared = ReceiveBudget(machine.clock)
    taken = 0
    for _ in range(1_000):
        for _ in range(5):
            taken += machine.catch_up(shared, 1_000)
        # What else the loop has to do.
        machine.now += 0.05
        shared.received()
    passed = machine.now
    # But for one batch at each time, they take their share.
    assert (taken - 5_000) * 0.01 <= BUDGET_SHARE * passed + MAX_BUDGET
    assert taken > 5_000


def test_after_a_pause_there_is_as_much_time_as_it_took() -> None:
    machine = Time()
    shared = ReceiveBudget(machine.clock)
    for _ in range(10):
        machine.catch_up(shared, 1_000)
    machine.now += 12.0
    assert machine.catch_up(shared, 0) == 0
    assert machine.catch_up(shared, 1_000) == 1_000
    # Others have a batch at the least, that is all of what an honest peer has sent.
    assert machine.catch_up(shared, 1) == 1


@on_a_loop
async def test_endpoints_share_the_time_that_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Time()
    shared = ReceiveBudget(machine.clock)
    taken = 0

    def receive_pending() -> bool:
        nonlocal taken
        taken += 1
        machine.now += 0.01
        shared.received()
        return True

    for batches in (MAX_BUDGET / 0.01, 1, 1):
        endpoint = UdpEndpoint(silent_socket(), EndpointConfig(), budget=shared)
        monkeypatch.setattr(endpoint, "receive_pending", receive_pending)
        taken = 0
        endpoint.receive_backlog()
        assert taken == pytest.approx(batches, abs=1)
        endpoint.close()


@on_a_loop
async def test_a_connection_catches_up_in_the_time_that_it_was_given() -> None:
    class Seen(ReceiveBudget):
        runs = 0

        def run(self, receive: Callable[[], bool]) -> None:
            self.runs += 1
            super().run(receive)

    shared = Seen()
    async with serving(stay) as server:
        target = Target("127.0.0.1", server.port, certificate_hash=trusted().sha256)
        client = await open_connection(target, budget=shared)
        runs = shared.runs
        client.receive_backlog()
        assert shared.runs == runs + 1
        await client.close()


# Packets that wait for their connection's turn.


@pytest.fixture
def no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every packet has to wait."""
    monkeypatch.setattr(fair_queue, "QUANTUM", 0.0)


@pytest.mark.usefixtures("no_share")
@on_both_loops
async def test_what_has_arrived_and_waits_is_taken_in_at_once() -> None:
    async with session_pair() as pair:
        ours, theirs = endpoints(pair)
        await until_still(lambda: (ours.pump.received_packets, theirs.pump.received_packets))
        got: list[bytes] = []
        core = pair.server._get_core()
        core.handler.datagram_received = lambda session, data, arrival: got.append(data)  # type: ignore[method-assign]
        sent = [b"%d" % number for number in range(100)]
        for data in sent:
            left = ours.pump.sent_packets
            pair.client.datagrams.send(data)
            # Where a busy machine made round trips long, QUIC spaces packets out.
            while ours.pump.sent_packets == left:
                ours.flush()
        theirs.receive_backlog()
        assert got == sent


@pytest.mark.usefixtures("no_share")
@on_both_loops
async def test_what_a_handler_raises_for_a_packet_that_waited_is_reported() -> None:
    seen: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    bad = ValueError("a bug")

    def raises(session: CoreSession, data: bytes, arrival: int) -> None:
        raise bad

    async with session_pair() as pair:
        ours, theirs = endpoints(pair)
        await until_still(lambda: (ours.pump.received_packets, theirs.pump.received_packets))
        pair.server._get_core().handler.datagram_received = raises  # type: ignore[method-assign]
        pair.client.datagrams.send(b"x")
        ours.flush()
        assert theirs.receive_pending()
        assert seen == [bad]
        assert theirs.pump.callback_errors == 1


# The end.


@on_a_loop
async def test_closing_sends_what_waits() -> None:
    async with session_pair() as pair:
        ours, _ = endpoints(pair)
        pair.client.datagrams.send(b"the last word")
        ours.close()
        ours.close()
        assert ours.flush() == 0
        assert await pair.server.datagrams.receive() == b"the last word"
        assert ours._timer is None
        # Neither side is to wait for the other now.
        for connection in pair.connections():
            connection.close()


@on_a_loop
async def test_the_socket_is_closed_even_if_the_last_flush_fails() -> None:
    with silent_socket() as sock:
        endpoint = UdpEndpoint(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), EndpointConfig())
        assert sock

        def fails(now: float) -> Any:
            raise RuntimeError("a fault")

        endpoint.engine.transmit = fails  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="a fault"):
            endpoint.close()
        assert endpoint.pump._sock.fileno() == -1
