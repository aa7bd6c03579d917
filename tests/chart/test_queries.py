"""Queries of the dashboard and of the alerts, asked of a real Prometheus that scrapes a living pair.

The plain file of alerts is loaded by it as it is.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import promql
from tests.chart.test_alerts import PLAIN, PLAIN_RULES
from tests.chart.test_dashboard import DRAWN, filled_in, queries
from tests.support.processes import PATIENCE, Process

MODES = "datagram,stream,streams,uni"
LOOPBACK = ("--admin-host=127.0.0.1", "--admin-port=0", "--log-format=json")

NORMALLY_EMPTY = {
    ("Draining, where it began", ""): "an annotation, where a server begins to drain",
    ("Outages that are over", "mean length"): "there was none",
    ("Steps of connecting, p95", "{{phase}}"): "nobody connects while all is well",
    ("The server's own time, and first probes", "first probe p99"): "no session begins either",
}
"""Panel and legend of queries that show nothing of a pair that is well, and why."""
SLOW = {"PingpongRttHigh", "PingpongClientEventLoopLag", "PingpongServerEventLoopLag"}


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The data that its API answers with; raises `AssertionError` with what it complains of."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series, or the one number, that a query comes to now."""
        data = self.get("query", query=query)
        result: list[dict[str, Any]] = data["result"]
        return result

    def wait_for(self, query: str) -> None:
        """Wait until a query comes to something."""
        deadline = time.monotonic() + PATIENCE
        while not self.ask(query):
            assert time.monotonic() < deadline, f"nothing yet: {query}"
            time.sleep(0.1)


@contextlib.contextmanager
def scraping(folder: Path, ports: dict[str, int]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these admin ports, with the labels that a cluster adds."""
    scrapes = [
        {
            "job_name": f"pingpong-{component}",
            "static_configs": [
                {
                    "targets": [f"127.0.0.1:{port}"],
                    "labels": {
                        "namespace": "testing",
                        "pod": f"pingpong-{component}-0",
                        "node": "node-0",
                    },
                }
            ],
        }
        for component, port in ports.items()
    ]
    every_second = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config = {"global": every_second, "rule_files": [str(PLAIN)], "scrape_configs": scrapes}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    popen = subprocess.Popen(
        [
            "prometheus",
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert popen.stderr is not None
    patience = threading.Timer(2 * PATIENCE, popen.kill)
    patience.start()
    # It goes on to log, and must not wait for somebody who reads it.
    reader = None
    try:
        log = ""
        for line in popen.stderr:
            log += line
            listening = re.search(r'msg="Listening on" address=(\S+)', log)
            if listening and 'msg="Server is ready' in log:
                break
        else:
            raise AssertionError(log)
        reader = threading.Thread(target=popen.stderr.read)
        reader.start()
        yield Prometheus(f"http://{listening[1]}")
    finally:
        patience.cancel()
        popen.kill()
        popen.wait()
        if reader is not None:
            reader.join()
        popen.stderr.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has scraped a server and a client that pings it, in all modes, often enough."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on the PATH")
    folder = tmp_path_factory.mktemp("prometheus")
    with contextlib.ExitStack() as stack:
        bound = ("--bind-host=127.0.0.1", "--bind-port=0", "--self-ping-interval=1")
        server = stack.enter_context(Process("serve", *LOOPBACK, *bound))
        listening = server.read_event("listening")
        target = f"https://127.0.0.1:{listening['port']}/ping"
        probes = (f"--mode={MODES}", "--interval=0.1", f"--cert-hash={listening['sha256']}")
        client = stack.enter_context(Process("probe", *LOOPBACK, target, *probes))
        ports = {
            "server": listening["admin_port"],
            "client": client.read_event("started")["admin_port"],
        }
        one = stack.enter_context(scraping(folder, ports))
        one.wait_for("min(rate(pingpong_client_rtt_seconds_count[4s])) > 1")
        one.wait_for("min(rate(pingpong_server_messages_answered_total[4s])) > 1")
        one.wait_for("rate(pingpong_client_event_loop_lag_seconds_count[4s]) > 1")
        one.wait_for("rate(pingpong_server_event_loop_lag_seconds_count[4s]) > 1")
        yield one


@pytest.mark.promtool
def test_every_query_of_the_dashboard_shows_something_of_a_living_pair(
    prometheus: Prometheus,
) -> None:
    legends = {
        (panel["title"], target["expr"]): target["legendFormat"]
        for panel in DRAWN
        for target in panel["targets"]
    }
    empty = set()
    for title, query in queries():
        answers = prometheus.ask(filled_in(query, interval="4s"))
        # What is not a number, Grafana does not draw.
        if all(answer["value"][1] == "NaN" for answer in answers):
            empty.add((title, legends.get((title, query), "")))
    assert empty == NORMALLY_EMPTY.keys()


@pytest.mark.promtool
def test_prometheus_loads_the_plain_alerts_and_finds_every_series_they_go_by(
    prometheus: Prometheus,
) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        groups = prometheus.get("rules", type="alert")["groups"]
        loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
        if all(rule["health"] != "unknown" for rule in loaded.values()):
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert loaded.keys() == PLAIN_RULES.keys()
    for name, rule in loaded.items():
        assert rule["health"] == "ok", rule
        for selector in promql.selectors(PLAIN_RULES[name]["expr"]):
            # All labels are there before anything happens, so that the first failure is a rise.
            assert prometheus.ask(selector), f"{name}: nothing is {selector}"
    # All is well: nothing is even about to fire, but for what a machine with much to do may bring.
    assert {name for name, rule in loaded.items() if rule["alerts"]} <= SLOW
