"""`pingpong ping`, against servers in the same loop: real packets, no processes."""

from __future__ import annotations

import asyncio
import errno
import json
import re
import signal
import time
from collections.abc import Callable

import pytest

from pingpong.client.command import PingCommand, describe_end
from pingpong.ping import PROTOCOL, answer_ping
from pingpong.webtransport.events import SessionClosed
from pingpong.webtransport.handler import ConnectionHandler, SessionHandler
from pingpong.webtransport.session import Session
from tests.client.commands import MODES, REPLY, Said, ping, serving, silent_port

# What it says


@pytest.mark.parametrize("mode", MODES)
async def test_all_modes(mode: str) -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-c3", "-i0.01", "--mode", mode)
    assert status == 0
    url = f"https://127.0.0.1:{server.port}/ping"
    assert said.lines[0] == (f"PING {url} (127.0.0.1): {mode}, 64 bytes, pingpong.v1, draft-16")
    replies = [REPLY.fullmatch(line) for line in said.lines[1:4]]
    assert [(m[1], m[2]) for m in replies if m] == [("64", "1"), ("64", "2"), ("64", "3")]
    assert said.lines[4:6] == ["", f"--- {url} pingpong statistics ---"]
    assert said.counts == "3 sent, 3 received, 0% loss"
    assert len(said.lines) == 9
    assert said.complaints == []


async def test_size_and_timestamps() -> None:
    async with serving() as server:
        before = time.time()
        status, said = await ping(server.port, "-c1", "-s1000", "-D")
    assert status == 0
    stamp, reply = said.lines[1].split("] ", 1)
    assert before <= float(stamp.removeprefix("[")) <= time.time()
    assert reply.startswith("1000 bytes from 127.0.0.1: seq=1 ")


async def test_quiet() -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-q", "-c2", "-i0.01")
    assert status == 0
    assert len(said.lines) == 4
    assert said.lines[0].startswith("---")


@pytest.mark.parametrize("quiet", [False, True])
async def test_json(quiet: bool) -> None:
    async with serving() as server:
        options = ["-q"] if quiet else []
        status, said = await ping(server.port, "--json", "-c2", "-i0.01", *options)
    assert status == 0
    *replies, summary = [json.loads(line) for line in said.lines]
    assert [reply["seq"] for reply in replies] == ([] if quiet else [1, 2])
    assert (summary["sent"], summary["received"], summary["lost"]) == (2, 2, 0)
    assert summary["protocol"] == PROTOCOL
    assert summary["draft"] == "draft-16"
    assert summary["rtt_ms"]["min"] > 0
    assert summary["connect_ms"]["handshake"] > 0


async def test_a_datagram_that_is_too_large_is_not_sent() -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-c1", "-s5000")
    assert status == 1
    assert said.lines[1].startswith("not sent: seq=1 (a datagram of 5000 bytes does not fit")
    assert said.counts == "0 sent, 0 received, 1 send error"
    async with serving() as server:
        status, said = await ping(server.port, "-c1", "-s5000", "--mode=stream")
    assert status == 0


# Answers that take their time


class Answering(SessionHandler):
    """Answers datagrams as `choose` says: it is given each one's number, and returns those of
    the pings to answer now."""

    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self._choose = choose
        self._asked: dict[int, bytes] = {}

    def datagram_received(self, session: Session, data: bytes) -> None:
        number = len(self._asked) + 1
        self._asked[number] = data
        for one in self._choose(number):
            answer = answer_ping(self._asked[one], number, session.arrival, session.arrival)
            assert answer is not None
            session.send_datagram(answer)


class Choosing(ConnectionHandler):
    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        self._choose = choose
        self.sessions: list[Session] = []

    def session_requested(self, session: Session) -> None:
        self.sessions.append(session)
        session.accept(Answering(self._choose), PROTOCOL)


async def test_out_of_order_and_a_timeout_longer_than_the_interval() -> None:
    handler = Choosing(lambda number: [3, 1, 2, 2] if number == 3 else [])
    async with serving(handler) as server:
        status, said = await ping(server.port, "-c3", "-i0.02", "-W20")
    assert status == 0
    ends = [line.split("seq=")[1].split()[0] + line.rpartition(")")[2] for line in said.lines[1:4]]
    assert ends == ["3", "1 reordered", "2 reordered"]
    # The copy may come before or after the command has what it waits for, and left.
    assert said.counts.replace(", +1 duplicate", "") == "3 sent, 3 received, 2 reordered, 0% loss"


async def test_late_is_not_lost() -> None:
    handler = Choosing(lambda number: [1, 2] if number == 2 else [])
    async with serving(handler) as server:
        status, said = await ping(server.port, "-c2", "-i0.2", "-W0.05")
    assert status == 0
    assert said.lines[1] == "no answer yet: seq=1"
    assert said.lines[2].endswith("late")
    assert said.counts == "2 sent, 2 received, 1 late, 0% loss"


async def test_loss_has_a_direction_and_status_1_is_for_nothing_at_all() -> None:
    async with serving(Choosing(lambda number: [] if number == 1 else [number])) as server:
        status, said = await ping(server.port, "-c2", "-i0.1", "-W0.5")
    assert status == 0
    assert said.counts == "2 sent, 1 received, 50% loss (0 out, 1 back)"
    async with serving(Choosing(lambda number: [])) as server:
        status, said = await ping(server.port, "-c1", "-W0.05")
    assert status == 1
    assert said.counts.startswith("1 sent, 0 received, 100% loss")


async def test_deadline() -> None:
    async with serving() as server:
        began = time.monotonic()
        status, said = await ping(server.port, "-w0.3", "-i0.1")
        assert 0.25 < time.monotonic() - began < 5
    assert status == 0
    async with serving() as server:
        status, said = await ping(server.port, "-w0.1", "-c5", "-i30")
    assert status == 1  # fewer than -c by -w, as ping(8)
    assert said.counts == "1 sent, 1 received, 0% loss"


async def test_an_interval_next_to_nothing_leaves_others_their_turn() -> None:
    async with serving() as server:
        status, _ = await ping(server.port, "-q", "-i0.000001", "-w0.2")
    assert status == 0


async def test_missed_slots_are_skipped_and_told() -> None:
    async with serving() as server:
        said = Said()

        def block(text: str) -> None:
            if "seq=1 " in text:
                time.sleep(0.35)  # the event loop is blocked through slots 1 to 3, nearly

        said.told = block
        status, _ = await ping(server.port, "-c3", "-i0.1", said=said)
    assert status == 0
    assert said.counts == "3 sent, 3 received, 0% loss"
    assert said.skipped >= 2


# How it ends


async def test_interrupted_with_a_ping_on_its_way() -> None:
    """What is waited for is not lost."""

    def interrupt(number: int) -> list[int]:
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return [number] if number < 3 else []

    handler = Choosing(interrupt)
    async with serving(handler) as server:
        status, said = await ping(server.port, "-i0.01")
    assert status == 0
    counts = re.fullmatch(r"(\d+) sent, 2 received, (\d+) waiting, 0% loss", said.counts)
    assert counts is not None
    assert int(counts[1]) == 2 + int(counts[2]) >= 3
    assert said.complaints == []


async def test_nothing_is_said_after_the_summary() -> None:
    """Answers that come while the command takes its leave."""
    async with serving() as server:
        said = Said()
        said.told = lambda text: signal.raise_signal(signal.SIGINT) if "seq=2 " in text else None
        status, said = await ping(server.port, "-i0.005", said=said)
    assert status == 0
    assert said.lines[-1].startswith("connect: ")
    assert sum(line.startswith("---") for line in said.lines) == 1


async def test_quit_signal_prints_an_interim_summary() -> None:
    async with serving() as server:
        said = Said()
        said.told = lambda text: signal.raise_signal(signal.SIGQUIT) if "seq=1 " in text else None
        status, said = await ping(server.port, "-c2", "-i0.1", said=said)
    assert status == 0
    titles = [i for i, line in enumerate(said.lines) if line.startswith("---")]
    assert len(titles) == 2
    assert said.lines[titles[0] + 1].startswith("1 sent, 1 received")
    assert said.lines[titles[1] + 1].startswith("2 sent, 2 received")


async def test_interrupted_while_connecting() -> None:
    with silent_port() as port:
        command = asyncio.create_task(ping(port, "-c1"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGINT)
        status, said = await command
    assert status == 1
    assert said.lines == said.complaints == []


async def test_the_server_closes_the_session() -> None:
    def close(number: int) -> list[int]:
        if number == 2:
            handler.sessions[0].close(0, "closed for the night")
        return [1] if number == 1 else []

    handler = Choosing(close)
    async with serving(handler) as server:
        status, said = await ping(server.port, "-i0.01")
    assert status == 2
    url = f"https://127.0.0.1:{server.port}/ping"
    assert said.complaints == [f"{url}: the server closed the session: closed for the night"]
    assert "1 received" in said.counts


def test_ends_in_words() -> None:
    assert describe_end(SessionClosed(0)) == "the server closed the session"
    assert describe_end(SessionClosed(7, "x")) == "the server closed the session (code 7): x"
    lost = SessionClosed(error="the connection timed out: the peer was not heard any more")
    assert describe_end(lost) == lost.error


async def test_the_server_is_gone() -> None:
    """Its socket closed, and nothing said: what a SIGKILL leaves."""
    async with serving() as server:
        said = Said()
        said.told = lambda text: server.endpoint.pump.close() if "seq=2 " in text else None
        began = time.monotonic()
        status, said = await ping(server.port, "-i0.1", said=said)
        assert time.monotonic() - began < 4
    assert status == 2
    assert said.complaints[0].endswith(
        "/ping: the server is gone: nothing listens on its port any more"
    )
    # What it never answered is lost, or waited for still.
    assert said.counts.split(", ")[1] == "2 received"


async def test_one_forged_refusal_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[PingCommand] = []
    real = PingCommand._send_all

    async def send_all(self: PingCommand) -> None:
        commands.append(self)
        await real(self)

    monkeypatch.setattr(PingCommand, "_send_all", send_all)
    async with serving() as server:
        said = Said()

        def refuse(text: str) -> None:
            if commands:
                report = commands[0]._client.socket_error
                assert report is not None
                report(OSError(errno.ECONNREFUSED, "Connection refused"))
                report(OSError(errno.ENETUNREACH, "Network is unreachable"))

        said.told = refuse
        status, said = await ping(server.port, "-c8", "-i0.1", said=said)
    assert status == 0
    assert said.counts == "8 sent, 8 received, 0% loss"


async def test_the_server_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        said = Said()

        def cut_off(text: str) -> None:
            if "seq=1 " in text:
                monkeypatch.setattr(server.endpoint.pump, "send", lambda packets, address: 0)

        said.told = cut_off
        status, said = await ping(server.port, "-i0.1", "-W0.1", said=said, idle_timeout=0.6)
    assert status == 2
    assert "the connection timed out" in said.complaints[0]
    assert "1 received" in said.counts


@pytest.mark.parametrize("words", [("-c2", "-i1.2"), ("-c2", "-i0.01", "-W1.2")])
async def test_long_waits_keep_the_connection_alive(words: tuple[str, ...]) -> None:
    """Between pings, and for the last answer."""
    handler = Choosing(lambda number: [] if number == 1 and "-W1.2" in words else [number])
    async with serving(handler, idle_timeout=0.6) as server:
        status, said = await ping(server.port, *words, idle_timeout=0.6)
    assert status == 0
    assert said.complaints == []
    assert said.counts.startswith("2 sent")
