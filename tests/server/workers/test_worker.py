"""A worker in this process: what it admits, answers, tells of itself, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from pingpong.ping import PROTOCOL, encode_ping
from pingpong.server import ServeError, metrics
from pingpong.server.auth.access import Access
from pingpong.server.health import DRAIN, LIVENESS, READINESS, SELF_PING
from pingpong.server.workers import worker
from pingpong.server.workers.endpoint import endpoint_config, loopback
from pingpong.server.workers.group import share
from pingpong.server.workers.worker import SHUTTING_DOWN, PingServer, Worker
from pingpong.settings import ServeSettings
from pingpong.webtransport.asyncio import ConnectError, Session, connect
from tests.server.workers.groups import Client, certificate
from tests.support.certificates import Authority


def settings(**changes: object) -> ServeSettings:
    values = {"bind_host": "127.0.0.1", "bind_port": 0, "self_ping_interval": 0, **changes}
    return ServeSettings(**values)  # type: ignore[arg-type]


@asynccontextmanager
async def working(**changes: object) -> AsyncIterator[Worker]:
    one = Worker(settings(**changes), certificate())
    await one.start()
    try:
        yield one
    finally:
        await one.close()


async def session_of(one: Worker, path: str = "/ping", *protocols: str) -> Session:
    url = f"https://127.0.0.1:{one.port}{path}"
    return await connect(url, certificate_hash=certificate().sha256, protocols=protocols)


async def values(one: Worker) -> dict[str, object]:
    """All series that have numbers, by name and label values."""
    return {
        f"{sample.name}{''.join(f' {value}' for value in sample.labels.values())}": sample.value
        for metric in await one.families()
        for sample in metric.samples
    }


def test_endpoint_config() -> None:
    made = certificate()
    config = endpoint_config(
        settings(idle_timeout=3, max_connections=4, max_handshakes=5, max_streams=6), made
    )
    assert (config.idle_timeout, config.max_connections, config.max_handshakes) == (3, 4, 5)
    assert config.windows.streams_bidi == 6 + 16  # each session has a stream of its own
    assert config.certificate is made


HANDSHAKE = 91_000
"""Bytes that an unfinished handshake takes, measured."""


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("max_connections", [None, 1024, 10_000])
def test_handshakes_that_are_never_finished_have_little_memory(
    workers: int, max_connections: int | None
) -> None:
    parts = [
        share(settings(max_connections=max_connections), workers, index) for index in range(workers)
    ]
    configs = [endpoint_config(part, certificate(), workers) for part in parts]
    most = sum(config.max_validated_handshakes for config in configs)
    assert most >= 200
    assert most * HANDSHAKE < 64e6
    # Most connections are for those that finish theirs.
    assert all(config.max_validated_handshakes < config.max_connections for config in configs)
    assert all(config.max_handshakes < config.max_validated_handshakes for config in configs)


@pytest.mark.parametrize(
    ("max_handshakes", "max_connections", "expected"),
    [(100, 10_000, 512), (100, 600, 300), (100, 300, 200), (0, 10, 50), (1000, 10_000, 2000)],
)
def test_handshakes_of_clients_that_have_proved_their_address(
    max_handshakes: int, max_connections: int, expected: int
) -> None:
    asked = settings(max_handshakes=max_handshakes, max_connections=max_connections)
    assert endpoint_config(asked, certificate()).max_validated_handshakes == expected


@pytest.mark.parametrize(
    ("bound", "hosts"),
    [
        (("::", 1, 0, 0), ["::1", "127.0.0.1"]),
        (("0.0.0.0", 1), ["127.0.0.1"]),
        (("192.0.2.7", 1), ["192.0.2.7"]),
        (("2001:db8::1", 1, 0, 0), ["2001:db8::1"]),
    ],
)
def test_where_it_reaches_itself(bound: tuple[object, ...], hosts: list[str]) -> None:
    assert [address[0] for _, address in loopback(bound)] == hosts
    assert {address[1] for _, address in loopback(bound)} == {1}


async def test_limits_are_those_of_the_settings() -> None:
    async with working(max_message_size=40) as one, await session_of(one) as session:
        stream = await session.create_unidirectional_stream()
        await stream.close(b"ping" + bytes(36))
        answers = session.incoming_unidirectional_streams
        assert await (await answers.get()).read_all() == b"pong" + bytes(36)
        stream = await session.create_unidirectional_stream()
        await stream.close(b"ping" + bytes(37))
        session.datagrams.send(b"ping")
        assert await session.datagrams.receive() == b"pong"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (
            errno.EADDRINUSE,
            "UDP port 0 of 127.0.0.1 is in use: choose another port with --bind-port",
        ),
        (errno.EACCES, "is privileged: choose a port above 1023"),
        (
            errno.EADDRNOTAVAIL,
            r"Cannot assign requested address; see --bind-host \(PINGPONG_BIND_HOST\)",
        ),
    ],
)
async def test_why_it_cannot_listen(
    monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    def listen(*arguments: object, **options: object) -> None:
        raise OSError(number, "Cannot assign requested address")

    monkeypatch.setattr(worker, "listen", listen)
    one = Worker(settings(), certificate())
    with pytest.raises(ServeError, match=text):
        await one.start()
    await one.close()


# What it tells


async def test_every_metric_is_there_from_the_start_and_in_its_closed_labels() -> None:
    service_only = {
        metrics.CERTIFICATE_NOT_AFTER,
        metrics.CERTIFICATE_RELOAD_FAILED,
        metrics.BUILD_INFO,
    }
    async with working() as one:
        found = {metric.name: metric for metric in await one.families()}
    for spec in set(metrics.SPECS) - service_only:
        series = {
            tuple(value for label, value in sample.labels.items() if label != "le")
            for sample in found.pop(spec.metric([]).name).samples
        }
        assert series == set(itertools.product(*[values or () for values in spec.labels.values()]))
    assert not [name for name in found if name.startswith("pingpong")]


async def test_counts_what_clients_do() -> None:
    async with working(allowed_origins=("https://a.example",)) as one:
        async with await session_of(one, "/ping", PROTOCOL) as session:
            session.datagrams.send(encode_ping(1, 0))
            await session.datagrams.receive()
            found = await values(one)
            assert found["pingpong_server_sessions_active"] == 1
            assert found["pingpong_server_connections_active"] == 1
        with pytest.raises(ConnectError, match="404"):
            await session_of(one, "/nowhere")
        found = await values(one)
    assert found["pingpong_server_sessions_total accepted"] == 1
    assert found["pingpong_server_sessions_total path"] == 1
    assert found["pingpong_server_messages_received_total datagram"] == 1
    assert found["pingpong_server_messages_answered_total datagram"] == 1
    assert found["pingpong_server_handshakes_total completed"] == 2


async def test_is_ready_when_it_has_answered_itself() -> None:
    async with working(self_ping_interval=5) as one:
        assert not one.health().result(SELF_PING).ok
        async with asyncio.timeout(10):
            while not one.health().result(SELF_PING).ok:
                await asyncio.sleep(0.01)
        health = one.health()
        assert all(health.result(name).ok for name in (*LIVENESS, *READINESS))
        found = await values(one)
        # Its own pings are nobody's sessions and messages.
        assert found["pingpong_server_sessions_total accepted"] == 0
        assert found["pingpong_server_messages_received_total datagram"] == 0
        assert found["pingpong_server_self_pings_total"] == 1


async def test_self_ping_reaches_its_own_worker() -> None:
    options = {"bind_host": "::", "allowed_origins": ("https://a",)}
    async with asyncio.timeout(10), working(self_ping_interval=5, **options) as one:
        while not one.health().result(SELF_PING).ok:
            await asyncio.sleep(0.01)


async def test_a_new_certificate_is_for_new_handshakes() -> None:
    changed = Authority().issue("localhost")
    async with working(self_ping_interval=0.05) as one, await session_of(one) as session:
        one.use_certificate(changed)
        with pytest.raises(ConnectError, match="certificate"):
            await session_of(one)
        url = f"https://127.0.0.1:{one.port}/ping"
        async with await connect(url, certificate_hash=changed.sha256) as other:
            other.datagrams.send(b"ping")
            assert await other.datagrams.receive() == b"pong"
        session.datagrams.send(b"ping")
        assert await session.datagrams.receive() == b"pong"


# How it ends


async def test_drain_asks_waits_and_accepts_no_sessions() -> None:
    async with (
        working() as one,
        await session_of(one) as session,
        await session_of(one) as late,
    ):
        draining = asyncio.create_task(one.drain())
        await session.draining
        assert not one.health().result(DRAIN).ok
        assert one.health().result("event_loop").ok
        with pytest.raises(ConnectError, match="503"):
            await session_of(one)
        session.datagrams.send(b"ping")
        assert await session.datagrams.receive() == b"pong"
        session.close()
        await session.closed
        assert not draining.done()
        late.close()
        async with asyncio.timeout(5):
            await draining


async def test_drain_that_stays_ready_accepts_no_sessions() -> None:
    async with (
        working(drain_stay_ready=True, self_ping_interval=0.01) as one,
        await session_of(one) as session,
    ):
        draining = asyncio.create_task(one.drain())
        await session.draining
        # Its pings to itself are over, and soon too old to stand for anything.
        assert [one.health().result(name).ok for name in READINESS] == [True, True, True]
        assert "set to stay ready" in one.health().result(DRAIN).reason
        with pytest.raises(ConnectError, match="503"):
            await session_of(one)
        session.close()
        async with asyncio.timeout(5):
            await draining


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_drain_is_over_when_connections_go_not_only_sessions(how: str) -> None:
    async with working() as one:
        client = await Client.join(one.port)
        draining = asyncio.create_task(one.drain())
        await client.draining.wait()
        if how == "abort":
            client.connection.abort()
        else:
            client.connection.connection.close()
            client.connection.endpoint.flush()
        async with asyncio.timeout(5):
            await draining
        client.connection.abort()


async def test_a_drain_looks_at_each_connection_as_often_as_it_must() -> None:
    looks = 0

    class Leaving:
        closed = None

        def __init__(self) -> None:
            self.stays = True

        @property
        def has_connect_streams(self) -> bool:
            nonlocal looks
            looks += 1
            return self.stays

    chosen = settings()
    handler = PingServer(chosen, Access(chosen).admission)
    connections = [Leaving() for _ in range(200)]
    drained = asyncio.create_task(handler.wait_closed(cast("Any", connections)))
    for connection in reversed(connections):
        await asyncio.sleep(0)
        assert not drained.done()
        connection.stays = False
        handler.connect_streams_closed(cast("Any", connection))
    await drained
    assert looks <= 3 * len(connections)


async def test_a_certificate_that_comes_before_it_listens() -> None:
    one = Worker(settings(), certificate())
    changed = Authority().issue("localhost")
    one.use_certificate(changed)
    await one.start()
    url = f"https://127.0.0.1:{one.port}/ping"
    async with await connect(url, certificate_hash=changed.sha256):
        pass
    await one.close()


async def test_drain_ends_at_its_time_and_says_why() -> None:
    async with working(drain_timeout=0.05) as one:
        async with await session_of(one) as session:
            async with asyncio.timeout(5):
                await one.drain()
            closed = await session.closed
        assert (closed.code, closed.reason) == (0, SHUTTING_DOWN)


async def test_what_is_in_the_socket_at_the_end_is_answered() -> None:
    count = 100  # whose answers fit the first congestion window: at the end none waits for another
    async with working(drain_timeout=0.01) as one:
        client = await Client.join(one.port, protocols=[PROTOCOL])
        for seq in range(count):
            assert client.session.send_datagram(encode_ping(seq, 0))
            client.connection.endpoint.flush()
        # Nobody has had a turn: all of it waits in the kernel.
        draining = asyncio.create_task(one.drain())
        await client.ended
        await draining
        await client.leave()
        found = await values(one)
    assert found["pingpong_server_messages_received_total datagram"] == count
    assert found["pingpong_server_messages_answered_total datagram"] == count
    assert client.pongs.qsize() == count


async def test_closed_before_it_was_started() -> None:
    await Worker(settings(), certificate()).close()


async def test_the_port_is_free_again() -> None:
    async with working() as one:
        port = one.port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
