from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import peers, servers
from bench.peers import Plan, lines, run
from bench.processes import ROOT
from bench.results import AIOQUIC, COLUMNS, GO, HANDSHAKE, MODES, OURS, Results, Series, picture

SMALL = Plan(starts=1, rounds=2, pings=40, sessions=8, steps=2)


def series(*costs: float) -> Series:
    """Rounds of so many microseconds of CPU."""
    costs = tuple(cost * 1000 for cost in costs)
    ones = [1.0] * len(costs)
    return Series(list(costs), list(costs), list(costs), list(ones), list(ones))


def results(ours: float, others: float = 100) -> Results:
    """Results of servers that cost the same in every measurement."""
    servers = {
        name: {what: series(cost, cost, 9 * cost) for what in COLUMNS}
        for name, cost in (
            *((OURS["aioquic"], ours), (OURS["quinn"], ours)),
            *((GO, others), (AIOQUIC, others), ("aiopquic", others)),
        )
    }
    memory, idle = ({name: [size] for name in servers} for size in (39.0 * 1024, 61e6))
    return Results(["about"], 8, servers, {}, memory, idle)


def verdicts(measured: Results) -> dict[tuple[str, str], str]:
    return {(row[0], row[1]): row[-1] for row in measured.wanted_table()[1:]}


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    measured = Results(
        [], 8, {"a": {"datagram": series(1, 8, 3)}, "b": {"datagram": series(1, 2, 3)}}
    )
    assert measured.ratios("a", "b", "datagram", lambda one: one.cpu) == [1, 4, 1]
    assert measured.ratio_table(["b"])[1] == ["a", "b", "1.00", *[""] * (len(COLUMNS) - 1)]


def test_what_is_wanted_is_compared_with_what_was_measured() -> None:
    good, bad = verdicts(results(40)), verdicts(results(96))
    assert good[f"CPU, datagram, against {GO}", "quinn"] == "yes"
    assert bad[f"CPU, datagram, against {GO}", "quinn"] == "no"
    assert bad[f"CPU, {HANDSHAKE}, against {GO}", "aioquic"] == "yes"
    assert good["KiB a session, of 8", "quinn"] == "yes"
    assert good["MB of an idle server", "quinn"] == "no"
    assert good["CPU, RTT and handshake below aiopquic's", "quinn"] == "yes"
    assert verdicts(results(101))["CPU, RTT and handshake below aiopquic's", "quinn"] == "no"


def test_the_plots_have_a_bar_for_each_server() -> None:
    measured = results(50)
    tree = ElementTree.fromstring(picture(measured))
    rectangles = tree.findall("{http://www.w3.org/2000/svg}rect")
    assert len(rectangles) == 4 * len(measured.servers)
    text = "\n".join(lines(measured))
    assert f"{GO:<16}  {'█' * 50} 100.0" in text
    assert f"{OURS['quinn']:<16}  {'█' * 25} 50.0" in text


def test_the_page_has_a_place_for_each_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    shutil.copy(peers.PAGE, page)
    monkeypatch.setattr(peers, "PAGE", page)
    measured = results(50)
    peers.write(measured)
    once = page.read_text()
    assert "| pingpong-quinn   | 50.0 · 50" in once
    peers.write(measured)
    assert page.read_text() == once
    assert ElementTree.parse(page.with_suffix(".svg")).getroot().tag.endswith("svg")


@pytest.fixture
def without_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    servers.build_generator.cache_clear()
    yield
    servers.build_generator.cache_clear()


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(300)  # a compiler may have to run first
def test_a_small_run_measures_servers_and_clients() -> None:
    try:
        servers.build_generator()
    except servers.MissingError as error:
        pytest.skip(str(error))
    names = [GO, AIOQUIC, "pingpong-aioquic", "bare-aioquic", "bare-udp"]
    measured = run(names, ROOT, SMALL, clients=True, say=lambda text: None)
    assert list(measured.servers) == [*names[:3], "pingpong-aioquic@", *names[3:]]
    assert {"aioquic", "pingpong-aioquic"} <= measured.clients.keys()
    for name, one in (*measured.servers.items(), *measured.clients.items()):
        rounds = {what: len(each.cpu) for what, each in one.items()}
        assert rounds.pop(HANDSHAKE, 2) == SMALL.steps, name
        assert set(rounds.values()) == {SMALL.rounds}, name
        assert min(cpu for each in one.values() for cpu in each.cpu) > 0
    assert set(MODES) < measured.servers["pingpong-aioquic"].keys()
    text = "\n".join(lines(measured))
    assert "our layers, in units of the pump without QUIC | aioquic" in text
    assert "not measured" not in text.replace("pingpong-quinn, client: not measured", "")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.usefixtures("without_go")
def test_without_go_aioquics_client_pings_its_server_and_ours() -> None:
    names = [GO, AIOQUIC, "pingpong-aioquic"]
    measured = run(names, None, SMALL, clients=True, say=lambda text: None)
    assert list(measured.servers) == names[1:]
    assert measured.missing.keys() == {GO, "clients"}
    assert "webtransport-go: not measured: " in "\n".join(lines(measured))


@pytest.mark.process
@pytest.mark.parametrize("what", ["no-such-commit", "."])
def test_what_cannot_be_compared_with_is_said(what: str, tmp_path: Path) -> None:
    script = ROOT / "bench" / "peers.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--against", what],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"bench: {what}: ")
