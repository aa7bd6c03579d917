"""Of the test network nothing is left behind, and the machine's own is not touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.network.link import ROOT, Link
from tests.support.network.namespaces import FOLDER, PREFIX, Namespace, sweep
from tests.support.running import wait_until

pytestmark = pytest.mark.network

PROGRAM = """
import subprocess, time
from tests.support.network.link import Link

with Link() as link:
    inside = subprocess.Popen(link.client.command("sleep", "60"))
    print(inside.pid, link.forwarder.pid, link.client.name, link.server.name, flush=True)
    time.sleep(60)
"""


def existing() -> set[str]:
    return {name for name in os.listdir(FOLDER) if name.startswith(PREFIX)}


def has_ended(pid: str) -> bool:
    """Also where nobody has asked how: its parent is gone."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


@contextmanager
def another_run() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process with a link of its own, and what it says of it."""
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    with run.stdout:
        try:
            yield run, run.stdout.readline().split()
        finally:
            run.kill()
            run.wait()
            sweep()


def test_the_namespaces_are_gone_when_a_test_has_failed(network: None) -> None:
    link = Link()

    def a_test() -> None:
        with link:
            assert own() <= existing()
            processes.append(subprocess.Popen(link.client.command("sleep", "60")))
            raise RuntimeError("a test fails")

    def own() -> set[str]:
        return {link.client.name, link.server.name}

    processes: list[subprocess.Popen[bytes]] = []
    with pytest.raises(RuntimeError, match="a test fails"):
        a_test()
    assert not own() & existing()
    [inside] = processes
    assert inside.wait(10) == -signal.SIGKILL
    assert link.forwarder.returncode == 0


def test_what_a_killed_run_left_is_swept_away_and_nothing_else(network: None) -> None:
    with another_run() as (run, [pid, _, *left]), Namespace("ours") as ours:
        sweep()
        assert set(left) <= existing()
        run.kill()
        run.wait()
        sweep()
        assert not set(left) & existing()
        assert ours.name in existing()
        wait_until(lambda: has_ended(pid), "what ran inside has ended")


def test_the_forwarder_ends_with_the_process_that_wanted_it(network: None) -> None:
    with another_run() as (run, [_, forwarder, *_]):
        assert not has_ended(forwarder)
        run.kill()
        wait_until(lambda: has_ended(forwarder), "the forwarder has ended")


def test_the_hosts_own_network_is_not_touched(network: None) -> None:
    def ip(*words: str) -> str:
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout

    def state() -> list[str]:
        return [ip("-o", "link"), ip("route"), ip("-6", "route")]

    before = state()
    with Link():
        assert state() == before
    assert state() == before
