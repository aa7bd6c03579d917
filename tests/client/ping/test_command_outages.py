"""`pingpong ping` through the ends of its connections: servers that go, come back, or drain."""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pingpong.client.ping import targets
from pingpong.link import describe_end
from pingpong.link import link as links
from pingpong.link.session import PingSession
from pingpong.ping import PROTOCOL
from pingpong.webtransport import ConnectionHandler
from pingpong.webtransport.asyncio import Target
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.quic.engine import Address
from pingpong.webtransport.session import Session
from tests.client.ping.commands import Answering, Choosing, Said, ping, serving, start
from tests.client.probe.probing import path_to

AGAIN = re.compile(r"connected again to 127\.0\.0\.1 after (?:\d+ ms|[\d.]+ s)(?:: (.*))?")
GONE = "the server stopped: its UDP port is closed"


def all_answered() -> Choosing:
    return Choosing(lambda number: [number])


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


class Site:
    """A server on one port, which can go without a word, and come back."""

    def __init__(self) -> None:
        self.listener = start(all_answered())
        self.port = self.listener.port

    def kill(self) -> None:
        """As SIGKILL would."""
        self.listener.endpoint.close()

    def restart(self) -> None:
        self.listener = start(all_answered(), port=self.port)


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    made = Site()
    try:
        yield made
    finally:
        await made.listener.close()


def script(*steps: tuple[str, Callable[[], object]]) -> Said:
    """What is said, where each step is taken when its text is said after the one before."""
    said = Said()
    left = list(steps)

    def told(text: str) -> None:
        if left and left[0][0] in text:
            left.pop(0)[1]()

    said.told = told
    said.complained = told
    return said


def nothing() -> None:
    """Only the order counts."""


# Lost, and made again


async def test_pinging_goes_on_after_the_server_closed_the_session() -> None:
    handler = all_answered()
    async with serving(handler) as server:
        said = script(
            ("seq=2 ", lambda: handler.sessions[0].close(7, "closed for the night")),
            ("connected again", nothing),
            ("bytes from", interrupt),
        )
        status, said = await ping(server.port, "-i0.02", said=said)
    assert (status, said.complaints) == (0, [])
    assert (
        "the server closed the session (code 7): closed for the night; connecting again"
        in said.lines
    )
    assert any(AGAIN.fullmatch(line) for line in said.lines)
    assert said.lines[-2].startswith("1 outage of ")
    assert ", 2 connections, " in said.lines[-1]


async def test_a_server_that_was_killed_and_comes_back() -> None:
    async with site() as server:
        said = script(
            ("seq=3 ", server.kill),
            ("still not connected", server.restart),
            ("connected again", nothing),
            ("bytes from", interrupt),
        )
        status, said = await ping(server.port, "-i0.05", said=said)
    assert (status, said.complaints) == (0, [])
    assert f"{GONE}; connecting again" in said.lines
    (again,) = [match for line in said.lines if (match := AGAIN.fullmatch(line))]
    # Those that the kernel refused to send, since nobody listens there, are not lost either.
    pings = {what: int(count) for count, what in re.findall(r"(\d+) (lost|not sent)", again[1])}
    lost, not_sent = pings.get("lost", 0), pings.get("not sent", 0)
    assert lost + not_sent > 0
    counts = re.fullmatch(
        r"(\d+) sent, (\d+) received,(?: 1 waiting,)?(?: (\d+) not sent,)? .*% loss(.*)",
        said.counts,
    )
    assert counts is not None
    # What had no connection to go through was not lost by the network.
    assert int(counts[3] or 0) == not_sent
    assert int(counts[1]) - int(counts[2]) in (lost, lost + 1)
    # Which way they went missing, nobody knows.
    assert counts[4] == (f" (0 out, 0 back, {lost} unknown)" if lost else "")
    assert sum(line.startswith("no answer: ") for line in said.lines) == lost


async def test_for_programs_it_is_told_beside() -> None:
    async with site() as server:
        said = script(
            ('"seq": 2,', server.kill),
            ("still not connected", server.restart),
            ("connected again", nothing),
            ('"seq"', interrupt),
        )
        status, said = await ping(server.port, "--json", "-i0.05", said=said)
    assert status == 0
    assert said.complaints[0] == f"{GONE}; connecting again"
    assert said.complaints[1].startswith("still not connected: UDP port")
    assert AGAIN.fullmatch(said.complaints[-1])
    *replies, summary = map(json.loads, said.lines)
    assert all("seq" in reply for reply in replies)
    assert (summary["outages"], summary["connections"]) == (1, 2)
    assert summary["send_errors"] + summary["lost"] > 0
    assert summary["sent"] == summary["received"] + summary["lost"] + summary["waiting"]
    assert summary["outage_ms"] >= 500  # through which a refusal has to be repeated


async def test_a_server_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as server:

        def cut_off() -> None:
            pump = server.listener.endpoint.pump
            monkeypatch.setattr(pump, "send", lambda packets, address: 0)

        def replace() -> None:
            server.kill()
            server.restart()

        said = script(
            ("seq=1 ", cut_off),
            ("the connection timed out", replace),
            ("connected again", interrupt),
        )
        status, said = await ping(server.port, "-i0.1", "-W0.1", said=said, idle_timeout=0.6)
    assert (status, said.complaints) == (0, [])
    assert any(
        "the connection timed out" in line and line.endswith("; connecting again")
        for line in said.lines
    )
    assert "no answer yet: seq=2" in said.lines


async def test_an_outage_that_the_session_lives_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is dead for a while: what is on its way stays there."""
    monkeypatch.setattr(links, "_SHORTEST_DEAD", 0.3)
    monkeypatch.setattr(links, "_SUSPECT_AFTER", 60.0)
    async with serving() as server:
        with path_to(server.port) as path:
            path.lose = lambda data, to_server: path.clients > 1

            def freeze() -> None:
                path.is_frozen = True

            said = script(
                ("seq=3 ", freeze),
                ("; connecting again", path.let_go),
                ("answers again", nothing),
                ("bytes from", interrupt),
            )
            status, said = await ping(path.port, "-i0.05", "-W0.1", said=said)
    assert (status, said.complaints) == (0, [])
    assert sum(line.endswith("; connecting again") for line in said.lines) == 1
    (again,) = [line for line in said.lines if "answers again" in line]
    assert re.fullmatch(r"127\.0\.0\.1 answers again after \d+ ms(: \d+ unanswered so far)?", again)
    assert said.lines[-2].startswith("1 outage of ")
    assert "connections" not in said.lines[-1]


async def test_one_forged_refusal_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PingSession] = []
    establish = PingSession.establish

    async def establish_too(self: PingSession, *words: Any) -> None:
        made.append(self)
        await establish(self, *words)

    monkeypatch.setattr(PingSession, "establish", establish_too)
    async with serving() as server:
        said = Said()

        def refuse(text: str) -> None:
            report = made[0].client.socket_error
            if report is not None:
                report(OSError(errno.ECONNREFUSED, "Connection refused"))
                report(OSError(errno.ENETUNREACH, "Network is unreachable"))

        said.told = refuse
        status, said = await ping(server.port, "-c8", "-i0.1", said=said)
    assert status == 0
    # They go on for longer than those of a server that is gone, but it answers in between.
    assert said.counts == "8 sent, 8 received, 0% loss"
    assert not any("outage" in line for line in said.lines)


async def test_a_run_may_end_in_an_outage() -> None:
    """By its count, and by Ctrl-C: with answers that came before."""
    async with site() as server:
        status, said = await ping(
            server.port, "-c25", "-i0.05", said=script(("seq=2 ", server.kill))
        )
    assert (status, said.complaints) == (0, [])
    assert re.fullmatch(r"1 outage of (\d+ ms|[\d.]+ s)", said.lines[-2])
    assert re.match(r"\d+ sent, 2 received, \d+ not sent, ", said.counts)
    async with site() as server:
        said = script(("seq=2 ", server.kill), ("connecting again", interrupt))
        status, said = await ping(server.port, "-i0.05", said=said)
    assert status == 0
    assert said.lines[-2].startswith("1 outage of ")


async def test_a_run_that_is_not_to_reconnect() -> None:
    async with site() as server:
        said = script(("seq=2 ", server.kill))
        status, said = await ping(server.port, "-i0.05", said=said, reconnect=False)
    assert status == 2
    assert said.complaints == [f"https://127.0.0.1:{server.port}/ping: {GONE}"]
    assert said.counts.split(", ")[1] == "2 received"


def test_ends_in_words() -> None:
    assert describe_end(SessionClosed(0)) == "the server closed the session"
    assert describe_end(SessionClosed(7, "x")) == "the server closed the session (code 7): x"
    lost = SessionClosed(error="the connection timed out: nothing was received from the peer")
    assert describe_end(lost) == lost.error


class ClosingAtOnce(ConnectionHandler):
    def __init__(self) -> None:
        self.sessions = 0

    def session_requested(self, session: Session) -> None:
        self.sessions += 1
        session.accept(Answering(lambda number: []), PROTOCOL)
        session.close(1, "go away")


async def test_a_server_that_closes_every_session_is_not_stormed() -> None:
    handler = ClosingAtOnce()
    async with serving(handler) as server:
        status, said = await ping(server.port, "-c15", "-i0.1")
    assert status == 1
    assert "the server closed the session (code 1): go away; connecting again" in said.lines
    # Pauses of 0.05, 0.1, 0.2, 0.4, 0.8 s on average.
    assert 2 <= handler.sessions < 20


# Drained


async def test_a_draining_session_is_left_for_another_and_no_ping_is_lost() -> None:
    async with serving(handler := all_answered()) as server:
        said = script(
            ("seq=3 ", server.drain),
            ("moved to a new session", nothing),
            ("bytes from", nothing),
            ("bytes from", interrupt),
        )
        status, said = await ping(server.port, "-i0.02", said=said)
        old, new = handler.sessions
        assert old.remote_address != new.remote_address
    assert (status, said.complaints) == (0, [])
    assert "the server asks to leave: connecting again before that" in said.lines
    assert "moved to a new session with 127.0.0.1" in said.lines
    assert re.fullmatch(r"(\d+) sent, \d+ received,( 1 waiting,)? 0% loss", said.counts)
    assert "not sent" not in said.counts
    assert not any("outage" in line for line in said.lines)


async def test_what_the_draining_server_still_owes_is_waited_for() -> None:
    """The old session's last answers come after the new one's first."""

    def choose(number: int) -> list[int]:
        if number == 2:
            server.drain()
            return []
        return [number]

    handler = Choosing(choose)
    async with serving(handler) as server:

        def report_losses() -> None:
            old = handler.sessions[0]
            assert isinstance(old.handler, Answering)
            old.handler.answer(old, 2)
            server.endpoint.flush()

        said = script(
            ("moved to a new session", nothing),
            ("bytes from", report_losses),
            ("seq=2 ", interrupt),
        )
        status, said = await ping(server.port, "-i0.05", "-W20", said=said)
    assert status == 0
    assert re.fullmatch(r"(\d+) sent, \d+ received,.* 0% loss", said.counts)
    received = [int(n) for n in re.findall(r"seq=(\d+) ", "\n".join(said.lines))]
    assert 2 in received


async def test_a_draining_server_that_takes_no_other_session_is_used_to_the_end() -> None:
    taken = True

    class OneOnly(Choosing):
        def session_requested(self, session: Session) -> None:
            if self.sessions and taken:
                session.reject(503)
                refused.append(session)
                if len(refused) == 2:
                    leave()
            else:
                super().session_requested(session)

    def leave() -> None:
        nonlocal taken
        taken = False
        handler.sessions[0].close(0, "shutting down")

    refused: list[Session] = []
    handler = OneOnly(lambda number: [number])
    async with serving(handler) as server:
        said = script(("seq=2 ", server.drain), ("connected again", interrupt))
        status, said = await ping(server.port, "-i0.02", said=said)
    assert (status, said.complaints) == (0, [])
    told = [line for line in said.lines if ";" in line or "leave" in line or "again to" in line]
    assert told[0] == "the server asks to leave: connecting again before that"
    assert told[1] == "the server closed the session: shutting down; connecting again"
    assert AGAIN.fullmatch(told[2])
    # The refusals before that did not matter, and are not told.
    before = said.lines[: said.lines.index(told[1])]
    assert not any("answered 503" in line for line in before)


async def test_another_address_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one that is being left."""

    async def resolve(target: Target, timeout: float | None = None) -> list[tuple[int, Address]]:
        return [(socket.AF_INET, (f"127.0.0.{n}", target.port)) for n in (1, 2)]

    monkeypatch.setattr(targets, "resolve", resolve)
    async with serving() as first, serving(host="127.0.0.2", port=first.port):
        said = script(("seq=2 ", first.drain), ("moved to", interrupt))
        status, said = await ping(first.port, "-i0.02", said=said)
    assert status == 0
    assert "moved to a new session with 127.0.0.2" in said.lines
