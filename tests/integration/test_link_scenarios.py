"""Faults, and what clients say of them: `ping` and `probe` in the same scenarios.

What they say is held against the truth: when pings and answers were on the link, and when the
fault began and ended.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients import INTERVAL, SIZE, VERBS, Account, Client, ProbeClient
from tests.integration.network import PORT, Running, pingpong
from tests.integration.services import at
from tests.support.certificates import Authority, Pair
from tests.support.engines import in_turn, on_both
from tests.support.nameserver import NameServer
from tests.support.network.link import SERVER, Direction, Impairment, Link, Verdict
from tests.support.network.packets import UDP
from tests.support.network.records import Record
from tests.support.running import wait_until

pytestmark = pytest.mark.network

NAME = "pingpong.test"
ELSEWHERE = "192.0.2.3"
"""Another address at the server's end."""
DNS, DNS_PORT = "127.0.0.1", 53
TIMEOUT = 1.0
"""Seconds after which a client calls an answer late."""
EXACT = 0.2
"""Seconds by which an outage's length may differ from the true one."""
RECOVERY = 2.0
"""Seconds after a fault within which answers are to come again."""
MOST_ATTEMPTS = 12
"""Attempts a second to connect to a host that says that nothing listens, at most."""
HEADERS, PADDED = 40, 1200
"""Bytes of a packet beside its frames, and of the packets that begin a connection, at least."""
PATIENCE = 15.0
"""Seconds after which what is waited for does not come any more."""


verbs = in_turn("verb", VERBS)
"""Run a scenario with each client."""


@dataclass(frozen=True)
class Gap:
    """A time without answers: the last one before and the first one after, by time.monotonic()."""

    last: float
    first: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.first - self.last


@dataclass(frozen=True)
class World:
    """Servers at one end of a link, clients at the other, and a name server beside these."""

    link: Link
    names: NameServer
    authority: Authority
    folder: Path

    # Who is in it.

    @contextlib.contextmanager
    def serving(
        self,
        address: str = SERVER,
        *,
        hosts: tuple[str, ...] = (SERVER, NAME),
        until: timedelta = timedelta(hours=1),
        **settings: object,
    ) -> Iterator[Running]:
        """A server at an address; its certificate is for `hosts`, and valid for so long."""
        pair = Pair(self.folder / f"tls-{address}")
        pair.write_in_place(self.authority.issue(*hosts, ends=until))
        own: dict[str, object] = {"bind_host": address, "admin_host": address, "log_format": "json"}
        environ = {
            f"PINGPONG_{name.upper()}": str(value)
            for name, value in (own | pair.settings | settings).items()
        }
        with pingpong(self.link.server, "serve", admin=address, **environ) as server:
            server.wait_event("listening")
            yield server

    def client(self, verb: str, host: str = SERVER) -> Client:
        """A client of a server, whose authority it trusts."""
        return VERBS[verb](self.link, f"https://{host}:{PORT}/ping", self.authority.file)

    # What was on the link, in seconds of time.monotonic().

    def pings(self) -> list[float]:
        """When pings came to the link."""
        return [
            record.received / 1e9
            for record in self.link.records()
            if record.direction is Direction.OUT
            for _ in range(_messages(record))
        ]

    def answers(self) -> list[float]:
        """When answers left the link."""
        return sorted(
            record.sent / 1e9
            for record in self.link.records()
            if record.direction is Direction.BACK and record.verdict is Verdict.DELIVERED
            for _ in range(_messages(record))
        )

    def attempts(self) -> list[float]:
        """When attempts to connect began; each is made from a port of its own."""
        begun: dict[int, float] = {}
        for record in self.link.records():
            is_first = record.protocol == UDP and record.size >= PADDED
            if is_first and record.direction is Direction.OUT:
                begun.setdefault(record.source, record.received / 1e9)
        return list(begun.values())

    def wait_answers(self, more: int = 10) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers()) + more
        wait_until(lambda: len(self.answers()) >= wanted, f"{more} more answers", PATIENCE)

    def wait_gap(self, until: float) -> Gap:
        """Wait for answers after `until`; the time without any that had gone on until then."""
        wait_until(lambda: self.answers()[-1] > until, "answers come again", PATIENCE)
        gap = Gap(
            last=max(answer for answer in self.answers() if answer <= until),
            first=min(answer for answer in self.answers() if answer > until),
        )
        # With some more, the client has certainly taken in the first one.
        self.wait_answers()
        return gap


def _messages(record: Record) -> int:
    """How many pings, or answers, are in a packet; ICMP's only quote them."""
    is_counted = record.protocol == UDP and record.size < PADDED
    return (record.size - HEADERS) // SIZE if is_counted else 0


@pytest.fixture
def world(link: Link, tmp_path: Path) -> Iterator[World]:
    link.impair(Impairment(delay=0.005))
    link.add_address(link.server, ELSEWHERE)
    link.client.write_etc("resolv.conf", f"nameserver {DNS}\n")
    link.client.write_etc("nsswitch.conf", "hosts: files dns\n")
    with link.client.entered():
        names = NameServer(DNS, DNS_PORT)
    with names:
        names.set(NAME, "A", SERVER, ttl=1)
        yield World(link, names, Authority(tmp_path), tmp_path)


def wait_for(seconds: float, since: float) -> None:
    """Let a fault last for so long."""
    time.sleep(max(since + seconds - time.monotonic(), 0))


def logged_at(event: dict[str, Any]) -> float:
    """When something was logged, in seconds of time.monotonic()."""
    return at(event) - time.time() + time.monotonic()


# The path is dead.


def assert_one_outage(
    world: World, client: Client, healed_at: float, waited_before: float
) -> Account:
    """Answers came again soon, and the client says for how long there were none.

    But for the time that it did not have the CPU in, which is not the network's.
    """
    gap = world.wait_gap(healed_at)
    assert gap.first < healed_at + RECOVERY
    waited = client.waited() - waited_before
    account = client.account()
    assert account.outages == 1
    assert gap.seconds - waited - EXACT < account.outage < gap.seconds + EXACT
    # It went on pinging all the time, and was not held up.
    in_vain = account.sent - account.answered + account.not_sent + account.skipped
    assert in_vain == pytest.approx(gap.seconds / INTERVAL, abs=EXACT / INTERVAL)
    assert account.skipped <= 2 + waited / INTERVAL
    # Each ping that came to the link after that was answered, but for those on their way now.
    answers = [answer for answer in world.answers() if answer >= gap.first]
    pings = [ping for ping in world.pings() if ping >= gap.first]
    assert len(answers) == pytest.approx(len(pings), abs=2)
    return account


@contextlib.contextmanager
def hole(link: Link, **ways: Impairment) -> Iterator[None]:
    """The link swallows what is sent these ways."""
    link.impair(**ways)
    try:
        yield
    finally:
        link.heal()


@contextlib.contextmanager
def refusal(link: Link) -> Iterator[None]:
    """The client's machine refuses to send to the server: EPERM by a firewall, EACCES without."""
    commands = [f"ip route {verb} prohibit {SERVER}" for verb in ("add", "delete")]
    if shutil.which("iptables"):
        commands = [
            f"iptables --{verb} OUTPUT -d {SERVER} -j DROP" for verb in ("append", "delete")
        ]
    begin, end = (link.client.command(*command.split()) for command in commands)
    subprocess.run(begin, check=True)
    try:
        yield
    finally:
        subprocess.run(end, check=True)


BLACK = Impairment(blackhole=True)


def assert_one_outage_with(
    world: World, client: Client, fault: contextlib.AbstractContextManager[None]
) -> None:
    """A fault of three seconds is one outage."""
    waited = client.waited()
    with fault:
        wait_for(3, time.monotonic())
        healed_at = time.monotonic()
    assert_one_outage(world, client, healed_at, waited)


@pytest.mark.parametrize("ways", [{"out": BLACK}, {"back": BLACK}], ids=["out", "back"])
@verbs
def test_the_path_is_dead(world: World, verb: str, ways: dict[str, Impairment]) -> None:
    with world.serving(), world.client(verb) as client:
        world.wait_answers()
        assert_one_outage_with(world, client, hole(world.link, **ways))


@on_both
@pytest.mark.parametrize("verb", VERBS)
def test_this_machine_refuses_to_send(world: World, verb: str) -> None:
    with world.serving(), world.client(verb) as client:
        world.wait_answers()
        assert_one_outage_with(world, client, refusal(world.link))


@verbs
def test_the_path_is_dead_for_longer_than_a_session_lives(world: World, verb: str) -> None:
    with world.serving(idle_timeout=8), world.client(verb) as client:
        world.wait_answers()
        waited = client.waited()
        wait_for(12, world.link.blackhole())
        assert_one_outage(world, client, world.link.heal(), waited)


def test_a_server_is_pinged_soon_after_the_path_to_it_is_there(world: World) -> None:
    world.link.blackhole()
    with world.serving(), world.client("probe") as client:
        client.wait_event("connect_failed")
        metrics = client.metrics()
        assert metrics.total("pingpong_client_connects_total", result="timeout") == 1
        assert metrics.total("pingpong_client_session_up") == 0
        healed_at = world.link.heal()
        world.wait_answers()
        assert world.answers()[0] < healed_at + RECOVERY
        # Nothing was up before, so nothing was out.
        assert client.account().outages == 0


# This machine is at fault.


def stop(client: Client, seconds: float) -> tuple[float, float]:
    """Stop a client for so long: when that was, and when it ended."""
    client.send(signal.SIGSTOP)
    stopped_at = time.monotonic()
    wait_for(seconds, stopped_at)
    continued_at = time.monotonic()
    client.send(signal.SIGCONT)
    return stopped_at, continued_at


@verbs
def test_the_client_is_stopped(world: World, verb: str) -> None:
    with world.serving(), world.client(verb) as client:
        world.wait_answers()
        stopped_at, continued_at = stop(client, 2)
        world.wait_gap(continued_at)
        account = client.account()
        assert account.outages == 0
        assert account.sessions == 1
        assert account.lost == account.not_sent == 0
        assert account.skipped > 0.9 * (continued_at - stopped_at) / INTERVAL
        assert not account.slow


@verbs
def test_the_client_is_stopped_for_longer_than_its_session_lives(world: World, verb: str) -> None:
    """As a laptop that sleeps, or a virtual machine that is moved."""
    with world.serving(idle_timeout=1), world.client(verb) as client:
        world.wait_answers()
        stopped_at, continued_at = stop(client, 3)
        gap = world.wait_gap(continued_at)
        assert gap.first < continued_at + RECOVERY
        account = client.account()
        assert account.sessions == 2
        # But for the moment that it took to connect again.
        assert account.outages <= 1
        assert account.outage < gap.seconds - (continued_at - stopped_at) + EXACT
        assert account.lost <= 1
        assert account.skipped > 0.9 * (continued_at - stopped_at) / INTERVAL
        assert not account.slow


@on_both
@pytest.mark.parametrize("verb", VERBS)
def test_this_machine_refuses_the_first_packets(world: World, verb: str) -> None:
    with world.serving(), contextlib.ExitStack() as fault:
        fault.enter_context(refusal(world.link))
        with world.client(verb, NAME) as client:
            wait_until(lambda: world.names.asked(NAME) > 0, "it looks the name up")
            wait_for(1, time.monotonic())
            fault.close()
            allowed_at = time.monotonic()
            assert client.popen.poll() is None, client
            world.wait_answers()
            assert world.answers()[0] < allowed_at + RECOVERY
            # What was refused was lost, as on the way, and sent again.
            assert not client.failures()
            account = client.account()
            assert account.sessions == 1
            assert account.outages == 0


@on_both
@pytest.mark.parametrize("verb", VERBS)
def test_this_machine_refuses_all_packets(world: World, verb: str) -> None:
    with refusal(world.link), world.client(verb) as client:
        failure = client.wait_failure()
        assert "this machine" in failure
        assert re.search("(?i)permission denied|not permitted", failure)
        assert not re.search("nothing listens|nobody|no answer", failure)


# Names.


@verbs
def test_a_name_server_that_drops_questions_for_one_kind_of_address(
    world: World, verb: str
) -> None:
    world.names.silence(NAME, "AAAA")
    with world.serving(), world.client(verb, NAME):
        asked_at = wait_until(lambda: world.names.asked(NAME) > 0, "it looks the name up")
        world.wait_answers(1)
        assert world.answers()[0] < asked_at + 1.5


@verbs
def test_a_name_that_ends_with_a_dot(world: World, verb: str) -> None:
    with world.serving(), world.client(verb, f"{NAME}.") as client:
        world.wait_answers()
        account = client.account()
        assert account.sessions == 1
        assert account.lost == account.not_sent == 0


@verbs
def test_a_name_moves_while_its_old_address_answers(world: World, verb: str) -> None:
    with (
        world.serving() as server,
        world.serving(ELSEWHERE) as other,
        world.client(verb, NAME) as client,
    ):

        def sessions(one: Running) -> float:
            return one.metrics().total("pingpong_server_sessions_active")

        world.wait_answers()
        world.names.set(NAME, "A", ELSEWHERE, ttl=1)
        moved_at = time.monotonic()
        wait_until(lambda: sessions(other) == 1, "it moves", PATIENCE)
        # When the old answer's time to live has passed, and not at the next chance.
        assert time.monotonic() < moved_at + 5
        wait_until(lambda: sessions(server) == 0, "it leaves the old session", PATIENCE)
        world.wait_answers()
        assert client.address == ELSEWHERE
        # A lookup that fails changes nothing.
        world.names.fail(NAME, "NXDOMAIN")
        wanted = world.names.asked(NAME, "A") + 2
        wait_until(lambda: world.names.asked(NAME, "A") >= wanted, "it looks the name up")
        world.wait_answers()
        assert (sessions(server), sessions(other)) == (0, 1)
        assert client.address == ELSEWHERE
        account = client.account()
        assert account.sessions == 2
        assert account.outages == account.lost == account.not_sent == 0
        # Some may be on their way when it ends.
        assert account.answered == pytest.approx(len(world.answers()), abs=3)


# The server is at fault.


@verbs
def test_a_server_is_frozen_for_a_while(world: World, verb: str) -> None:
    with world.serving() as server, world.client(verb) as client:
        world.wait_answers()
        waited = client.waited()
        server.send(signal.SIGSTOP)
        frozen_at = time.monotonic()
        wait_for(3, frozen_at)
        continued_at = time.monotonic()
        server.send(signal.SIGCONT)
        gap = world.wait_gap(continued_at)
        assert gap.first < continued_at + RECOVERY
        waited = client.waited() - waited
        account = client.account()
        assert account.outages == 1
        assert gap.seconds - waited - EXACT < account.outage < gap.seconds + EXACT
        # All that was sent meanwhile is answered in the end, late.
        late = (continued_at - frozen_at - TIMEOUT) / INTERVAL
        assert account.late == pytest.approx(late, abs=2 * EXACT / INTERVAL)
        assert account.lost == account.not_sent == account.duplicates == 0
        # It was no storm: there was an attempt every second or so, and none after that.
        assert account.sessions <= 2
        assert len(world.attempts()) <= 2 + gap.seconds
        assert server.metrics().total("pingpong_server_sessions_active") <= 1


@pytest.mark.parametrize(("ratelimit", "pause"), [(0, 0.75), (1000, 1.5)])
@verbs
def test_a_server_is_away_for_a_while(
    world: World, verb: str, ratelimit: int, pause: float
) -> None:
    """Its host says that nothing listens, each time or once in `ratelimit` milliseconds."""
    world.link.server.sysctl("ipv4/icmp_ratelimit", ratelimit)
    with world.serving() as server, world.client(verb) as client:
        world.wait_answers()
        waited = client.waited()
        server.send(signal.SIGKILL)
        server.finish()
        killed_at = time.monotonic()
        wait_for(2, killed_at)
        with world.serving() as again:
            listening_at = logged_at(again.events("listening")[0])
            account = assert_one_outage(world, client, listening_at, waited)
        assert account.sessions == 2
        assert "UDP port is closed" in client.losses()[0]
        # It asked again and again, and not too often.
        believed_at = killed_at + 1
        attempts = [each for each in world.attempts() if believed_at < each < listening_at]
        assert len(attempts) < MOST_ATTEMPTS * (listening_at - believed_at)
        answered_at = min(answer for answer in world.answers() if answer > listening_at)
        times = [believed_at, *attempts, listening_at]
        assert max(b - a for a, b in itertools.pairwise(times)) < pause
        assert answered_at < listening_at + pause
        if isinstance(client, ProbeClient):
            assert logged_at(client.events("target_down")[0]) < killed_at + RECOVERY
            metrics = client.metrics()
            assert metrics.total("pingpong_client_connects_total", result="refused") > 0
            assert metrics.total("pingpong_client_sessions_closed_total", reason="error") == 1


@pytest.mark.parametrize(
    ("hosts", "until", "cause"),
    [
        (("other.test",), timedelta(hours=1), f"is for other.test, not for {SERVER}"),
        ((SERVER,), timedelta(minutes=-1), "out of date"),
    ],
)
@verbs
def test_a_certificate_that_is_refused(
    world: World, verb: str, hosts: tuple[str, ...], until: timedelta, cause: str
) -> None:
    with (
        world.serving(hosts=hosts, until=until) as server,
        world.client(verb) as client,
    ):
        assert cause in client.wait_failure()
        if isinstance(client, ProbeClient):
            expires = server.metrics().total(
                "pingpong_server_certificate_not_after_timestamp_seconds"
            )
            told = client.metrics().total(
                "pingpong_client_peer_certificate_not_after_timestamp_seconds"
            )
            assert told == expires
