"""Worker processes on one port: spread, moved, killed, frozen, drained, orphaned."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from pathlib import Path

import pytest

from pingpong.server import ServeError
from pingpong.server.health import DRAIN, EVENT_LOOP, SELF_PING, WORKERS
from pingpong.server.workers import group as group_module
from pingpong.server.workers.group import WorkerGroup, next_backoff
from pingpong.webtransport.asyncio import (
    Cause,
    ConnectError,
    EndpointConfig,
    Target,
    open_connection,
)
from pingpong.webtransport.quic.engine import RESET_REASON
from tests.server.workers.groups import (
    HOST,
    Client,
    certificate,
    environment_of,
    group,
    is_complete,
    replaced,
    settings,
    until,
    value,
    values,
)
from tests.support.certificates import Authority
from tests.support.processes import children, is_alive, sockets
from tests.webtransport.udp.groups import Nat

pytestmark = pytest.mark.process


@pytest.fixture(params=["kernel", "forwarder"])
def steering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who sees to it that packets reach their worker."""
    if request.param == "forwarder":
        monkeypatch.setattr(group_module, "steer", lambda sockets: False)
    return str(request.param)


@pytest.mark.parametrize("count", [4])
async def test_connections_spread_over_the_workers(count: int, steering: str) -> None:
    async with group(count) as server:
        clients = [await Client.join(server.port) for _ in range(20)]
        for number, client in enumerate(clients):
            assert await client.ping(number)
        assert await value(server, "connections_active") == 20
        assert (await values(server, "messages_answered_total"))[("datagram",)] == 20
        assert await value(server, "workers") == count
        assert await value(server, "worker_restarts_total") == 0
        for client in clients:
            await client.leave()


async def test_client_reaches_the_worker_of_its_choice(steering: str) -> None:
    async with group(3) as server:
        os.kill(server.pids[1], signal.SIGSTOP)
        for worker in (0, 2):
            client = await Client.join(server.port, (worker, 3))
            assert await client.ping()
            await client.leave()
        with pytest.raises(ConnectError):
            await Client.join(server.port, (1, 3), timeout=0.5)
        os.kill(server.pids[1], signal.SIGCONT)


@pytest.mark.parametrize("count", [2, 4])
async def test_client_whose_address_changes_keeps_its_session(count: int, steering: str) -> None:
    async with group(count) as server:
        nat = await Nat.open(server.port)
        client = await Client.join(nat.port)
        for number in range(10):
            await nat.rebind("127.0.0.2" if number % 3 == 2 else HOST)
            assert await client.ping(number)
        assert client.connection.closed is None
        assert await value(server, "connections_active") == 1
        await client.leave()
        nat.close()


async def test_worker_that_is_killed_is_replaced_and_only_its_clients_notice(
    steering: str,
) -> None:
    async with group(2) as server:
        victim, other = [await Client.join(server.port, (worker, 2)) for worker in (0, 1)]
        assert await victim.ping(1)
        answered = (await values(server, "messages_answered_total"))[("datagram",)]
        pid = server.pids[0]
        os.kill(pid, signal.SIGKILL)
        number = 0
        # A client that pings all the time hears of it with its first packet to the next worker.
        while not victim.ended.done():
            victim.send(1)
            number += 1
            # The other's packets come to its own worker, or are handed over by it alone.
            assert steering == "forwarder" or await other.ping(number)
            await asyncio.sleep(0.02)
        await replaced(server, 0, pid)
        assert victim.connection.closed is not None
        assert victim.connection.closed.reason == RESET_REASON
        assert await other.ping(number + 1)
        assert await value(server, "worker_restarts_total") == 1
        assert await value(server, "workers") == 2
        assert await value(server, "connections_active") == 1
        after = (await values(server, "messages_answered_total"))[("datagram",)]
        assert after >= answered + 1
        again = await Client.join(server.port, (0, 2))
        assert await again.ping()
        for client in (again, other, victim):
            await client.leave()


async def test_packets_that_come_while_a_worker_is_replaced_are_answered_by_the_next() -> None:
    async with group(2) as server:
        pid = server.pids[1]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_alive(pid))
        # Its first packet waits in the socket.
        client = await Client.join(server.port, (1, 2))
        assert await client.ping()
        await client.leave()


async def test_retry_token_of_a_worker_is_good_for_the_one_that_takes_its_place() -> None:
    async with group(2, max_handshakes=0) as server:
        nat = await Held.open(server.port)
        connecting = asyncio.create_task(Client.join(nat.port, (1, 2)))
        await until(lambda: nat.retries)
        pid = server.pids[1]
        os.kill(pid, signal.SIGKILL)
        await replaced(server, 1, pid)
        nat.let_go()
        client = await connecting
        assert await client.ping()
        assert await value(server, "retries_invalid_total") == 0
        await client.leave()
        nat.close()


class Held(Nat):
    """Keeps back what the client says after a Retry."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.retries = 0
        self._held: list[tuple[bytes, tuple[str, int]]] | None = None

    def from_server(self, data: bytes, address: tuple[str, int]) -> None:
        if data[0] & 0xF0 == 0xF0 and not self.retries:
            self.retries += 1
            self._held = []
        super().from_server(data, address)

    def from_client(self, data: bytes, address: tuple[str, int]) -> None:
        if self._held is not None:
            self._held.append((data, address))
        else:
            super().from_client(data, address)

    def let_go(self) -> None:
        held, self._held = self._held or [], None
        for data, address in held:
            self.from_client(data, address)


# Health.


async def test_healthy_server_is_ready_when_all_workers_have_answered_themselves() -> None:
    async with group(2, self_ping_interval=0.5) as server:
        assert server.health().result(EVENT_LOOP).ok
        assert server.health().result(WORKERS).ok
        await until(lambda: server.health().result(SELF_PING).ok)
        assert await value(server, "self_pings_total") >= 2


async def test_worker_that_says_nothing_is_named_until_it_speaks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_module, "TICK", 0.2)
    monkeypatch.setattr(group_module, "HEARTBEAT_TIMEOUT", 0.9)
    monkeypatch.setattr(group_module, "ANSWER_TIMEOUT", 0.1)
    async with group(2) as server:
        client = await Client.join(server.port, (1, 2))
        assert await client.ping()
        before = (await values(server, "messages_answered_total"))[("datagram",)]
        assert before == 1
        os.kill(server.pids[1], signal.SIGSTOP)
        await until(lambda: not server.health().result(WORKERS).ok)
        assert server.health().result(WORKERS).reason.startswith("worker 1 has said nothing for ")
        assert server.health().result(EVENT_LOOP).ok
        # What it has told last is what is known of it.
        assert (await values(server, "messages_answered_total"))[("datagram",)] == before
        os.kill(server.pids[1], signal.SIGCONT)
        await until(lambda: server.health().result(WORKERS).ok)
        assert await client.ping(2)
        assert server.restarts == 0
        await client.leave()


async def test_server_that_was_frozen_itself_blames_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with group(2) as server:
        now = asyncio.get_running_loop().time
        monkeypatch.setattr(group_module, "HEARTBEAT_TIMEOUT", 2)
        # As after a SIGSTOP: much time has passed at once, in which nobody could be heard.
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now() + 1_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert server.health().result(WORKERS).ok
        monkeypatch.undo()


async def test_worker_that_dies_at_once_each_time_is_started_ever_more_rarely() -> None:
    pauses = [0.0]
    for _ in range(9):
        pauses.append(next_backoff(pauses[-1], lived=0.5))
    assert pauses == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert next_backoff(5, lived=60) == 0


async def test_worker_that_cannot_be_replaced_is_said_to_be_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_module, "TICK", 0.05)
    monkeypatch.setattr(group_module, "HEARTBEAT_TIMEOUT", 0.2)
    async with group(2) as server:
        monkeypatch.setattr("sys.executable", "/nonexistent")
        os.kill(server.pids[0], signal.SIGKILL)
        await until(lambda: not server.health().result(WORKERS).ok)
        assert server.health().result(WORKERS).reason.startswith("worker 0 is gone for ")
        await until(lambda: server.restarts >= 2)
        assert await value(server, "workers") == 1
        monkeypatch.undo()
        await until(lambda: is_complete(server))
        client = await Client.join(server.port, (0, 2))
        await client.leave()


async def test_counts_of_a_worker_that_dies_again_and_again_are_kept_once() -> None:
    async with group(2) as server:
        for round_ in range(1, 3):
            client = await Client.join(server.port, (0, 2))
            assert await client.ping()
            assert (await values(server, "messages_answered_total"))[("datagram",)] == round_
            for _ in range(2):
                assert await value(server, "received_bytes_total") == 5 * round_
            pid = server.pids[0]
            os.kill(pid, signal.SIGKILL)
            await replaced(server, 0, pid)
            assert (await values(server, "messages_answered_total"))[("datagram",)] == round_
            assert await value(server, "sessions_active") == 0
            client.connection.abort()


# What is told to all.


async def test_new_certificate_is_shown_by_all_and_by_those_that_come_later() -> None:
    async with group(2) as server:
        other = Authority().issue(HOST)
        server.use_certificate(other)

        async def shown(worker: int) -> bool:
            target = Target(HOST, server.port, certificate_hash=other.sha256)
            try:
                connection = await open_connection(target, config=place(worker))
            except ConnectError as error:
                if error.cause is not Cause.CERTIFICATE:
                    raise
                return False
            await connection.close()
            return True

        for worker in (0, 1):
            async with asyncio.timeout(10):
                while not await shown(worker):
                    pass
        pid = server.pids[1]
        os.kill(pid, signal.SIGKILL)
        await replaced(server, 1, pid)
        assert await shown(1)


def place(worker: int) -> EndpointConfig:
    return EndpointConfig(worker=worker, workers=2)


async def test_files_are_read_again_by_all(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("first-token-of-the-test\n")
    async with group(2, auth="token", token_file=tokens) as server:

        async def admitted(worker: int, token: bytes) -> bool:
            headers = ((b"authorization", b"Bearer " + token),)
            try:
                client = await Client.join(server.port, (worker, 2), headers=headers)
            except ConnectError as error:
                if error.status != 401:
                    raise
                return False
            await client.leave()
            return True

        for worker in (0, 1):
            assert await admitted(worker, b"first-token-of-the-test")
            assert not await admitted(worker, b"second-token-of-the-test")
        tokens.write_text("second-token-of-the-test\n")
        server.reload()
        for worker in (0, 1):
            async with asyncio.timeout(10):
                while not await admitted(worker, b"second-token-of-the-test"):
                    pass


async def test_limits_are_those_of_the_whole_server() -> None:
    async with group(2, max_connections=2) as server:
        clients = [await Client.join(server.port, (worker, 2)) for worker in (0, 1)]
        for worker in (0, 1):
            with pytest.raises(ConnectError) as raised:
                await Client.join(server.port, (worker, 2))
            assert raised.value.cause is Cause.REFUSED
        for client in clients:
            await client.leave()


# The end.


async def test_drain_is_of_all_and_waits_for_all() -> None:
    async with group(2) as server:
        clients = [await Client.join(server.port, (worker, 2)) for worker in (0, 1)]
        assert server.health().result(DRAIN).ok
        draining = asyncio.create_task(server.drain())
        for client in clients:
            await client.draining.wait()
        assert not server.health().result(DRAIN).ok
        assert server.health().result(WORKERS).ok
        assert await clients[1].ping()
        await clients[0].leave()
        assert not draining.done()
        assert await clients[1].ping(2)
        await clients[1].leave()
        await draining


async def test_drain_closes_what_does_not_leave() -> None:
    async with group(2, drain_timeout=0.3) as server:
        clients = [await Client.join(server.port, (worker, 2)) for worker in (0, 1)]
        await server.drain()
        for client in clients:
            closed = await client.ended
            assert (closed.code, closed.reason) == (0, "the server is shutting down")
            await client.leave()


async def test_worker_that_dies_while_draining_is_not_replaced() -> None:
    async with group(2) as server:
        clients = [await Client.join(server.port, (worker, 2)) for worker in (0, 1)]
        pids = server.pids
        draining = asyncio.create_task(server.drain())
        await clients[0].draining.wait()
        os.kill(pids[0], signal.SIGKILL)
        await clients[1].leave()
        await draining
        assert server.pids == pids
        assert server.restarts == 0
    for client in clients:
        client.connection.abort()


async def test_nothing_is_left_of_a_server_that_is_closed() -> None:
    gc.collect()  # what other tests have left is not this one's
    before = sockets()
    async with group(2) as server:
        pids, port = server.pids, server.port
        client = await Client.join(port)
        assert sockets() > before
    await client.ended
    client.connection.abort()
    assert not any(map(is_alive, pids))
    assert sockets() <= before
    assert not set(children(os.getpid())) & set(pids)
    async with group(2, bind_port=port) as server:
        assert server.port == port


async def test_frozen_worker_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "CLOSE_TIMEOUT", 0.2)
    async with group(2) as server:
        os.kill(server.pids[0], signal.SIGSTOP)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_are_for_the_server_not_for_its_workers(number: signal.Signals) -> None:
    async with group(2) as server:
        client = await Client.join(server.port)
        for pid in server.pids:
            os.kill(pid, number)
        assert await client.ping()
        assert server.restarts == 0
        await client.leave()


async def test_secrets_are_not_among_what_others_may_see() -> None:
    async with group(2) as server:
        for pid in server.pids:
            seen = environment_of(pid)
            assert "pingpong.server.workers.child" in seen
            assert "PRIVATE KEY" not in seen
            assert "CERTIFICATE" not in seen


# It cannot begin.


async def test_port_that_is_in_use_is_a_clear_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        port = sock.getsockname()[1]
        server = WorkerGroup(settings(bind_port=port), certificate(), 2)
        with pytest.raises(ServeError, match=f"UDP port {port} of {HOST} is in use"):
            await server.start()
        await server.close()


async def test_worker_that_cannot_start_is_a_clear_error(tmp_path: Path) -> None:
    missing = tmp_path / "tokens"
    missing.write_text("some-token-that-is-good\n")
    given = settings(auth="token", token_file=missing)
    missing.unlink()
    before = sockets()
    server = WorkerGroup(given, certificate(), 2)
    with pytest.raises(ServeError, match=str(missing)):
        await server.start()
    await server.close()
    assert sockets() == before


async def test_python_that_is_not_there_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent")
    server = WorkerGroup(settings(), certificate(), 2)
    with pytest.raises(ServeError, match="cannot start a worker: No such file"):
        await server.start()
    await server.close()
