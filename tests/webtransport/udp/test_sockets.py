from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pingpong.webtransport.udp.pump import Pump
from pingpong.webtransport.udp.sockets import bind_udp, group_segments


@given(st.lists(st.integers(0, 3) | st.sampled_from([1200, 30_000, 65_507]), max_size=200))
def test_groups_are_what_the_kernel_can_segment(sizes: list[int]) -> None:
    packets = [
        index.to_bytes(2, "big") * (size // 2) + b"x" * (size % 2)
        for index, size in enumerate(sizes)
    ]
    groups = group_segments(packets)
    assert [packet for group in groups for packet in group] == packets
    for group in groups:
        assert 1 <= len(group) <= 64
        assert {len(packet) for packet in group[:-1]} <= {len(group[0])}
        assert len(group[-1]) <= len(group[0])
        assert sum(map(len, group)) <= 65_507
        assert len(group) == 1 or all(group)
    # No two neighbours could have been one.
    for group, following in itertools.pairwise(groups):
        joined = [*group, following[0]]
        assert (
            len(joined) > 64
            or sum(map(len, joined)) > 65_507
            or not all(joined)
            or len({len(packet) for packet in group}) > 1
            or len(following[0]) > len(group[0])
        )


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([], []),
        ([5], [1]),
        ([5, 5, 5], [3]),
        ([5, 5, 3], [3]),
        ([5, 3, 3], [2, 1]),
        ([3, 5, 5], [1, 2]),
        ([5, 3, 5, 3], [2, 2]),
        ([5, 0, 5], [1, 1, 1]),
        ([0, 0], [1, 1]),
        ([1] * 65, [64, 1]),
        ([1200] * 60, [54, 6]),
    ],
)
def test_groups(sizes: list[int], groups: list[int]) -> None:
    assert [len(group) for group in group_segments([bytes(size) for size in sizes])] == groups


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def socket_without_ipv6(family: int, *arguments: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *arguments)

    monkeypatch.setattr(socket, "socket", socket_without_ipv6)


@pytest.mark.usefixtures("no_ipv6")
@pytest.mark.parametrize("host", ["::", ""])
def test_any_address_without_ipv6(host: str) -> None:
    with bind_udp(host, 0) as sock:
        assert sock.family == socket.AF_INET
        assert sock.getsockname()[0] == "0.0.0.0"
        assert not sock.getblocking()


@pytest.mark.usefixtures("no_ipv6")
def test_a_given_ipv6_address_has_no_substitute() -> None:
    with pytest.raises(OSError, match="Address family not supported"):
        bind_udp("::1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_a_port_in_use_is_an_error(host: str) -> None:
    with bind_udp(host, 0) as first:
        with pytest.raises(OSError, match="in use") as caught:
            bind_udp(host, first.getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE
    gc.collect()  # a socket that was left open would warn now


def test_a_port_can_be_shared() -> None:
    with (
        bind_udp("127.0.0.1", 0, reuse_port=True) as first,
        bind_udp("127.0.0.1", first.getsockname()[1], reuse_port=True) as second,
    ):
        assert first.getsockname() == second.getsockname()


def test_a_name_without_an_address() -> None:
    with pytest.raises(socket.gaierror):
        bind_udp("256.0.0.1", 0)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::", ""])
def test_any_address_is_dual_stack(host: str) -> None:
    with (
        bind_udp(host, 0) as sock,
        bind_udp("127.0.0.1", 0) as over_4,
        bind_udp("::1", 0) as over_6,
    ):
        port = sock.getsockname()[1]
        for peer, address in ((over_4, "127.0.0.1"), (over_6, "::1")):
            peer.sendto(b"ping", (address, port))
            packet, sender = sock.recvfrom(100)
            assert packet == b"ping"
            sock.sendto(b"pong", sender)
            assert peer.recv(100) == b"pong"


def make_pump(receive: Callable[..., None] = lambda *_: None, **options: Any) -> Pump:
    return Pump(
        bind_udp("127.0.0.1", 0),
        asyncio.get_running_loop(),
        receive=receive,
        batch_received=lambda: None,
        **options,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an option of Linux")
async def test_what_the_kernel_dropped_is_counted() -> None:
    count = 2_000
    with (
        contextlib.closing(make_pump(receive_buffer=1)) as pump,  # what the system gives, no more
        bind_udp("127.0.0.1", 0) as peer,
    ):
        for _ in range(count):
            peer.sendto(b"x" * 1_000, pump.local_address)
        async with asyncio.timeout(20):
            # The kernel tells of its losses with the packets that follow them.
            while pump.overflowed_packets == 0:
                peer.sendto(b"x", pump.local_address)
                count += 1
                await asyncio.sleep(0)
        assert 0 < pump.overflowed_packets <= count - pump.received_packets


async def test_buffers_are_as_large_as_they_may_be() -> None:
    with (
        contextlib.closing(make_pump(receive_buffer=1, send_buffer=1)) as small,
        contextlib.closing(make_pump(receive_buffer=1 << 20)) as large,
    ):
        assert (small.receive_buffer.asked, large.receive_buffer.asked) == (1, 1 << 20)
        assert large.send_buffer.asked == 4 << 20
        # What the system gives anyway is never made smaller.
        assert 1 < small.receive_buffer.got <= large.receive_buffer.got
        assert 1 < small.send_buffer.got <= large.send_buffer.got
