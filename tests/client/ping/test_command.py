"""`pingpong ping`, against servers in the same loop: real packets, no processes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from typing import Literal

import pytest

from pingpong.client.ping import command as command_module
from pingpong.ping import PROTOCOL
from pingpong.webtransport.quic.engines import is_installed
from tests.client.ping.commands import MODES, REPLY, Choosing, Said, ping, serving, silent_port

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


@pytest.mark.parametrize("engine", ["aioquic", pytest.param("quinn", marks=pytest.mark.quinn)])
async def test_json_has_what_quic_knows_of_the_path(engine: Literal["aioquic", "quinn"]) -> None:
    if not is_installed(engine):
        pytest.skip("quinn is not installed")
    async with serving() as server:
        options = ["--json", "-q", "-c2", "-i0.01", f"--engine={engine}"]
        _, said = await ping(server.port, *options)
    summary = json.loads(said.lines[-1])
    assert summary["engine"] == engine
    assert summary["quic"]["lost_packets"] == 0
    assert summary["quic"]["congestion_window"] > 10_000
    assert 0 < summary["quic"]["rtt_ms"] < 5_000


async def test_a_datagram_that_is_too_large_is_not_sent() -> None:
    async with serving() as server:
        status, said = await ping(server.port, "-c1", "-s5000")
    assert status == 1
    assert said.lines[1].startswith("not sent: seq=1 (a datagram of 5000 bytes does not fit")
    assert said.counts == "0 sent, 0 received, 1 not sent"
    async with serving() as server:
        status, said = await ping(server.port, "-c1", "-s5000", "--mode=stream")
    assert status == 0


# Answers that take their time


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
        status, said = await ping(server.port, "-w1", "-i0.1")
        assert 0.95 < time.monotonic() - began < 10
    assert status == 0
    async with serving() as server:
        status, said = await ping(server.port, "-w1", "-c5", "-i30")
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
    title, reason = said.lines
    assert title == f"--- https://127.0.0.1:{port}/ping pingpong statistics ---"
    assert re.fullmatch(
        rf"not connected after [\d.]+ m?s: no answer yet from 127\.0\.0\.1 UDP port {port}", reason
    )
    assert said.complaints == []


@pytest.mark.parametrize("option", ["-c1", "--json"])
async def test_interrupted_while_resolving(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(command_module, "all_addresses", resolve)
    urls = ["https://a.example/ping", "https://b.example/ping"]
    status, said = await ping(0, "--all", option, *urls)
    assert (status, said.complaints) == (1, [])
    if option == "--json":
        found = [json.loads(line) for line in said.lines]
        assert [each["url"] for each in found] == urls
        reasons = [each["error"] for each in found]
    else:
        titles = [line for line in said.lines if line.startswith("---")]
        assert titles == [f"--- {url} pingpong statistics ---" for url in urls]
        reasons = [line for line in said.lines if line.startswith("not")]
    for reason in reasons:
        assert re.fullmatch(r"not connected after [\d.]+ m?s: still looking up the name", reason)


@pytest.mark.parametrize("words", [("-c2", "-i1.2"), ("-c2", "-i0.01", "-W1.2")])
async def test_long_waits_keep_the_connection_alive(words: tuple[str, ...]) -> None:
    """Between pings, and for the last answer."""
    handler = Choosing(lambda number: [] if number == 1 and "-W1.2" in words else [number])
    async with serving(handler, idle_timeout=0.6) as server:
        status, said = await ping(server.port, *words, idle_timeout=0.6)
    assert status == 0
    assert said.complaints == []
    assert said.counts.startswith("2 sent")
