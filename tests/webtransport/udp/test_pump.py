from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import select
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import uvloop

from pingpong.webtransport.udp.arrival import ArrivalClock
from pingpong.webtransport.udp.pump import Address, Pump
from pingpong.webtransport.udp.sockets import bind_udp

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an option of Linux")

Test = Callable[..., Awaitable[None]]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Test) -> Callable[..., None]:
    @functools.wraps(test)
    def run(loop: str, **arguments: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                with Ends() as ends:
                    await test(ends, **arguments)

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(bounded())

    _, *others = inspect.signature(test).parameters.values()
    loop_parameter = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(run)["__signature__"] = inspect.Signature([loop_parameter, *others])
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(run)
    return parametrized


class Received:
    """What a pump handed up, and a way to wait for it."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.addresses: list[Address] = []
        self.arrivals: list[int] = []
        self.batches: list[int] = []
        self.errors: list[OSError] = []
        self.on_packet: Callable[[bytes], object] = lambda _: None
        self.on_batch: Callable[[], object] = lambda: None
        self.on_error: Callable[[OSError], object] = lambda _: None
        self._changed = asyncio.Event()

    def receive(self, packet: bytes, address: Address, arrival: int) -> None:
        self.packets.append(packet)
        self.addresses.append(address)
        self.arrivals.append(arrival)
        self.on_packet(packet)

    def batch_received(self) -> None:
        self.batches.append(len(self.packets))
        self._changed.set()
        self.on_batch()

    def error_received(self, exc: OSError) -> None:
        self.errors.append(exc)
        self._changed.set()
        self.on_error(exc)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def count(self, packets: int) -> None:
        await self.until(lambda: len(self.packets) >= packets)


class Ends(contextlib.ExitStack):
    """Pumps with what they received, and sockets, all closed at the end."""

    def pump(
        self, sock: socket.socket | None = None, *, host: str = "127.0.0.1", **options: Any
    ) -> tuple[Pump, Received]:
        received = Received()
        pump = Pump(
            sock if sock is not None else bind_udp(host, 0),
            asyncio.get_running_loop(),
            receive=received.receive,
            batch_received=received.batch_received,
            error_received=received.error_received,
            **options,
        )
        self.callback(pump.close)
        return pump, received

    def socket(self, host: str = "127.0.0.1") -> socket.socket:
        return self.enter_context(bind_udp(host, 0))


async def turn() -> None:
    await asyncio.sleep(0)


class RefusingSocket(socket.socket):
    """A UDP socket whose sending raises what it is told to, and notes what would have left."""

    def __init__(self, *errors: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.bind(("127.0.0.1", 0))
        self.errors = list(errors)  # one a call; the last one for ever
        self.calls: list[list[bytes]] = []
        self.attempts = 0

    def _call(self, packets: Sequence[bytes]) -> int:
        self.attempts += 1
        code = self.errors[0] if len(self.errors) == 1 else self.errors.pop(0)
        if code:
            raise OSError(code, "as told")
        self.calls.append(list(packets))
        return sum(map(len, packets))

    def sendto(self, data: bytes, *_: Any) -> int:  # type: ignore[override]
        return self._call([data])

    def sendmsg(self, buffers: Sequence[bytes], *_: Any) -> int:  # type: ignore[override]
        return self._call(buffers)


@linux
@on_both_loops
async def test_packets_that_wait_are_read_together_again(ends: Ends) -> None:
    pump, received = ends.pump()
    peer = ends.socket()
    received.on_batch = lambda: pump.send([b"answer"], peer.getsockname())
    for number in range(1, 4):
        peer.sendto(b"alone", pump.local_address)
        await received.count(number)
    assert received.batches == [1, 2, 3]
    # These are sent while the last one is answered.
    received.on_packet = lambda packet: (
        [peer.sendto(b"behind", pump.local_address) for _ in range(4)]
        if packet == b"last alone"
        else None
    )
    peer.sendto(b"last alone", pump.local_address)
    await received.count(8)
    # The first one shows that packets wait.
    assert received.batches == [1, 2, 3, 4, 5, 8]


@on_both_loops
async def test_a_batch_is_handed_up_at_once_and_then_answered(ends: Ends) -> None:
    pump, received = ends.pump()
    peer = ends.socket()
    received.on_batch = lambda: [
        pump.send([packet], address)
        for packet, address in zip(received.packets, received.addresses, strict=True)
    ]
    for index in range(10):
        peer.sendto(b"%d" % index, pump.local_address)
    await received.count(10)
    assert received.packets == [b"%d" % index for index in range(10)]
    assert received.batches == [10]
    assert set(received.addresses) == {peer.getsockname()}
    assert [peer.recv(100) for _ in range(10)] == received.packets
    assert (pump.received_packets, pump.receive_batches) == (10, 1)
    assert (pump.sent_packets, pump.dropped_packets, pump.errors) == (10, 0, 0)


@on_both_loops
async def test_a_turn_is_bounded_and_others_get_theirs(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    pump, received = ends.pump(batch=8)
    peer = ends.socket()
    turns: list[int] = []
    received.on_batch = lambda: loop.call_soon(turns.append, len(received.packets))
    for _ in range(20):
        peer.sendto(b"x", pump.local_address)
    await received.count(20)
    await turn()
    assert received.batches == [8, 16, 20]
    assert turns[:2] == [8, 16]


@linux
@on_both_loops
async def test_segments_count_towards_the_bound(ends: Ends) -> None:
    pump, received = ends.pump(batch=8)
    sender, _ = ends.pump()
    for _ in range(3):
        sender.send([b"x" * 100] * 6, pump.local_address)
    await received.count(18)
    assert received.batches == [12, 18]


@on_both_loops
async def test_what_comes_while_a_batch_is_worked_on_is_the_next_batch(ends: Ends) -> None:
    pump, received = ends.pump()
    peer = ends.socket()
    received.on_packet = lambda packet: (
        packet == b"first" and peer.sendto(b"second", pump.local_address)
    )
    peer.sendto(b"first", pump.local_address)
    await received.count(2)
    assert received.batches == [1, 2]


@linux
@on_both_loops
async def test_an_arrival_is_the_kernels_and_not_the_loops(ends: Ends) -> None:
    sock = bind_udp("127.0.0.1", 0)
    pump, received = ends.pump(sock)
    assert pump.kernel_timestamps
    peer = ends.socket()
    sent = queued = read = 0

    def on_packet(packet: bytes) -> None:
        nonlocal sent, queued, read
        if packet == b"block":
            sent = time.monotonic_ns()
            peer.sendto(b"measured", pump.local_address)
            # A busy kernel may take a while until it has stamped it.
            assert select.select([sock], [], [], 60)[0]
            queued = time.monotonic_ns()
            while time.monotonic_ns() < queued + 10_000_000:
                pass
            read = time.monotonic_ns()

    received.on_packet = on_packet
    peer.sendto(b"block", pump.local_address)
    await received.count(2)
    assert received.packets == [b"block", b"measured"]
    tolerance = ArrivalClock.TOLERANCE
    assert sent - tolerance <= received.arrivals[1] <= queued + tolerance < read


@linux
@on_both_loops
async def test_a_joined_message_is_split(ends: Ends) -> None:
    pump, received = ends.pump()
    sender, _ = ends.pump()
    assert (pump.gro, sender.gso) == (True, True)
    packets = [bytes([index]) * 1201 for index in range(40)] + [b"last, shorter"]
    sent_at = sender.send(packets, pump.local_address)
    await received.count(41)
    assert received.packets == packets
    assert received.batches == [41]
    assert len(set(received.arrivals)) == 1  # one message of the kernel's
    assert sent_at - ArrivalClock.TOLERANCE <= received.arrivals[0] < time.monotonic_ns()
    assert (sender.sent_packets, pump.received_packets) == (41, 41)


LENGTHS = [[1], [65_507], [1200] * 130, [1200] * 64 + [7], [1200, 1200, 7, 9, 9, 9], [7, 8, 9]]


@pytest.mark.parametrize("sizes", LENGTHS, ids=str)
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("gso", [False, True])
@on_both_loops
async def test_what_is_sent_is_what_arrives(
    ends: Ends, sizes: list[int], connected: bool, gso: bool
) -> None:
    pump, received = ends.pump()
    sock = bind_udp("127.0.0.1", 0)
    if connected:
        sock.connect(pump.local_address)
    sender, _ = ends.pump(sock)
    sender.gso = sender.gso and gso
    packets = [bytes([index]) * size for index, size in enumerate(sizes)]
    before = time.monotonic_ns()
    assert before <= sender.send(packets, pump.local_address) <= time.monotonic_ns()
    await received.count(len(packets))
    assert received.packets == packets
    assert set(received.addresses) == {sender.local_address}
    assert (sender.sent_packets, sender.queued_packets) == (len(packets), 0)


@on_both_loops
async def test_without_the_kernels_help(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "another")
    pump, received = ends.pump()
    assert (pump.kernel_timestamps, pump.gro, pump.gso) == (False, False, False)
    before = time.monotonic_ns()
    pump.send([b"x" * 100] * 3, pump.local_address)
    await received.count(3)
    assert received.packets == [b"x" * 100] * 3
    assert len(set(received.arrivals)) == 1
    assert before <= received.arrivals[0] <= time.monotonic_ns()


def refuse(sock: socket.socket) -> Address:
    """Connect `sock` elsewhere: the port stays its own, and what others send there is refused."""
    sock.connect(("127.0.0.1", 9))
    address: Address = sock.getsockname()
    return address


@on_both_loops
async def test_life_goes_on_after_a_refusal(ends: Ends) -> None:
    peer = ends.socket()
    address = refuse(peer)
    sock = bind_udp("127.0.0.1", 0)
    sock.connect(address)
    pump, received = ends.pump(sock)
    for count in range(1, 4):
        pump.send([b"to nobody"], address)
        await received.until(lambda count=count: pump.errors >= count)  # type: ignore[misc]
    assert {exc.errno for exc in received.errors} == {errno.ECONNREFUSED}

    peer.connect(pump.local_address)
    for count in range(1, 4):
        assert pump.send([b"to somebody"], address) > 0
        assert peer.recv(100) == b"to somebody"
        peer.send(b"answer")
        await received.count(count)
    assert received.packets == [b"answer"] * 3
    assert pump.dropped_packets == 0


@pytest.mark.parametrize("packets", [[b"to somebody"], [b"to somebody"] * 2], ids=len)
@on_both_loops
async def test_an_earlier_packets_refusal_costs_no_later_packet(
    ends: Ends, packets: list[bytes]
) -> None:
    peer = ends.socket()
    address = refuse(peer)
    sock = bind_udp("127.0.0.1", 0)
    sock.connect(address)
    pump, received = ends.pump(sock)
    pump.send([b"to nobody"], address)
    peer.connect(pump.local_address)
    assert pump.send(packets, address) > 0
    assert len(received.errors) == 1
    assert [peer.recv(100) for _ in packets] == packets
    # The loop saw the error as well, and must still be watching.
    peer.send(b"answer")
    await received.count(1)
    assert pump.dropped_packets == 0


@on_both_loops
async def test_an_unconnected_socket_serves_others_after_a_refusal(ends: Ends) -> None:
    pump, received = ends.pump()
    pump.send([b"to nobody"], refuse(ends.socket()))
    peer = ends.socket()
    peer.sendto(b"x", pump.local_address)
    await received.count(1)
    assert pump.send([b"y"], received.addresses[0]) > 0
    assert peer.recv(100) == b"y"


@pytest.mark.parametrize("packets", [[b"x" * 65_508], [b"x" * 65_508] * 2], ids=len)
@on_both_loops
async def test_a_packet_that_is_too_large_is_dropped(ends: Ends, packets: list[bytes]) -> None:
    pump, received = ends.pump()
    assert pump.send([*packets, b"small"], pump.local_address) == 0
    assert [exc.errno for exc in received.errors] == [errno.EMSGSIZE] * len(packets)
    assert (pump.dropped_packets, pump.sent_packets) == (len(packets), 1)
    await received.count(1)
    assert received.packets == [b"small"]


@pytest.mark.parametrize(
    ("code", "attempts"),
    # What came by ICMP may have been another packet's.
    [(errno.EPERM, 1), (errno.EINVAL, 1), (errno.ECONNREFUSED, 2), (errno.ENETUNREACH, 2)],
)
@on_both_loops
async def test_a_refused_packet_is_dropped(ends: Ends, code: int, attempts: int) -> None:
    sock = RefusingSocket(code)
    pump, received = ends.pump(sock)
    assert pump.send([b"x"], ("127.0.0.1", 9)) == 0
    assert [exc.errno for exc in received.errors] == [code] * attempts
    assert (sock.attempts, pump.errors, pump.dropped_packets) == (attempts, attempts, 1)


@linux
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.ENOPROTOOPT])
@on_both_loops
async def test_a_kernel_that_refuses_segmentation_isnt_asked_again(ends: Ends, code: int) -> None:
    sock = RefusingSocket(code, 0)
    pump, received = ends.pump(sock)
    assert pump.gso
    assert pump.send([b"a", b"b", b"c"], ("127.0.0.1", 9)) > 0
    assert sock.calls == [[b"a"], [b"b"], [b"c"]]
    assert not pump.gso
    pump.send([b"d", b"e"], ("127.0.0.1", 9))
    assert sock.calls[3:] == [[b"d"], [b"e"]]
    assert (sock.attempts, pump.sent_packets, pump.errors) == (6, 5, 0)
    assert received.errors == []


@linux
@on_both_loops
async def test_an_address_that_is_refused_says_nothing_of_segmentation(ends: Ends) -> None:
    pump, received = ends.pump()
    # Port 0 is EINVAL, together or one by one; a forged sender could have it.
    assert pump.send([b"a", b"b"], ("127.0.0.1", 0)) == 0
    assert [exc.errno for exc in received.errors] == [errno.EINVAL] * 2
    assert (pump.gso, pump.dropped_packets) == (True, 2)


@on_both_loops
async def test_a_full_socket_is_written_to_when_it_has_room(ends: Ends) -> None:
    sock = RefusingSocket(errno.EAGAIN, errno.EAGAIN, 0)
    pump, received = ends.pump(sock)
    assert pump.send([b"a"], ("127.0.0.1", 9)) == 0
    assert pump.send([b"b", b"b", b"c"], ("127.0.0.1", 9)) == 0  # not before the others
    assert pump.queued_packets == 4
    while pump.queued_packets:
        await turn()
    assert [packet for call in sock.calls for packet in call] == [b"a", b"b", b"b", b"c"]
    assert (pump.sent_packets, pump.dropped_packets, pump.errors) == (4, 0, 0)
    attempts = sock.attempts
    for _ in range(3):
        await turn()
    assert sock.attempts == attempts
    assert pump.send([b"d"], ("127.0.0.1", 9)) > 0
    assert received.errors == []


@on_both_loops
async def test_a_lack_of_buffers_is_waited_for_without_spinning(ends: Ends) -> None:
    sock = RefusingSocket(errno.ENOBUFS)
    pump, _ = ends.pump(sock)
    assert pump.send([b"a"], ("127.0.0.1", 9)) == 0
    started = time.monotonic()
    first = sock.attempts
    for _ in range(1_000):
        await turn()
    # At most one attempt a millisecond, not one a turn.
    assert sock.attempts - first <= (time.monotonic() - started) * 1_000 + 1
    sock.errors = [0]
    while pump.queued_packets:
        await turn()
    assert sock.calls == [[b"a"]]


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS])
@on_both_loops
async def test_a_queue_that_never_empties_doesnt_grow(ends: Ends, code: int) -> None:
    sock = RefusingSocket(code)
    pump, _ = ends.pump(sock, max_queued=10)
    for index in range(100):
        assert pump.send([b"%d" % index] * 3, ("127.0.0.1", 9)) == 0
        assert pump.queued_packets <= 10
    queued = pump.queued_packets
    assert queued >= 8
    assert pump.dropped_packets == 300 - queued
    sock.errors = [0]
    while pump.queued_packets:
        await turn()
    assert sock.calls[-1][-1] == b"99"  # the youngest are kept
    assert pump.sent_packets == queued


@on_both_loops
async def test_an_exception_in_a_callback_costs_nobody_else(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: seen.append(context))
    pump, received = ends.pump()
    peer = ends.socket()
    bad = ValueError("a bug")

    def raises(*_: object) -> None:
        raise bad

    received.on_packet = lambda packet: raises() if packet == b"bad" else None
    received.on_batch = raises
    received.on_error = raises
    for packet in (b"good", b"bad", b"good"):
        peer.sendto(packet, pump.local_address)
    await received.count(3)
    assert received.packets == [b"good", b"bad", b"good"]
    assert [context["exception"] for context in seen] == [bad, bad]
    pump.send([b"x" * 65_508], pump.local_address)
    assert pump.callback_errors == len(seen) == 3
    peer.sendto(b"still there", pump.local_address)
    await received.count(4)


@on_both_loops
async def test_close_is_idempotent_and_final(ends: Ends) -> None:
    sock = RefusingSocket(errno.EAGAIN)
    pump, received = ends.pump(sock)
    pump.send([b"a", b"b"], ("127.0.0.1", 9))
    ends.socket().sendto(b"x", pump.local_address)
    pump.close()
    pump.close()
    assert sock.fileno() == -1
    assert pump.send([b"c"], ("127.0.0.1", 9)) == 0
    for _ in range(3):
        await turn()
    assert received.packets == []
    assert (pump.queued_packets, pump.dropped_packets) == (0, 3)


@on_both_loops
async def test_closing_amid_a_batch_ends_it(ends: Ends) -> None:
    pump, received = ends.pump()
    peer = ends.socket()
    received.on_packet = lambda _: pump.close()
    for _ in range(3):
        peer.sendto(b"x", pump.local_address)
    while not received.packets:
        await turn()
    assert (received.packets, received.batches) == ([b"x"], [])


@pytest.mark.parametrize("errors", [[errno.EPERM], [errno.EAGAIN, errno.EPERM]], ids=str)
@on_both_loops
async def test_closing_when_reported_of_an_error(ends: Ends, errors: list[int]) -> None:
    pump, received = ends.pump(RefusingSocket(*errors))
    received.on_error = lambda _: pump.close()
    pump.send([b"a", b"bb", b"ccc"], ("127.0.0.1", 9))
    await received.until(lambda: len(received.errors) > 0)
    await turn()
    assert len(received.errors) == 1
    assert (pump.sent_packets, pump.dropped_packets, pump.queued_packets) == (0, 3, 0)
