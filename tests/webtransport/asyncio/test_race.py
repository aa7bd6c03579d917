"""An address that does not answer is tried again, beside what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pingpong.webtransport.asyncio import Cause, ConnectError, Target, open_connection, race
from pingpong.webtransport.asyncio.connection import ClientConnection
from pingpong.webtransport.asyncio.race import (
    CONNECTION_ATTEMPT_DELAY,
    MAX_ATTEMPTS,
    MAX_ATTEMPTS_AT_ONE,
    Race,
)
from tests.webtransport.asyncio.peers import (
    in_virtual_time,
    on_a_loop,
    serving,
    silent_socket,
    stay,
    task,
    trusted,
    until,
)
from tests.webtransport.udp.groups import Nat


class Deaf(Nat):
    """A NAT that lets nothing through until it is told to."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.heals = False
        self.seen: Counter[int] = Counter()

    def from_client(self, data: bytes, address: tuple[str, int]) -> None:
        self.seen[address[1]] += 1
        if self.heals:
            super().from_client(data, address)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "RETRY_ATTEMPT_DELAY", 0.05)


@on_a_loop
async def test_path_that_heals_is_found_out_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "RETRY_ATTEMPT_DELAY", 0.4)
    async with serving(stay) as server:
        nat = await Deaf.open(server.port)
        target = Target("127.0.0.1", nat.port, certificate_hash=trusted().sha256)
        connecting = task(open_connection(target, timeout=20))
        # The pauses of QUIC itself double: after these, the next one is of more than a second.
        await until(lambda: max(nat.seen.values(), default=0) >= 4)
        nat.heals = True
        client = await connecting
        assert client.endpoint.local_address[1] != next(iter(nat.seen))
        await client.close()
        nat.close()


@on_a_loop
async def test_silent_address_is_tried_from_new_ports_and_not_from_too_many(hasty: None) -> None:
    with silent_socket() as silent:
        silent.setblocking(False)
        target = Target("127.0.0.1", silent.getsockname()[1])
        most = 0
        connecting = task(open_connection(target, timeout=60))
        ports: set[int] = set()
        while len(ports) < 2 * MAX_ATTEMPTS_AT_ONE:
            await asyncio.sleep(0)
            most = max(most, connected_to(target.port))
            with contextlib.suppress(BlockingIOError):
                ports.add(silent.recvfrom(2_000)[1][1])
        assert most == MAX_ATTEMPTS_AT_ONE
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert connected_to(target.port) == 0


def connected_to(port: int) -> int:
    """UDP sockets of this machine that are connected to a local port."""
    with open("/proc/net/udp") as table:
        rows = [line.split() for line in table]
    # The kernel lists a socket twice where others come to be during the reading: each has a port.
    return len({local for _, local, remote, *_ in rows if remote == f"0100007F:{port:04X}"})


@on_a_loop
async def test_address_that_has_answered_is_left_to_its_first_attempt() -> None:
    """A handshake that is slow is under way all the same."""
    async with serving(stay) as server:
        nat = await Slow.open(server.port)
        target = Target("127.0.0.1", nat.port, certificate_hash=trusted().sha256)
        client = await open_connection(target)
        assert len(nat.ports) == 1
        await client.close()
        nat.close()


class Slow(Nat):
    """A beginning of the first answer comes at once; by itself it says nothing. The rest is late."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.has_answered = False
        self.ports: set[int] = set()

    def from_client(self, data: bytes, address: tuple[str, int]) -> None:
        self.ports.add(address[1])
        super().from_client(data, address)

    def from_server(self, data: bytes, address: tuple[str, int]) -> None:
        if not self.has_answered:
            self.has_answered = True
            super().from_server(data[:40], address)
        delay = 1.2 * race.RETRY_ATTEMPT_DELAY
        asyncio.get_running_loop().call_later(delay, super().from_server, data, address)


# With attempts that are none.


@dataclass(eq=False)
class Attempt:
    """What a race sees of a connection."""

    address: Any
    received_packets: int = 0
    aborted: bool = False
    ready: asyncio.Future[None] = field(init=False)
    begun_at: float = field(init=False)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready = loop.create_future()
        self.begun_at = loop.time()

    def abort(self) -> None:
        self.aborted = True


def assert_same(won: object, attempt: Attempt) -> None:
    assert won is attempt


class Field:
    """A race, and all attempts of it."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.unreachable: set[Any] = set()
        self.race = Race(self.begin, "host")  # type: ignore[arg-type]

    def begin(self, family: int, address: Any) -> Attempt:
        if address in self.unreachable:
            raise OSError(101, "Network is unreachable")
        attempt = Attempt(address)
        self.attempts.append(attempt)
        return attempt

    @contextmanager
    def running(self, *addresses: str) -> Iterator[asyncio.Task[ClientConnection]]:
        task = asyncio.create_task(
            self.race.run([(socket.AF_INET, address) for address in addresses])
        )
        yield task
        task.cancel()
        self.race.abandon_losers()

    async def until_attempts(self, count: int) -> None:
        while len(self.attempts) < count:
            await asyncio.sleep(0.005)

    @property
    def alive(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if not attempt.aborted]


@in_virtual_time
async def test_later_attempt_may_win_and_the_others_are_given_up() -> None:
    field = Field()
    with field.running("a") as run:
        await field.until_attempts(3)
        winner = field.attempts[1]
        winner.ready.set_result(None)
        assert_same(await run, winner)
    assert field.alive == [winner]


@in_virtual_time
async def test_attempts_are_as_far_apart_as_is_said() -> None:
    field = Field()
    with field.running("a", "b"):
        await field.until_attempts(4)
    times = [attempt.begun_at for attempt in field.attempts]
    assert [attempt.address for attempt in field.attempts] == ["a", "b", "a", "b"]
    second, first_again, second_again = CONNECTION_ATTEMPT_DELAY, 1.0, CONNECTION_ATTEMPT_DELAY + 1
    assert times == pytest.approx([0, second, first_again, second_again])


@in_virtual_time
async def test_address_that_has_answered_gets_no_further_attempt() -> None:
    field = Field()
    with field.running("a") as run:
        await field.until_attempts(1)
        field.attempts[0].received_packets = 1
        await asyncio.sleep(10 * race.RETRY_ATTEMPT_DELAY)
        assert len(field.attempts) == 1
        field.attempts[0].ready.set_result(None)
        assert_same(await run, field.attempts[0])


@in_virtual_time
async def test_oldest_attempt_gives_way() -> None:
    field = Field()
    with field.running("a"):
        await field.until_attempts(MAX_ATTEMPTS_AT_ONE + 2)
        assert [attempt.aborted for attempt in field.attempts] == [True] * 2 + [
            False
        ] * MAX_ATTEMPTS_AT_ONE
    assert field.alive == []


@in_virtual_time
async def test_many_addresses_have_together_no_more_than_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(race, "CONNECTION_ATTEMPT_DELAY", 0)
    field = Field()
    with field.running(*(f"{number}" for number in range(MAX_ATTEMPTS + 5))):
        await field.until_attempts(MAX_ATTEMPTS + 5)
        for _ in range(40):
            await asyncio.sleep(0.1)
            assert len(field.alive) == MAX_ATTEMPTS + 5
    with field.running("a", "b", "c", "d", "e", "f"):
        await field.until_attempts(80)
        assert len(field.alive) <= MAX_ATTEMPTS
        assert {attempt.address for attempt in field.alive} == {"a", "b", "c", "d", "e", "f"}


@in_virtual_time
async def test_refusal_of_one_attempt_is_that_of_its_address() -> None:
    field = Field()
    with field.running("a") as run:
        await field.until_attempts(2)
        field.attempts[1].ready.set_exception(ConnectError(Cause.REFUSED, "full"))
        with pytest.raises(ConnectError, match="full"):
            await run
        assert field.alive == []


@in_virtual_time
async def test_one_that_is_ready_wins_over_one_that_fails_in_the_same_turn() -> None:
    for failing in (0, 1):
        field = Field()
        with field.running("a") as run:
            await field.until_attempts(2)
            winner = field.attempts[1 - failing]
            ready = field.attempts[failing].ready
            ready.set_exception(ConnectError(Cause.UNREACHABLE, "no"))
            ready.exception()
            winner.ready.set_result(None)
            assert_same(await run, winner)
        assert field.alive == [winner]


@in_virtual_time
async def test_no_way_for_a_while_leaves_what_is_under_way() -> None:
    field = Field()
    with field.running("a") as run:
        await field.until_attempts(1)
        field.unreachable.add("a")
        await asyncio.sleep(10 * race.RETRY_ATTEMPT_DELAY)
        assert len(field.attempts) == 1
        assert not run.done()
        field.unreachable.clear()
        await field.until_attempts(2)
        field.attempts[0].ready.set_result(None)
        assert_same(await run, field.attempts[0])


@in_virtual_time
async def test_waiting_for_the_next_attempt_is_not_busy() -> None:
    field = Field()
    turns = 0
    until_next = field.race._until_next

    def count(*, waiting: bool) -> float | None:
        nonlocal turns
        turns += 1
        return until_next(waiting=waiting)

    field.race._until_next = count  # type: ignore[method-assign]
    field.unreachable = {"b"}
    with field.running("a", "b"):
        await field.until_attempts(4)
        assert turns < 15
