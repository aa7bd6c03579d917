"""The filter in the kernel, with real sockets; and the group that it picks from."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pingpong.webtransport.quic.connection_ids import MAX_WORKERS, ConnectionIds, worker_of
from pingpong.webtransport.udp import steering
from pingpong.webtransport.udp.sockets import bind_udp
from pingpong.webtransport.udp.steering import bind_group, filter_program, steer

WORKERS = 5


@contextlib.contextmanager
def group(workers: int, host: str = "127.0.0.1", port: int = 0) -> Iterator[list[socket.socket]]:
    sockets = bind_group(host, port, workers)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def receive(sockets: Sequence[socket.socket]) -> list[list[bytes]]:
    """What has come to each of them."""
    received: list[list[bytes]] = []
    for sock in sockets:
        received.append([])
        with contextlib.suppress(BlockingIOError):
            while True:
                received[-1].append(sock.recv(2_000))
    return received


def long_packet(connection_id: bytes) -> bytes:
    head = b"\xc3\0\0\0\x01" + bytes((len(connection_id),)) + connection_id
    return (head + b"\x08" + os.urandom(8)).ljust(1_200, b"\0")


def short_packet(connection_id: bytes) -> bytes:
    return b"\x41" + connection_id + os.urandom(20)


@pytest.mark.parametrize("workers", [2, 3, WORKERS, MAX_WORKERS])
def test_kernel_picks_the_worker_that_the_first_byte_of_the_id_names(workers: int) -> None:
    with group(workers) as sockets, bind_udp("127.0.0.1", 0) as client:
        assert steer(sockets)
        for first in range(256):
            connection_id = bytes((first,)) + os.urandom(7)
            for packet in (long_packet(connection_id), short_packet(connection_id)):
                client.sendto(packet, sockets[0].getsockname())
            received = receive(sockets)
            assert list(map(len, received)) == [
                2 * (index == first % workers) for index in range(workers)
            ]


def test_ids_of_a_worker_lead_to_its_socket_whatever_address_they_come_from() -> None:
    with group(WORKERS) as sockets, contextlib.ExitStack() as stack:
        assert steer(sockets)
        clients = [stack.enter_context(bind_udp("127.0.0.1", 0)) for _ in range(10)]
        for worker in range(WORKERS):
            ids = ConnectionIds(b"key", worker, WORKERS)
            for client in clients:
                client.sendto(short_packet(ids.make()), sockets[0].getsockname())
            assert list(map(len, receive(sockets))) == [
                10 * (index == worker) for index in range(WORKERS)
            ]


@settings(max_examples=300)
@given(
    packets=st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.builds(lambda head, rest: bytes((head,)) + rest, st.integers(0, 255), st.binary()),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_kernel_and_worker_of_agree_on_any_packet(packets: list[bytes]) -> None:
    with steered_group() as (sockets, client):
        for packet in packets:
            client.sendto(packet, sockets[0].getsockname())
        received = receive(sockets)
        assert sorted(packets) == sorted(packet for each in received for packet in each)
        for worker, each in enumerate(received):
            assert [worker_of(packet, WORKERS) for packet in each] == [worker] * len(each)


@contextlib.contextmanager
def steered_group() -> Iterator[tuple[list[socket.socket], socket.socket]]:
    with group(WORKERS) as sockets, bind_udp("127.0.0.1", 0) as client:
        assert steer(sockets)
        yield sockets, client


@pytest.mark.parametrize("packet", [b"", b"\x40", b"\xc0", b"\xc0\0\0\0\x01\x08"])
def test_packets_too_short_to_have_an_id_go_to_the_first(packet: bytes) -> None:
    with steered_group() as (sockets, client):
        client.sendto(packet, sockets[0].getsockname())
        assert list(map(len, receive(sockets))) == [1, 0, 0, 0, 0]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_filter_is_for_both_families_of_a_dual_stack_port() -> None:
    with (
        group(WORKERS, "::") as sockets,
        bind_udp("127.0.0.1", 0) as over_4,
        bind_udp("::1", 0) as over_6,
    ):
        assert steer(sockets)
        port = sockets[0].getsockname()[1]
        for first in range(20):
            packet = short_packet(bytes((first,)) + bytes(7))
            over_4.sendto(packet, ("127.0.0.1", port))
            over_6.sendto(packet, ("::1", port))
            assert [len(each) // 2 for each in receive(sockets)] == [
                int(index == first % WORKERS) for index in range(WORKERS)
            ]


def test_packets_wait_while_nobody_of_several_who_have_the_socket_reads() -> None:
    """As when a worker is replaced: its socket is the same, and the order of all stays."""
    with steered_group() as (sockets, client):
        copies = [sock.dup() for sock in sockets]
        for copy in copies:
            copy.close()
        for first in range(WORKERS):
            client.sendto(short_packet(bytes((first,)) + bytes(7)), sockets[0].getsockname())
        received = receive(sockets)
        assert [each[0][1] for each in received] == [0, 1, 2, 3, 4]


def test_without_the_filter_the_kernel_picks_by_addresses() -> None:
    """Else the tests above show nothing."""
    with group(WORKERS) as sockets, bind_udp("127.0.0.1", 0) as client:
        for first in range(64):
            client.sendto(short_packet(bytes((first,)) + bytes(7)), sockets[0].getsockname())
        assert sorted(map(len, receive(sockets))) == [0, 0, 0, 0, 64]


def test_kernel_that_refuses_is_reported_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with group(2) as sockets:
        # A program that jumps beyond its end is refused, as all are where there is no filter.
        program = filter_program(2)
        monkeypatch.setattr(steering, "filter_program", lambda workers: program[:-1])
        assert not steer(sockets)
        monkeypatch.undo()
        assert steer(sockets)


# The group.


def test_all_sockets_of_a_group_have_one_port() -> None:
    with group(4) as sockets:
        assert len({sock.getsockname() for sock in sockets}) == 1
        assert all(sock.gettimeout() == 0 for sock in sockets)


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_port_that_another_group_has_is_in_use(host: str) -> None:
    """SO_REUSEPORT by itself would let it join, and take packets away."""
    with group(2, host) as sockets:
        port = sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="in use") as raised, group(2, host, port):
            pass
        assert raised.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match="in use"):
            bind_udp(host, port)


def test_port_is_free_again_when_the_group_is_closed() -> None:
    with group(2) as sockets:
        port = sockets[0].getsockname()[1]
    with group(3, port=port) as sockets:
        assert sockets[2].getsockname()[1] == port


@pytest.mark.parametrize("workers", [0, -1, MAX_WORKERS + 1])
def test_group_has_a_size_that_can_be_reported_apart(workers: int) -> None:
    with pytest.raises(ValueError, match=f"{workers} workers: it must be 1 to {MAX_WORKERS}"):
        bind_group("127.0.0.1", 0, workers)
