"""`pingpong probe` as a whole: from its settings to its end, and what is asked of its admin port."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pingpong.client.discovery import Discovery
from pingpong.client.probe import service
from pingpong.client.probe.metrics import SPECS
from pingpong.client.probe.readiness import judge
from pingpong.client.probe.supervisor import TargetStatus
from tests.client.ping.commands import serving
from tests.client.probe.probing import logs, settings, until
from tests.support.processes import Process
from tests.webtransport.asyncio.peers import closed_port

Answer = tuple[int, str]


class Running:
    """A run of the service in this process."""

    def __init__(self, task: asyncio.Task[int], log: Any) -> None:
        self.task = task
        self._log = log

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]

    async def get(self, path: str) -> Answer:
        url = f"http://127.0.0.1:{self.events('started')[0]['admin_port']}{path}"

        def read() -> Answer:
            try:
                with urllib.request.urlopen(url, timeout=5) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await asyncio.to_thread(read)

    async def metric(self, name: str) -> dict[str, float]:
        """The values of a metric's series, by their labels' values."""
        _, text = await self.get("/metrics")
        return {
            ",".join(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"pingpong_client_{name}"
        }


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch, *ports: int, **options: Any
) -> AsyncIterator[Running]:
    # The collector is the whole process's.
    monkeypatch.setattr(service, "collect_garbage_seldom", lambda: None)
    options.setdefault("targets", tuple(f"https://127.0.0.1:{port}/ping" for port in ports))
    chosen = settings(admin_host="127.0.0.1", admin_port=0, **options)
    run = Running(asyncio.create_task(service.probe(chosen)), log=logs())
    try:
        await until(lambda: run.events("started") or run.task.done())
        yield run
    finally:
        if not run.task.done():
            signal.raise_signal(signal.SIGTERM)
        await run.task


async def test_probes_until_it_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as listener, running(monkeypatch, port := listener.port) as run:
        await until(lambda: run.events("target_up"))
        (started,) = run.events("started")
        assert started["targets"] == [f"https://127.0.0.1:{port}/ping"]
        assert started["trust"].startswith("the certificate with SHA-256 ")
        signal.raise_signal(signal.SIGINT)
        assert await run.task == 0
        (stopping,) = run.events("stopping")
        assert stopping["signal"] == "SIGINT"
        assert run.events("stopped")
        await until(lambda: not listener.connections)


async def test_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as listener, running(monkeypatch, listener.port) as run:
        await until(lambda: run.events("target_up"))
        target = f"127.0.0.1:{listener.port}"
        assert await run.metric("session_up") == {target: 1}
        assert await run.metric("targets") == {"": 1}
        assert (await run.metric("discovery_last_success_timestamp_seconds"))[""] > 1e9
        assert await run.metric("build_info")
        _, text = await run.get("/metrics")
        for spec in SPECS:
            assert f"# TYPE {spec.name} " in text
        assert "process_cpu_seconds_total" in text


async def test_config_and_health(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as listener, running(monkeypatch, listener.port) as run:
        status, text = await run.get("/config")
        assert status == 200
        assert f"127.0.0.1:{listener.port}" in text
        assert (await run.get("/livez"))[0] == 200
        status, text = await run.get("/livez?verbose")
        assert [check["name"] for check in json.loads(text)["checks"]] == [
            "event_loop", "discovery",
        ]  # fmt: skip


@pytest.mark.parametrize(("required", "status"), [("none", 200), ("any", 200), ("all", 503)])
async def test_readiness(monkeypatch: pytest.MonkeyPatch, required: str, status: int) -> None:
    dead = closed_port()
    async with (
        serving() as listener,
        running(monkeypatch, listener.port, dead, ready_requires=required) as run,
    ):
        await until(lambda: run.events("target_up") and run.events("connect_failed"))
        assert (await run.get("/readyz"))[0] == status
        _, text = await run.get("/readyz?verbose")
        check, discovery = json.loads(text)["checks"]
        assert (discovery["name"], discovery["ok"]) == ("discovery", True)
        assert check["name"] == "targets"
        assert check["reason"].startswith(f"1 of 2 targets are up; required: {required}; ")
        down = rf"127.0.0.1:{dead} down for \d+ s \(not connected yet; UDP port"
        assert re.search(down, check["reason"])
        assert re.search(rf"127.0.0.1:{listener.port} up for \d+ s", check["reason"])


async def test_without_discovery_it_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_out(self: Discovery) -> None:
        return

    monkeypatch.setattr(Discovery, "run", run_out)
    async with running(monkeypatch, closed_port()) as run:
        status, text = await run.get("/livez")
        assert (status, text) == (503, "discovery: has ended\n")


async def test_sighup_means_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    async with running(monkeypatch, port, backoff_min=600, backoff_max=600) as run:
        await until(lambda: run.events("connect_failed"))
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: run.events("looking_again"))
        while (await run.metric("connects_total"))[f"refused,127.0.0.1:{port}"] < 2:
            await asyncio.sleep(0.01)


async def test_a_port_that_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = settings(admin_host="127.0.0.1", admin_port=port)
        assert await service.probe(chosen) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pingpong: cannot listen for HTTP on 127.0.0.1 port {port}")


# As a process


def probe_process(*words: str) -> Process:
    options = ("--admin-host=127.0.0.1", "--admin-port=0", "--log-format=json")
    return Process("probe", *options, *words)


@pytest.mark.process
def test_the_process_ends_soon_and_with_0() -> None:
    with probe_process(f"https://127.0.0.1:{closed_port()}/ping") as process:
        process.read_event("started")
        process.send(signal.SIGTERM)
        began = time.monotonic()
        status, _, err = process.finish()
        assert status == 0, err
        assert time.monotonic() - began < 2
        assert '"stopped"' in err


# Which targets suffice


def status(name: str, is_up: bool, reason: str = "") -> TargetStatus:
    return TargetStatus(name, is_up, reason, 12.4)


@pytest.mark.parametrize(
    ("ups", "ok"),
    [
        ([], {"none"}),
        ([False, False], {"none"}),
        ([False, True], {"none", "any"}),
        ([True, True], {"none", "any", "all"}),
    ],
)
def test_what_is_required(ups: list[bool], ok: set[str]) -> None:
    statuses = [status(f"t{number}", is_up) for number, is_up in enumerate(ups)]
    assert {kind for kind in ("none", "any", "all") if judge(kind, statuses).ok} == ok


def test_who_is_down_comes_first_and_not_all_are_told() -> None:
    statuses = [status(f"up-{number}", True) for number in range(30)]
    statuses.append(status("down", False, "x" * 1000))
    reason = judge("all", statuses).reason
    assert reason.startswith("30 of 31 targets are up; required: all; down down for 12 s (xxx")
    assert "up-18 up for 12 s" in reason
    assert "up-19" not in reason
    assert reason.endswith("; and 11 more")
    assert len(reason) < 2000
