"""`pingpong ping --live`, in a terminal: servers in this loop, the command as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.ping.commands import Choosing, ping, serving, start
from tests.client.ping.terminal import ENTERED, LEFT, Terminal, terminal
from tests.support.certificates import self_signed
from tests.support.processes import environment

pytestmark = pytest.mark.process

PIN = f"--cert-hash={self_signed().sha256.hex()}"


def url(port: int) -> str:
    return f"https://127.0.0.1:{port}/ping"


def words(*ports: int) -> list[str]:
    return ["ping", *map(url, ports), PIN, "--live", "-i0.05"]


async def end(screen: Terminal) -> tuple[int, str]:
    """Its exit status, and what stands in the terminal after the view has gone."""
    status = await screen.finish()
    assert screen.output.count(ENTERED) == screen.output.count(LEFT) == 1
    assert screen.is_cooked
    return status, screen.output.rpartition(LEFT)[2]


async def quit_by(screen: Terminal, key: str) -> tuple[int, str]:
    screen.press(key)
    return await end(screen)


async def test_targets_with_their_numbers_and_graphs_and_the_summary_at_the_end() -> None:
    lossy = Choosing(lambda number: [] if number % 3 == 0 else [number])
    async with (
        serving() as first,
        serving(lossy) as second,
        terminal(*words(first.port, second.port), "-W0.1") as screen,
    ):
        await screen.shows("2 targets, all connected  datagram, 64 bytes, every 0.05 s")
        assert not screen.is_cooked
        await screen.until(
            lambda drawn: re.search(rf"● 127.0.0.1:{first.port} +\d+ +\d+ +0% .* [▁-█]{{9}}", drawn)
        )
        await screen.until(
            lambda drawn: re.search(rf"● 127.0.0.1:{second.port} +\d+ +\d+ +3\d.* [▁-█×·]+×", drawn)
        )
        status, after = await quit_by(screen, "q")
    assert status == 0
    titles = re.findall(r"--- (\S+) pingpong statistics ---", after)
    assert titles == [url(first.port), url(second.port)]
    assert "% loss (0 out, " in after


async def test_a_target_that_goes_and_comes_back() -> None:
    server = start()
    port = server.port
    async with serving() as other, terminal(*words(port, other.port)) as screen:
        await screen.shows("all connected")
        server.endpoint.close()
        await screen.shows("2 targets, 1 not connected")
        await screen.until(lambda drawn: re.search(rf"✗ 127.0.0.1:{port} .*-----", drawn))
        await screen.until(lambda drawn: re.search(r"└ down for .*: UDP port", drawn))
        screen.mark()
        async with serving(port=port):
            await screen.shows("all connected")
            await screen.until(lambda drawn: re.search(r"└ up for .*, after 1 outage of", drawn))
            screen.process.send_signal(signal.SIGINT)
            status, after = await end(screen)
    assert status == 0
    assert "1 outage of " in after
    await server.close()


async def test_a_target_that_was_never_there_is_tried_again_and_again() -> None:
    server = start()
    port = server.port
    await server.close()
    async with terminal(*words(port)) as screen:
        await screen.until(lambda drawn: re.search(r"└ not connected for .*is unreachable", drawn))
        async with serving(port=port):
            await screen.shows("1 target, all connected")
        status, after = await quit_by(screen, "q")
    assert status in (0, 1)
    async with terminal(*words(port)) as screen:
        await screen.shows("is unreachable")
        status, after = await quit_by(screen, "q")
    assert status == 2
    assert f"pingpong: {url(port)}: UDP port {port} is unreachable" in after


async def test_keys() -> None:
    async with serving() as server, terminal(*words(server.port)) as screen:
        sent = re.compile(r"● 127.0.0.1 +(\d+) ")
        await screen.until(lambda drawn: any(int(n) > 20 for n in sent.findall(drawn)))
        screen.press("r")
        screen.mark()
        await screen.until(lambda drawn: any(int(n) < 10 for n in sent.findall(drawn)))
        screen.press("p")
        await screen.shows("frozen")
        screen.mark()
        await screen.until(lambda drawn: len(sent.findall(drawn)) >= 3)
        assert len(set(sent.findall(screen.text))) == 1
        screen.press("p")
        screen.mark()
        await screen.until(lambda drawn: len(set(sent.findall(drawn))) >= 3)
        assert (await quit_by(screen, "q"))[0] == 0


async def test_it_follows_the_size_of_the_window() -> None:
    async with serving() as server, terminal(*words(server.port)) as screen:
        beside = re.compile(r"p99  last (\d+) pings")
        await screen.until(beside.search)
        before = int(beside.findall(screen.text)[0])
        screen.resize(140, 30)
        # The numbers beside it may take more room by then, but not all of it.
        await screen.until(lambda drawn: int(beside.findall(drawn)[-1]) > before + 5)
        screen.resize(70, 30)
        screen.mark()
        await screen.until(lambda drawn: re.search(r"p99 *\r?\n", drawn))
        assert (await quit_by(screen, "q"))[0] == 0


async def test_stopped_and_continued() -> None:
    """Ctrl-Z: the shell has its terminal, and then the view is there again."""
    async with serving() as server, terminal(*words(server.port)) as screen:
        await screen.shows("all connected")
        screen.mark()
        screen.process.send_signal(signal.SIGTSTP)
        await screen.until(lambda drawn: LEFT in screen.output)
        stat = Path(f"/proc/{screen.process.pid}/stat")
        await screen.until(lambda drawn: stat.read_text().split()[2] == "T")
        assert screen.is_cooked
        # Until it must have missed slots.
        await ping(server.port, "-c5", "-i0.1")
        screen.mark()
        screen.process.send_signal(signal.SIGCONT)
        await screen.until(lambda drawn: re.search(r", \d+ skipped", drawn))
        assert not screen.is_cooked
        screen.press("q")
        assert await screen.finish() == 0
        assert screen.is_cooked
    assert screen.output.count(ENTERED) == screen.output.count(LEFT) == 2


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
async def test_colour(variables: dict[str, str]) -> None:
    async with serving() as server, terminal(*words(server.port), variables=variables) as screen:
        await screen.until(lambda drawn: re.search(r"[▁-█]{5}", drawn))
        coloured = re.search(r"\x1b\[[0-9;]*3[0-7]m", screen.output)
        assert (coloured is None) == bool(variables)
        assert (await quit_by(screen, "q"))[0] == 0


async def test_drawing_does_not_keep_pings_waiting() -> None:
    """Nor does a terminal that takes no output: somebody pressed Ctrl-S."""
    handler = Choosing(lambda number: [number])
    async with serving(handler) as server, terminal(*words(server.port), "-i0.02") as screen:
        await screen.shows("all connected")
        received = handler.received
        screen.press("\x13")
        await screen.until(lambda drawn: handler.received > received + 100)
        screen.press("\x11")
        screen.mark()
        await screen.shows("all connected")
        assert (await quit_by(screen, "q"))[0] == 0


async def test_where_it_cannot_draw() -> None:
    async with serving() as server:
        status, said = await ping(server.port, "--live")
        assert (status, said.lines) == (2, [])
        assert said.complaints == [
            "--live (PINGPONG_LIVE) draws in a terminal, and the output goes elsewhere: leave it out"
        ]
        async with terminal(*words(server.port), variables={"TERM": "dumb"}) as screen:
            assert await screen.finish() == 2
        assert "--live (PINGPONG_LIVE) needs a terminal that can be drawn in" in screen.text


def test_rich_is_imported_for_the_view_only() -> None:
    """It takes a tenth of a second."""
    code = "import pingpong.client.ping.command, sys; sys.exit('rich.live' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=30)
