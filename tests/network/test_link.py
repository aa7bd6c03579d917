"""The link does what it is told, and its records are the truth: seen by plain UDP sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest

from tests.support.network.link import (
    CLIENT,
    CLIENT6,
    OTHER,
    OTHER6,
    SERVER,
    SERVER6,
    Direction,
    Impairment,
    Link,
    Verdict,
)
from tests.support.network.packets import UDP
from tests.support.network.records import Record
from tests.support.running import wait_until

pytestmark = pytest.mark.network

PORT = 4433
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24

families = pytest.mark.parametrize(
    ("client_address", "server_address"), [(CLIENT, SERVER), (CLIENT6, SERVER6)], ids=["4", "6"]
)


class Arrival(NamedTuple):
    number: int
    source: tuple[str, int]
    at: int
    """By the kernel, on the clock of time.monotonic_ns()."""


class Receiver:
    """Notes what comes to a socket, and answers it where it is to."""

    def __init__(self, sock: socket.socket, *, echo: bool = False) -> None:
        self.arrivals: list[Arrival] = []
        self.errors: list[int | None] = []
        """What ICMP messages said, by the numbers of errno."""
        self._sock = sock
        self._echo = echo
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        sock.settimeout(0.05)
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def numbers(self) -> list[int]:
        return [arrival.number for arrival in self.arrivals]

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self._sock.close()

    def _run(self) -> None:
        offset = min(time.time_ns() - time.monotonic_ns() for _ in range(100))
        while not self._over:
            try:
                data, ancillary, _, source = self._sock.recvmsg(2048, 256)
            except TimeoutError:
                continue
            except OSError as error:
                self.errors.append(error.errno)
                continue
            seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
            at = seconds * 1_000_000_000 + nanoseconds - offset
            self.arrivals.append(Arrival(struct.unpack_from("!I", data)[0], source[:2], at))
            if self._echo:
                with contextlib.suppress(OSError):
                    self._sock.sendto(data, source)


class Hosts:
    """A socket at each end; the server's echoes."""

    def __init__(self, link: Link, client: str = CLIENT, server: str = SERVER) -> None:
        self._link = link
        self.socket = link.client.udp_socket(client)
        self.socket.connect((server, PORT))
        self.server = Receiver(link.server.udp_socket(server, PORT), echo=True)
        self.client = Receiver(self.socket)

    def send(self, count: int, *, interval: float = 0.0, size: int = 100) -> dict[int, int]:
        """Send numbered packets; when each was."""
        sent = {}
        begin = time.monotonic()
        for number in range(count):
            if (delay := begin + number * interval - time.monotonic()) > 0:
                time.sleep(delay)
            sent[number] = time.monotonic_ns()
            self.socket.send(struct.pack("!I", number).ljust(size, b"\0"))
        return sent

    def exchange(self, count: int, *, interval: float = 0.0, size: int = 100) -> list[Record]:
        """Send, and wait until all of it is over, answers included: the records of that."""
        known, seen = len(self._link.settle()), len(self.client.arrivals)

        def originals(direction: Direction) -> int:
            records = self._link.settle()[known:]
            return sum(r.direction is direction and not r.is_copy for r in records)

        def delivered(direction: Direction) -> int:
            return len(of(self._link.settle()[known:], direction, Verdict.DELIVERED))

        self.send(count, interval=interval, size=size)
        wait_until(lambda: originals(Direction.OUT) == count, "all were sent")
        wait_until(
            lambda: originals(Direction.BACK) == delivered(Direction.OUT), "all were answered"
        )
        wait_until(
            lambda: len(self.client.arrivals) - seen == delivered(Direction.BACK),
            "the answers arrived",
        )
        return self._link.settle()[known:]

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def hosts(link: Link) -> Iterator[Hosts]:
    with contextlib.closing(Hosts(link)) as hosts:
        yield hosts


def of(records: list[Record], direction: Direction, verdict: Verdict | None = None) -> list[Record]:
    return [
        r for r in records if r.direction is direction and (verdict is None or r.verdict is verdict)
    ]


# Packets.


@families
def test_packets_go_there_and_back_in_order(
    link: Link, client_address: str, server_address: str
) -> None:
    with contextlib.closing(Hosts(link, client_address, server_address)) as hosts:
        records = hosts.exchange(200)
        own = hosts.socket.getsockname()[:2]
        assert hosts.server.numbers == list(range(200))
        assert hosts.client.numbers == list(range(200))
        assert {arrival.source for arrival in hosts.server.arrivals} == {own}
        for direction, source, destination in (
            (Direction.OUT, own[1], PORT),
            (Direction.BACK, PORT, own[1]),
        ):
            found = of(records, direction)
            assert len(found) == 200
            headers = 28 if client_address == CLIENT else 48
            assert {r[2:8] for r in found} == {
                (Verdict.DELIVERED, False, UDP, 100 + headers, source, destination)
            }


def test_nothing_but_what_the_hosts_send_is_on_the_link(link: Link) -> None:
    time.sleep(0.3)
    assert link.settle() == []


# Impairments, and what the records say of them.


def test_packets_arrive_after_the_delay(link: Link, hosts: Hosts) -> None:
    link.impair(out=Impairment(delay=0.03))
    sent = hosts.send(100, interval=0.005)
    wait_until(lambda: len(hosts.server.arrivals) == 100, "all arrive")
    took = [(arrival.at - sent[arrival.number]) / 1e9 for arrival in hosts.server.arrivals]
    # On a busy machine the sender, or the link, may be late; it is not each time.
    assert min(took) == pytest.approx(0.0302, abs=0.0002)
    records = of(link.settle(), Direction.OUT)
    assert {r.due - r.received for r in records} == {30_000_000}


def test_the_records_times_are_those_of_the_receiving_kernel(link: Link, hosts: Hosts) -> None:
    link.impair(Impairment(delay=0.02, jitter=0.01))
    records = of(hosts.exchange(200, interval=0.005), Direction.OUT)
    arrivals = {arrival.number: arrival.at for arrival in hosts.server.arrivals}
    # Sent in the order of their numbers, and so received by the link in this order.
    apart = [arrivals[number] - record.sent for number, record in enumerate(records)]
    assert statistics.median(apart) == pytest.approx(0, abs=50_000)
    late = [record.sent - record.due for record in records]
    assert min(late) >= 0
    assert statistics.median(late) < 100_000


@pytest.mark.parametrize("keep_order", [True, False])
def test_jitter_reorders_unless_told_not_to(link: Link, hosts: Hosts, keep_order: bool) -> None:
    link.impair(out=Impairment(delay=0.02, jitter=0.01, keep_order=keep_order))
    records = of(hosts.exchange(160, interval=0.002), Direction.OUT)
    assert (hosts.server.numbers == sorted(hosts.server.numbers)) is keep_order
    assert sorted(hosts.server.numbers) == list(range(160))
    delays = [record.delay for record in records]
    assert min(delays) >= 0.01
    if not keep_order:
        assert statistics.mean(delays) == pytest.approx(0.02, abs=0.001)
        assert statistics.pstdev(delays) == pytest.approx(0.01 / 3**0.5, abs=0.001)


@pytest.mark.parametrize("direction", list(Direction))
def test_packets_are_lost_in_the_direction_that_is_told(
    link: Link, hosts: Hosts, direction: Direction
) -> None:
    loss = Impairment(loss=0.1)
    link.impair(**{direction.name.lower(): loss})
    records = hosts.exchange(1000, interval=0.0005)
    lost = of(records, direction, Verdict.LOST)
    assert 60 <= len(lost) <= 140  # 4 standard deviations
    assert [r for r in records if r.verdict is Verdict.LOST] == lost
    receiver = hosts.server if direction is Direction.OUT else hosts.client
    came = of(records, direction)
    assert receiver.numbers == [
        number for number, r in enumerate(came) if r.verdict is Verdict.DELIVERED
    ]


def test_copies_are_those_that_the_records_have(link: Link, hosts: Hosts) -> None:
    link.impair(out=Impairment(duplicate=0.1))
    records = of(hosts.exchange(500, interval=0.0005), Direction.OUT)
    copied = [number for number in hosts.server.numbers if hosts.server.numbers.count(number) == 2]
    assert len(copied) == 2 * sum(r.is_copy for r in records)
    assert 25 <= len(copied) // 2 <= 80
    assert hosts.server.numbers == sorted([*range(500), *copied[::2]])


def test_held_back_packets_are_overtaken(link: Link, hosts: Hosts) -> None:
    link.impair(out=Impairment(delay=0.01, reorder=0.0625, hold=0.02))
    hosts.exchange(160, interval=0.004)
    came = hosts.server.numbers
    highest, overtaken = -1, []
    for number in came:
        if number < highest:
            overtaken.append(number)
        highest = max(highest, number)
    # One of each 16; the last may find nobody to overtake it.
    assert 8 <= len(overtaken) <= 10


def test_a_rate_limit_spaces_packets_and_drops_what_its_queue_cannot_hold(
    link: Link, hosts: Hosts
) -> None:
    link.impair(out=Impairment(rate=1e6, burst=0, queue=20_000))
    hosts.send(100, size=972)  # 1000 with IP's and UDP's headers: 8 ms each
    wait_until(lambda: len(of(link.settle(), Direction.OUT)) == 100, "all are decided on")
    records = of(link.settle(), Direction.OUT)
    delivered = of(records, Direction.OUT, Verdict.DELIVERED)
    dropped = of(records, Direction.OUT, Verdict.OVERFLOWED)
    assert len(delivered) >= 20
    assert dropped
    assert len(delivered) + len(dropped) == 100
    # A sender that is held up in between leaves the queue time to empty.
    apart = [(b.due - max(a.due, b.received)) / 1e6 for a, b in pairwise(delivered)]
    assert apart == pytest.approx([8] * len(apart), abs=0.001)
    assert max(each.due - each.received for each in delivered) <= 160_000_000
    for each in dropped:
        busy_until = max(other.due for other in delivered if other.number < each.number)
        assert busy_until - each.received > 152_000_000
    arrivals = hosts.server.arrivals
    wait_until(lambda: len(arrivals) == len(delivered), "they arrive")
    took = arrivals[-1].at - arrivals[0].at
    assert took == pytest.approx(delivered[-1].sent - delivered[0].sent, abs=2_000_000)


def test_nothing_gets_through_a_blackhole_until_it_is_healed(link: Link, hosts: Hosts) -> None:
    link.impair(Impairment(delay=0.01))
    link.blackhole()
    hosts.send(10)
    wait_until(lambda: len(link.settle()) == 10, "the packets came to the link")
    healed_at = link.heal()
    hosts.exchange(10)
    assert len(hosts.client.arrivals) == 10
    for record in link.records():
        expected = record.received > healed_at * 1e9
        assert (record.verdict is Verdict.DELIVERED) is expected
        assert not expected or record.delay > 0.01
    assert len(of(link.records(), Direction.OUT, Verdict.BLACKHOLED)) == 10


def test_a_change_leaves_the_other_direction_alone(link: Link, hosts: Hosts) -> None:
    link.impair(out=Impairment(delay=0.01))
    link.impair(back=Impairment(delay=0.03))
    records = hosts.exchange(5)
    assert {r.due - r.received for r in of(records, Direction.OUT)} == {10_000_000}
    assert {r.due - r.received for r in of(records, Direction.BACK)} == {30_000_000}


@pytest.mark.parametrize(
    ("client_address", "server_address", "other"),
    [(CLIENT, SERVER, OTHER), (CLIENT6, SERVER6, OTHER6)],
    ids=["4", "6"],
)
def test_a_rebound_client_comes_from_elsewhere_and_hears_answers(
    link: Link, client_address: str, server_address: str, other: str
) -> None:
    with contextlib.closing(Hosts(link, client_address, server_address)) as hosts:
        hosts.exchange(1)
        link.rebind(other)
        hosts.exchange(3)
        before, *after = [arrival.source for arrival in hosts.server.arrivals]
        assert before == hosts.socket.getsockname()[:2]
        assert {source[0] for source in after} == {other}
        assert len(set(after)) == 1
        assert after[0][1] != before[1]
        assert hosts.client.numbers == [0, 0, 1, 2]


def test_what_is_sent_to_where_the_client_was_finds_nobody(link: Link, hosts: Hosts) -> None:
    link.impair(back=Impairment(delay=0.05))
    hosts.send(1)
    wait_until(lambda: bool(hosts.server.arrivals), "it arrived")
    wait_until(lambda: len(link.settle()) == 2, "it was answered")
    link.rebind(OTHER)
    with link.server.udp_socket(SERVER) as sock:
        sock.sendto(b"late", hosts.socket.getsockname())
    wait_until(lambda: len(link.settle()) == 3, "the packet came to the link")
    assert link.records()[-1].verdict is Verdict.UNMAPPED


@families
def test_a_sender_is_told_of_the_links_mtu(
    link: Link, client_address: str, server_address: str
) -> None:
    link.impair(Impairment(mtu=1280))
    is_ipv4 = client_address == CLIENT
    level = socket.IPPROTO_IP if is_ipv4 else socket.IPPROTO_IPV6
    discover, mtu = (IP_MTU_DISCOVER, IP_MTU) if is_ipv4 else (IPV6_MTU_DISCOVER, IPV6_MTU)
    with contextlib.closing(Hosts(link, client_address, server_address)) as hosts:
        hosts.socket.setsockopt(level, discover, IP_PMTUDISC_DO)
        assert hosts.socket.getsockopt(level, mtu) == 1500
        hosts.send(1, size=1300)
        wait_until(lambda: hosts.client.errors == [errno.EMSGSIZE], "the sender is told")
        assert hosts.socket.getsockopt(level, mtu) == 1280
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            hosts.socket.send(bytes(1300))
        assert [r.verdict for r in link.settle()] == [Verdict.TOO_BIG]
        assert hosts.exchange(1, size=1200)[-1].verdict is Verdict.DELIVERED


def test_a_silent_link_tells_nobody_of_its_mtu(link: Link, hosts: Hosts) -> None:
    link.impair(Impairment(mtu=1280, silent_mtu=True))
    hosts.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    hosts.send(2, size=1300)
    wait_until(lambda: len(link.settle()) == 2, "the packets came to the link")
    assert {r.verdict for r in link.records()} == {Verdict.TOO_BIG}
    assert hosts.socket.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1500


@pytest.mark.parametrize("link", [{"mtu": 1280}], indirect=True)
def test_an_end_can_have_a_small_mtu_itself(link: Link, hosts: Hosts) -> None:
    hosts.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        hosts.socket.send(bytes(1300))


def test_two_thousand_packets_a_second_are_on_time(link: Link, hosts: Hosts) -> None:
    link.impair(Impairment(delay=0.02, jitter=0.005))
    # There and back.
    records = hosts.exchange(2000, interval=0.001)
    assert len(records) == 4000
    assert {r.verdict for r in records} == {Verdict.DELIVERED}
    late = sorted(r.sent - r.due for r in records)
    assert late[2000] < 100_000
    assert late[3600] < 1_000_000


def test_ping_measures_what_the_records_say(link: Link) -> None:
    link.impair(Impairment(delay=0.02, jitter=0.005))
    words = ("ping", "-n", "-c", "48", "-i", "0.02", "-q", SERVER)
    done = subprocess.run(
        link.client.command(*words), capture_output=True, text=True, check=True, timeout=30
    )
    records = link.settle()
    out, back = (of(records, direction) for direction in Direction)
    truth = statistics.mean(r.delay for r in out) + statistics.mean(r.delay for r in back)
    average = float(done.stdout.rpartition("mdev = ")[2].split("/")[1])
    assert average == pytest.approx(truth * 1000, abs=0.4)
    assert [r.destination for r in out] == list(range(1, 49))  # ping's sequence numbers
