"""Many targets: that come and go, and that are not in each other's way."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from pingpong.link import link as links
from pingpong.link.session import PingSession
from pingpong.ping import Mode
from pingpong.webtransport import SessionHandler
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.session import Session
from tests.client.ping.commands import serving
from tests.client.probe.probing import path_to, probing, to, until
from tests.webtransport.asyncio.peers import closed_port


class Told(SessionHandler):
    def __init__(self) -> None:
        self.closed: list[SessionClosed] = []

    def session_closed(self, session: Session, closed: SessionClosed) -> None:
        self.closed.append(closed)


async def test_targets_come_and_go_with_their_series() -> None:
    async with serving() as listener, probing() as probes:
        assert probes.metrics.targets == {}
        a, b = to(listener.port, "a"), to(listener.port, "b")
        probes.probe(a)
        await until(lambda: probes.is_up("a"))
        probes.probe(a, b)
        await until(lambda: probes.is_up("b"))
        session = probes.session("b")
        probes.probe(b)
        assert set(probes.metrics.targets) == {"b"}
        await until(lambda: len(listener.connections) == 1)
        # Who stays is not disturbed.
        assert probes.session("b") is session
        assert [(event["event"], event["target"]) for event in probes.events()] == [
            ("target_added", "a"),
            ("target_up", "a"),
            ("target_added", "b"),
            ("target_up", "b"),
            ("target_removed", "a"),
        ]
        assert probes.metrics.sessions_closed["closed"] == 1


async def test_the_server_sees_an_orderly_end() -> None:
    async with serving() as listener, probing(to(listener.port)) as probes:
        await probes.answered()
        (connection,) = listener.connections
        (session,) = connection.sessions
        told = session.handler = Told()
        await probes.supervisor.close()
        await until(lambda: told.closed)
        assert [closed.code for closed in told.closed] == [0]


async def test_a_target_with_another_url_is_another_target() -> None:
    async with serving() as first, serving() as second, probing(to(first.port)) as probes:
        await probes.answered()
        probes.probe(to(second.port))
        assert probes.completed("ok") == 0
        await probes.answered()
        await until(lambda: not first.connections)
        assert len(second.connections) == 1


async def test_other_addresses_are_for_the_next_connection() -> None:
    async with serving() as listener, probing(to(listener.port)) as probes:
        await probes.answered()
        session = probes.session()
        probes.probe(to(listener.port, "target", "/ping", "127.0.0.1", "127.0.0.9"))
        await probes.answered()
        assert probes.session() is session


async def test_an_address_that_is_gone_is_left_for_one_that_is_there() -> None:
    """Another session is made first."""
    async with serving() as listener, serving(host="127.0.0.2", port=listener.port) as other:
        port = listener.port
        async with probing(to(port)) as probes:
            await probes.answered()
            probes.probe(to(port, "target", "/ping", "127.0.0.2"))
            await until(lambda: not listener.connections)
            await probes.answered()
            (moved,) = probes.events("session_moved")
            assert (moved["before"], moved["address"]) == ("127.0.0.1", "127.0.0.2")
            assert "no longer resolves to 127.0.0.1" in moved["cause"]
            assert len(other.connections) == 1
            assert probes.metrics.sessions_closed["closed"] == 1
            assert probes.metrics.outages.count == probes.completed("lost") == 0
            assert probes.completed("send_error") == 0


async def test_an_address_that_is_back_before_another_session_was_made_is_kept() -> None:
    async with serving() as listener:
        port = listener.port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.2", port))
            async with probing(to(port), connect_timeout=60.0) as probes:
                await probes.answered()
                session, lookups = probes.session(), len(probes.lookups)
                probes.probe(to(port, "target", "/ping", "127.0.0.2"))
                await until(lambda: len(probes.lookups) > lookups)
                await probes.answered()
                probes.probe(to(port))
                await probes.answered()
                assert probes.session() is session
                assert probes.counts().connects["ok"] == 1
                assert probes.story() == ["target_added", "target_up"]


async def test_news_of_a_target_end_its_wait() -> None:
    async with serving() as listener:
        wrong = to(listener.port, "target", "/ping", "127.0.0.2")
        async with probing(wrong, backoff_min=600, backoff_max=600) as probes:
            await until(lambda: probes.events("connect_failed"))
            probes.probe(to(listener.port))
            await until(probes.is_up)


async def test_whoever_waits_can_be_told_to_go_on() -> None:
    async with probing(to(closed_port()), backoff_min=600, backoff_max=600) as probes:
        for turn in (1, 2, 3):
            while probes.counts().connects["refused"] < turn:
                await asyncio.sleep(0.002)
            probes.supervisor.connect_now()


async def test_who_is_well_is_not_disturbed_by_that() -> None:
    async with serving() as listener, probing(to(listener.port)) as probes:
        await probes.answered()
        probes.supervisor.connect_now()
        await probes.answered()
        assert probes.counts().connects["ok"] == 1


async def test_a_fault_in_one_prober_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = 0

    def send(self: PingSession, seq: int, mode: Mode) -> None:
        nonlocal faults
        if faults < 2 and self is not good:
            faults += 1
            raise RuntimeError("a fault")
        original(self, seq, mode)

    async with serving() as listener, probing() as probes:
        probes.probe(to(listener.port, "bad"), to(listener.port, "good"))
        await until(lambda: probes.is_up("bad") and probes.is_up("good"))
        good = probes.session("good")
        original = PingSession.send
        monkeypatch.setattr(PingSession, "send", send)
        await until(lambda: faults == 2)
        # It is made anew, and its counts go on.
        before = probes.completed("ok", name="bad")
        await until(lambda: probes.completed("ok", name="bad") > before)
        assert probes.session("good") is good
        assert probes.counts("good").connects["ok"] == 1
        failed = probes.events("prober_failed")
        assert [event["target"] for event in failed] == ["bad"] * len(failed)
        assert "a fault" in failed[0]["exception"]


async def test_a_fault_in_taking_stock_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "TICK", 0.02)
    faults = 0

    def check(self: PingSession, now: float, awake: float) -> None:
        nonlocal faults
        if self.client.target.path == "/ping?bad" and not faults:
            faults += 1
            raise RuntimeError("a fault")
        original(self, now, awake)

    original = PingSession.check
    async with serving() as listener, probing() as probes:
        monkeypatch.setattr(PingSession, "check", check)
        probes.probe(to(listener.port, "bad", "/ping?bad"), to(listener.port, "good"))
        await until(lambda: probes.events("prober_failed"))
        await until(lambda: probes.is_up("bad") and probes.is_up("good"))
        assert probes.counts("good").connects["ok"] == 1
        assert len(probes.events("prober_failed")) == faults == 1


async def test_dead_targets_delay_nobody() -> None:
    """Twenty that nobody answers for, and one that is there."""
    async with serving() as listener:
        with path_to(listener.port) as path:
            path.is_dead = True
            dead = [to(path.port, f"dead-{number}") for number in range(20)]
            async with probing(*dead, to(listener.port, "there"), connect_timeout=0.3) as probes:
                await until(lambda: probes.is_up("there"))
                unsent = probes.completed("send_error", name="there")
                await probes.answered(20, "there")
                assert probes.completed("send_error", name="there") == unsent
                assert probes.completed("lost", name="there") == 0
                await until(lambda: all(probes.counts(d.name).connects["timeout"] for d in dead))
                assert probes.is_up("there")


async def test_statuses() -> None:
    async with serving() as listener, probing() as probes:
        probes.probe(to(listener.port, "up"), to(closed_port(), "down"))
        await until(lambda: probes.is_up("up") and probes.events("connect_failed"))
        up, down = probes.supervisor.statuses()
        assert (up.name, up.is_up, up.reason) == ("up", True, "")
        assert (down.name, down.is_up) == ("down", False)
        assert down.reason.startswith("not connected yet; UDP port")
        assert 0 <= up.seconds <= down.seconds < 60


async def test_the_end_does_not_wait_for_who_cannot_hear() -> None:
    async with serving() as listener, serving() as other:
        with path_to(listener.port) as path:
            async with probing(to(path.port, "deaf"), to(other.port, "well")) as probes:
                await until(lambda: probes.is_up("deaf") and probes.is_up("well"))
                path.is_dead = True
                began = time.monotonic()
                await probes.supervisor.close()
                assert time.monotonic() - began < 1.0
                await until(lambda: not other.connections)


async def test_the_end_before_anything_is_connected_is_at_once() -> None:
    async with serving() as listener:
        with path_to(listener.port) as path:
            path.is_dead = True
            async with probing(to(path.port)) as probes:
                await until(lambda: path.clients)
                began = time.monotonic()
                await probes.supervisor.close()
                assert time.monotonic() - began < 0.3


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with serving() as listener:
        async with probing(to(listener.port), to(closed_port(), "down")) as probes:
            await probes.answered()
            link = probes.link()
        await until(lambda: asyncio.all_tasks() == before)
        assert all(slots.timer is None or slots.timer.cancelled() for slots in link._slots)
