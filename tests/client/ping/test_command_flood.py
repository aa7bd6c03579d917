"""`pingpong ping -f`: as fast as answers come, as dots or nothing, and the rate at the end."""

from __future__ import annotations

import json
import re
import signal

import pytest

from pingpong.link.schedule import FLOOD_RATE
from pingpong.webtransport import Session
from tests.client.ping.commands import Choosing, Said, ping, serving


def rate(said: Said) -> float:
    (found,) = [match for line in said.lines if (match := re.search(r", (\d+) pings/s$", line))]
    return float(found[1])


async def test_a_pipe_gets_the_summary_only() -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-f", "-c200")
    assert status == 0
    assert said.lines[0].startswith("---")
    assert re.match(r"200 sent, 200 received, .*0% loss, time \d+ ms, \d+ pings/s$", said.lines[1])
    # Faster than without answers, and bounded.
    assert 100 < rate(said) < FLOOD_RATE * 1.5


async def test_answers_that_do_not_come_are_waited_for_10_ms_each() -> None:
    async with serving(Choosing(lambda number: [])) as server:
        status, said = await ping(server.port, "-f", "-c20", "-W0.05")
    assert status == 1
    assert rate(said) < 110
    assert said.counts.startswith("20 sent, 0 received, 100% loss")


async def test_dots_stay_where_answers_are_missing() -> None:
    async with serving(Choosing(lambda number: [] if number % 4 == 0 else [number])) as server:
        status, said = await ping(server.port, "-f", "-c20", "-W0.3", said=Said(in_terminal=True))
    assert status == 0
    assert said.lines[0].startswith("PING https://")
    assert said.lines[1:3] == ["", said.lines[2]]
    assert said.lines[2].startswith("---")
    assert said.drawn.count(".") == 20
    assert said.drawn.count("\b \b") == 15
    assert "bytes from" not in "\n".join(said.lines)


async def test_copies_take_no_dots_back() -> None:
    async with serving(Choosing(lambda number: [number, number])) as server:
        status, said = await ping(server.port, "-f", "-c10", said=Said(in_terminal=True))
    assert status == 0
    assert said.drawn.count("\b \b") == 10


async def test_a_lost_connection_has_a_line_of_its_own() -> None:
    said = Said(in_terminal=True)

    class Away(Choosing):
        """Takes another session once a ping had none to go through."""

        def session_requested(self, session: Session) -> None:
            if self.sessions and "E" not in said.drawn:
                session.reject(503)
            else:
                super().session_requested(session)

    async with serving(handler := Away(lambda number: [number])) as server:

        def told(text: str) -> None:
            if text.startswith("connected again"):
                signal.raise_signal(signal.SIGINT)

        said.told = told
        answered = 0

        def choose(number: int) -> list[int]:
            nonlocal answered
            answered += 1
            if answered != 20:
                return [number]
            handler.sessions[0].close(0, "bye")
            return []

        handler.choose = choose
        status, said = await ping(server.port, "-f", said=said)
    assert status == 0
    assert "the server closed the session: bye; connecting again" in said.lines
    before, _, after = said.drawn.partition("\n")
    assert before.endswith(".")
    assert "E" in after  # pings that had no connection to go through


@pytest.mark.parametrize("words", [("--json",), ("--json", "-q")])
async def test_for_programs(words: tuple[str, ...]) -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-f", "-c20", *words)
    assert status == 0
    (line,) = said.lines
    assert json.loads(line)["sent"] == 20
    assert json.loads(line)["rate"] > 50


async def test_an_interval_is_kept_to() -> None:
    """As ping(8): dots, but no flood."""
    async with serving() as server:
        status, said = await ping(server.port, "-f", "-i0.05", "-c5", said=Said(in_terminal=True))
    assert status == 0
    assert rate(said) <= 27
    assert said.drawn.count(".") == 5
