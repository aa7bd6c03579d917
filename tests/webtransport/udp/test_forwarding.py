from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.asyncio import EndpointConfig
from pingpong.webtransport.asyncio import endpoint as endpoint_module
from pingpong.webtransport.quic.connection_ids import worker_of
from pingpong.webtransport.udp import forwarding
from pingpong.webtransport.udp.forwarding import PacketForwarder, create_inboxes, encode
from pingpong.webtransport.udp.sources import IP_PKTINFO, IPV6_PKTINFO, Ancillary
from tests.webtransport.asyncio.peers import on_a_loop, on_both_loops, until
from tests.webtransport.udp.groups import Client, Nat, working

IPV4 = ("192.0.2.1", 50_000)
IPV6 = ("fe80::1%lo", 50_000, 7, 1)
SOURCE_4: Ancillary = [(socket.IPPROTO_IP, IP_PKTINFO, bytes(range(12)))]
SOURCE_6: Ancillary = [(socket.IPPROTO_IPV6, IPV6_PKTINFO, bytes(range(20)))]


class Inbox:
    """What was brought to a worker."""

    def __init__(self, forwarder: PacketForwarder) -> None:
        self.packets: list[tuple[bytes, Any, int]] = []
        self.sources: list[tuple[Any, int, bytes]] = []
        self.batches = 0
        forwarder.start(
            asyncio.get_running_loop(),
            receive=lambda *packet: self.packets.append(packet),
            note_source=lambda *source: self.sources.append(source),
            batch_received=self._batch,
        )

    def _batch(self) -> None:
        self.batches += 1


def pair() -> tuple[PacketForwarder, PacketForwarder]:
    inboxes, outboxes = create_inboxes(2)
    return (
        PacketForwarder(inboxes[0], outboxes),
        PacketForwarder(inboxes[1], [outbox.dup() for outbox in outboxes]),
    )


@on_both_loops
async def test_packets_arrive_with_all_that_was_known_of_them() -> None:
    first, second = pair()
    here, there = Inbox(first), Inbox(second)
    first.forward(1, b"one", IPV4, 1, None)
    first.forward(1, b"two", IPV6, 2, SOURCE_6)
    first.forward(1, bytes(65_000), IPV4, (1 << 62) + 1, SOURCE_4)
    first.forward(1, b"", IPV4, 4, None)
    await until(lambda: len(there.packets) == 4)
    assert there.packets == [
        (b"one", IPV4, 1),
        (b"two", IPV6, 2),
        (bytes(65_000), IPV4, (1 << 62) + 1),
        (b"", IPV4, 4),
    ]
    assert there.sources == [
        (IPV6, IPV6_PKTINFO, bytes(range(20))),
        (IPV4, IP_PKTINFO, bytes(range(12))),
    ]
    assert there.batches >= 1
    assert (first.forwarded_packets, second.received_from_others) == (4, 4)
    second.forward(0, b"back", IPV6, 5, None)
    await until(lambda: here.packets)
    assert here.packets == [(b"back", IPV6, 5)]
    first.close()
    second.close()


@given(
    data=st.binary(max_size=2_000),
    host=st.sampled_from(["0.0.0.0", "255.255.255.255", "::", "fe80::1%interface"]),
    port=st.integers(0, 65_535),
    more=st.sampled_from([(), (0, 0), (1 << 20, 7), ((1 << 32) - 1, (1 << 32) - 1)]),
    arrival=st.integers(-(1 << 63), (1 << 63) - 1),
    source=st.sampled_from([None, SOURCE_4, SOURCE_6]),
)
def test_any_packet_is_read_as_it_was_written(
    data: bytes,
    host: str,
    port: int,
    more: tuple[int, ...],
    arrival: int,
    source: Ancillary | None,
) -> None:
    inboxes, outboxes = create_inboxes(1)
    forwarder = PacketForwarder(inboxes[0], outboxes)
    packets: list[Any] = []
    sources: list[Any] = []
    forwarder._receive = lambda *packet: packets.append(packet)
    forwarder._note_source = lambda *noted: sources.append(noted)
    address = (host, port, *more)
    forwarder._take(encode(data, address, arrival, source))
    forwarder.close()
    assert packets == [(data, address, arrival)]
    assert sources == ([] if source is None else [(address, *source[0][1:])])


@on_a_loop
async def test_inbox_that_nobody_empties_costs_packets_and_not_more() -> None:
    first, second = pair()
    for _ in range(100_000):
        first.forward(1, bytes(1_200), IPV4, 0, None)
        if first.dropped_packets:
            break
    assert first.dropped_packets == 1
    assert first.forwarded_packets > 100
    there = Inbox(second)
    await until(lambda: len(there.packets) == first.forwarded_packets)
    first.forward(1, b"room again", IPV4, 0, None)
    await until(lambda: there.packets[-1][0] == b"room again")
    first.close()
    second.close()


@on_a_loop
async def test_worker_that_is_gone_costs_packets_and_not_more() -> None:
    first, second = pair()
    second.close()
    first.forward(1, b"x", IPV4, 0, None)
    assert (first.forwarded_packets, first.dropped_packets) == (0, 1)
    first.close()


@on_both_loops
async def test_what_a_callback_raises_holds_up_no_other_packet() -> None:
    first, second = pair()
    there = Inbox(second)
    failures: list[Any] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def receive(data: bytes, address: Any, arrival: int) -> None:
        if data == b"bad":
            raise RuntimeError("no")
        there.packets.append((data, address, arrival))

    second._receive = receive
    for data in (b"good", b"bad", b"good"):
        first.forward(1, data, IPV4, 0, None)
    await until(lambda: len(there.packets) == 2)
    assert [str(failure) for failure in failures] == ["no"]
    loop.set_exception_handler(before)
    first.close()
    second.close()


@on_a_loop
async def test_close_in_a_callback_ends_it_there() -> None:
    first, second = pair()
    there = Inbox(second)

    def receive(*packet: Any) -> None:
        there.packets.append(packet)
        second.close()

    second._receive = receive
    first.forward(1, b"one", IPV4, 0, None)
    first.forward(1, b"two", IPV4, 0, None)
    second.receive_pending()
    assert [packet[0] for packet in there.packets] == [b"one"]
    assert there.batches == 0
    first.close()


# With endpoints.


@pytest.mark.parametrize("steered", [True, False])
@on_both_loops
async def test_connections_spread_over_the_workers(steered: bool) -> None:
    async with working(2, steered=steered) as group:
        clients = [await Client.join(group.port) for _ in range(24)]
        for number, client in enumerate(clients):
            assert await client.ask(b"%d" % number) == b"%d" % number
        assert sum(group.connections) == 24
        # Random ids: that all lead to one worker happens once in 8 million times.
        assert all(group.connections)
        passed = sum(forwarder.forwarded_packets for forwarder in group.handovers)
        assert bool(passed) != steered
        for client in clients:
            await client.connection.close()
        await until(lambda: not sum(group.connections))


@pytest.mark.parametrize("steered", [True, False])
@pytest.mark.parametrize("workers", [2, 4])
@on_a_loop
async def test_client_whose_address_changes_keeps_its_session(workers: int, steered: bool) -> None:
    async with working(workers, steered=steered) as group:
        nat = await Nat.open(group.port)
        client = await Client.join(nat.port)
        ports = {nat.outside_port}
        for number in range(12):
            # The address too, sometimes.
            await nat.rebind("127.0.0.2" if number % 3 == 2 else "127.0.0.1")
            ports.add(nat.outside_port)
            assert await client.ask(b"%d" % number) == b"%d" % number
        assert len(ports) > 10
        assert client.connection.closed is None
        assert sum(group.connections) == 1
        passed = sum(forwarder.forwarded_packets for forwarder in group.handovers)
        taken = sum(forwarder.received_from_others for forwarder in group.handovers)
        assert passed == taken
        assert bool(passed) != steered
        assert sum(one.endpoint.engine.counters.resets_sent for one in group.listeners) == 0
        await client.connection.close()
        nat.close()


@pytest.mark.parametrize("steered", [True, False])
@on_a_loop
async def test_client_of_a_workers_number_reaches_that_worker(steered: bool) -> None:
    async with working(4, steered=steered) as group:
        for worker in (2, 0, 3, 1, 1):
            before = group.connections
            config = EndpointConfig(worker=worker, workers=4)
            client = await Client.join(group.port, config)
            after = group.connections
            assert [b - a for a, b in zip(before, after, strict=True)] == [
                int(index == worker) for index in range(4)
            ]
            assert await client.ask(b"x") == b"x"
            await client.connection.close()
            while group.connections != before:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("steered", [True, False])
@on_a_loop
async def test_retry_is_good_whichever_worker_gets_its_token(steered: bool) -> None:
    async with working(4, steered=steered, max_handshakes=0) as group:
        for _ in range(12):
            client = await Client.join(group.port)
            assert await client.ask(b"x") == b"x"
            await client.connection.close()
        counters = [listener.endpoint.engine.counters for listener in group.listeners]
        assert sum(each.retries_sent for each in counters) == 12
        assert sum(each.retries_invalid for each in counters) == 0
        assert sum(each.handshakes for each in counters) == 12


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@on_a_loop
async def test_answers_leave_from_the_address_that_was_asked() -> None:
    """Also where the packet came to another worker, which alone has seen that address."""
    async with working(2, steered=False, host="::") as group:
        for host in ("127.0.0.3", "::1"):
            for worker in (0, 1):
                config = EndpointConfig(worker=worker, workers=2)
                for _ in range(4):
                    # A connected socket: it takes answers from no other address.
                    client = await Client.join(group.port, config, host)
                    assert await client.ask(b"x") == b"x"
                    await client.connection.close()
        assert sum(forwarder.forwarded_packets for forwarder in group.handovers)


@on_a_loop
async def test_packet_that_was_handed_over_keeps_its_time_of_arrival() -> None:
    async with working(2, steered=False) as group:
        arrivals: list[tuple[int, int]] = []
        for listener in group.listeners:
            engine = listener.endpoint.engine
            receive = engine.receive

            def note(
                data: bytes, address: Any, now: float, arrival: int, receive: Any = receive
            ) -> None:
                arrivals.append((arrival, time.monotonic_ns()))
                receive(data, address, now, arrival)

            engine.receive = note  # type: ignore[method-assign]
        nat = await Nat.open(group.port)
        client = await Client.join(nat.port)
        while not sum(forwarder.received_from_others for forwarder in group.handovers):
            await nat.rebind()
            await client.ask(b"x")
        assert all(0 < now - arrival < 1_000_000_000 for arrival, now in arrivals)
        await client.connection.close()
        nat.close()


@on_a_loop
async def test_packets_that_the_kernel_has_glued_together_are_reported_apart() -> None:
    """One send of several packets is one to the kernel's filter, whichever ids they have."""
    async with working(2) as group:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(17, 103, 30)  # SOL_UDP, UDP_SEGMENT
        packets = [b"\x41" + bytes((first,)) + bytes(28) for first in (0, 1, 2, 3)]
        assert [worker_of(packet, 2) for packet in packets] == [0, 1, 0, 1]
        sock.sendto(b"".join(packets), ("127.0.0.1", group.port))
        counters = [listener.endpoint.engine.counters for listener in group.listeners]
        await until(lambda: [each.resets_sent for each in counters] == [2, 2])
        assert [forwarder.forwarded_packets for forwarder in group.handovers] == [2, 0]
        sock.close()


@on_a_loop
async def test_what_was_handed_over_is_taken_before_timers_act(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, "_BATCH", 1)
    # What is seen is the order, however long it takes.
    monkeypatch.setattr(endpoint_module, "MAX_BUDGET", 60.0)
    async with working(2, steered=False, idle_timeout=2.0) as group:
        config = EndpointConfig(worker=1, workers=2)
        client = await Client.join(group.port, config)
        listener, forwarder = group.listeners[1], group.handovers[1]
        engine = listener.endpoint.engine
        handle_timers = engine.handle_timers
        taken: list[int] = []

        def note(now: float) -> None:
            taken.append(forwarder.received_from_others)
            handle_timers(now)

        engine.handle_timers = note  # type: ignore[method-assign]
        timer = engine.next_timer()
        assert timer is not None
        taken.clear()
        before = forwarder.received_from_others
        for number in range(5):
            group.handovers[0].forward(1, b"\x41\x01garbage%d" % number, IPV4, 0, None)
        # The loop has something else to do until both have come.
        while time.monotonic() < timer:
            pass
        await until(lambda: taken)
        # The client's own packets may come beside them.
        assert taken[0] >= before + 5
        await client.connection.close()
