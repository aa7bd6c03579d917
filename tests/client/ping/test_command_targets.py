"""`pingpong ping` with several targets: at once, in order, and none held up by another."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from pingpong.client.ping import targets
from pingpong.webtransport.asyncio import Target
from pingpong.webtransport.quic.engine import Address
from tests.client.ping.commands import (
    Choosing,
    Said,
    ping,
    serving,
    silent_port,
)
from tests.support.certificates import Authority, self_signed


async def test_each_line_says_which_and_summaries_are_in_order() -> None:
    async with serving() as first, serving() as second:
        urls = [f"https://localhost:{second.port}/ping", f"https://127.0.0.1:{first.port}/"]
        status, said = await ping(0, "-4", "-c3", "-i0.05", *urls)
    assert (status, said.complaints) == (0, [])
    assert sorted(said.lines[:2]) != said.lines[2:4]
    labels = {
        match[1]: int(match[2])
        for line in said.lines
        if (match := re.match(r"(localhost|127\.0\.0\.1) +: 64 bytes from \S+ seq=(\d+) ", line))
    }
    assert labels == {"localhost": 3, "127.0.0.1": 3}
    # Aligned.
    assert {line.index(" : ") for line in said.lines if " : " in line} == {9}
    titles = [line for line in said.lines if line.startswith("---")]
    assert titles == [f"--- {url} pingpong statistics ---" for url in urls]
    assert all(said.lines[said.lines.index(title) - 1] == "" for title in titles)
    assert sum("3 sent, 3 received" in line for line in said.lines) == 2


async def test_one_that_cannot_be_connected_to_does_not_hold_up_others() -> None:
    with silent_port() as silent:
        async with serving() as server:
            good = f"https://127.0.0.1:{server.port}/ping"
            bad = f"https://127.0.0.1:{silent}/ping"
            began = time.monotonic()
            said = Said()
            times: list[float] = []
            said.told = lambda text: times.append(time.monotonic() - began)
            status, said = await ping(
                0, "-c3", "-i0.05", "--connect-timeout=2", bad, good, said=said
            )
    assert status == 2
    assert times[3] < 2  # a line for the connection, and one for each answer
    (complaint,) = said.complaints
    assert complaint.startswith(f"{bad}: no answer on UDP port {silent} of 127.0.0.1")
    first = said.lines.index(f"--- {bad} pingpong statistics ---")
    assert said.lines[first + 1].startswith("not connected: no answer on UDP port")
    assert f"--- {good} pingpong statistics ---" in said.lines[first:]


async def test_exit_statuses() -> None:
    """0: answers from all; 1: none from one of them; 2: one could not be pinged."""
    async with serving() as answers, serving(Choosing(lambda number: [])) as silent:
        good, mute = (f"https://127.0.0.1:{server.port}/ping" for server in (answers, silent))
        assert (await ping(0, "-c1", "-W0.2", good, mute))[0] == 1
        assert (await ping(0, "-c1", "-W0.2", good, f"{good}?x"))[0] == 0
        wrong = f"https://127.0.0.1:{answers.port}/pong"
        assert (await ping(0, "-c1", "-W0.2", wrong, mute, good))[0] == 2


async def test_interrupted_while_one_connects() -> None:
    with silent_port() as silent:
        async with serving() as server:
            good = f"https://127.0.0.1:{server.port}/ping"
            bad = f"https://127.0.0.1:{silent}/ping"
            said = Said()
            said.told = lambda text: signal.raise_signal(signal.SIGINT) if "=2 " in text else None
            status, said = await ping(0, "-i0.05", bad, good, said=said)
    assert (status, said.complaints) == (1, [])
    first = said.lines.index(f"--- {bad} pingpong statistics ---")
    assert said.lines[first + 1].startswith("not connected after ")
    assert said.lines[first + 1].endswith(f": no answer yet from 127.0.0.1 UDP port {silent}")


async def test_for_programs() -> None:
    with silent_port() as port:
        pass  # was free, and is again
    async with serving() as server:
        urls = [f"https://127.0.0.1:{p}/ping" for p in (port, server.port)]
        status, said = await ping(0, "--json", "-D", "-c2", "-i0.05", *urls)
    assert status == 2
    *replies, bad, good = map(json.loads, said.lines)
    assert [reply["target"] for reply in replies] == [f"127.0.0.1:{server.port}"] * 2
    assert all(next(iter(reply)) == "target" for reply in replies)
    assert (bad["target"], bad["url"], bad["sent"]) == (f"127.0.0.1:{port}", urls[0], 0)
    assert "nothing listens there" in bad["error"]
    assert (good["url"], good["received"], good["error"]) == (urls[1], 2, None)


async def test_quit_signal_prints_all_summaries() -> None:
    async with serving() as first, serving() as second:
        said = Said()
        said.told = lambda text: (
            signal.raise_signal(signal.SIGQUIT) if text.endswith("ms)") and "=2 " in text else None
        )
        urls = [f"https://127.0.0.1:{server.port}/ping" for server in (first, second)]
        status, said = await ping(0, "-c3", "-i0.1", *urls, said=said)
    assert status == 0
    titles = [line for line in said.lines if line.startswith("---")]
    assert titles == [f"--- {url} pingpong statistics ---" for url in urls] * 3


async def test_quiet_and_a_deadline_for_all() -> None:
    async with serving() as first, serving() as second:
        urls = [f"https://127.0.0.1:{server.port}/ping" for server in (first, second)]
        status, said = await ping(0, "-q", "-i0.1", "-w1", *urls)
    assert status == 0
    assert said.lines[0] == f"--- {urls[0]} pingpong statistics ---"
    assert said.lines[4:6] == ["", f"--- {urls[1]} pingpong statistics ---"]


# Every address of a name


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What every name leads to."""
    found = ["127.0.0.1", "127.0.0.2"]

    async def resolve(target: Target, timeout: float | None = None) -> list[tuple[int, Address]]:
        return [(socket.AF_INET, (address, target.port)) for address in found]

    monkeypatch.setattr(targets, "resolve", resolve)
    return found


async def test_all_addresses_of_a_name(two_addresses: list[str]) -> None:
    made = self_signed("pings.example")
    pin = ("--cert-hash", made.sha256.hex())
    async with (
        serving(with_certificate=made) as first,
        serving(with_certificate=made, host="127.0.0.2", port=first.port),
    ):
        url = f"https://pings.example:{first.port}/ping"
        status, said = await ping(0, "--all", "-c2", "-i0.05", *pin, url)
        assert (status, said.complaints) == (0, [])
        for address in two_addresses:
            label = f"pings.example ({address})"
            assert sum(line.startswith(f"{label} : 64 bytes") for line in said.lines) == 2
            assert f"--- {url} {address} pingpong statistics ---" in said.lines
        status, said = await ping(0, "--all", "--json", "-q", "-c1", *pin, url)
        assert status == 0
        summaries = list(map(json.loads, said.lines))
        assert [s["target"] for s in summaries] == [f"pings.example ({a})" for a in two_addresses]
        assert [s["address"] for s in summaries] == two_addresses
        assert {s["url"] for s in summaries} == {url}


async def test_an_address_that_is_lost_is_not_replaced_by_another(
    two_addresses: list[str],
) -> None:
    async with serving(handler := Choosing(lambda number: [number])) as server:
        said = Said()

        def leave(text: str) -> None:
            if "seq=2 " in text:
                handler.sessions[0].close(0, "bye")

        said.told = leave
        url = f"https://localhost:{server.port}/ping"
        status, said = await ping(0, "--all", "-c6", "-i0.1", url, said=said)
    assert status == 2  # 127.0.0.2 does not answer
    again = [line for line in said.lines if "connected again" in line]
    assert len(again) == 1
    assert again[0].startswith("localhost (127.0.0.1) : connected again to 127.0.0.1 ")
    assert "not connected: UDP port" in "\n".join(said.lines)


async def test_all_addresses_of_no_name_and_of_an_address() -> None:
    async with serving() as server:
        good = f"https://127.0.0.1:{server.port}/ping"
        status, said = await ping(0, "--all", "-c1", "https://no-such-host.invalid/", good)
    assert status == 2
    (complaint,) = said.complaints
    assert complaint.startswith("https://no-such-host.invalid/: no address for no-such-host")
    assert any(line.startswith("127.0.0.1 ") and "64 bytes" in line for line in said.lines)
    status, said = await ping(0, "--all", "-c1", "https://no-such-host.invalid/")
    assert (status, said.lines, len(said.complaints)) == (2, [], 1)


async def test_the_certificate_is_verified_for_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not for the address that is connected to."""

    async def resolve(target: Target, timeout: float | None = None) -> list[tuple[int, Address]]:
        return [(socket.AF_INET, ("127.0.0.1", target.port))]

    monkeypatch.setattr(targets, "resolve", resolve)
    leaf = Authority().issue("pings.example")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(leaf.authority_pem)
    trust = ("--ca", str(ca_file))
    async with serving(with_certificate=leaf) as server:
        url = f"https://pings.example:{server.port}/ping"
        assert (await ping(0, "--all", "-c1", *trust, url))[0] == 0
        url = f"https://other.example:{server.port}/ping"
        status, said = await ping(0, "--all", "-c1", *trust, url)
    assert status == 2
    assert "the certificate is for pings.example, not for other.example" in said.complaints[0]
