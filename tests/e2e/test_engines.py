"""The chart's choice of a QUIC engine, for each side, on a cluster. The defaults are in all others."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Install, Report
from tests.e2e.faults_logs import LogTail
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

SENT = "pingpong_client_probes_sent_total"
ENDS_WITHIN = 60.0
"""Seconds from an upgrade to the end of the pod that is replaced."""


@pytest.mark.parametrize(("server", "client"), [("aioquic", "quinn"), ("quinn", "aioquic")])
def test_each_side_has_its_engine_and_a_drain_loses_no_ping(
    cluster: Cluster, install: Install, report: Report, server: str, client: str
) -> None:
    values = {
        "server": {"settings": {"engine": server}},
        "client": {
            "settings": {
                "engine": client,
                "all": False,
                "interval": 0.05,
                "mode": ["datagram", "stream", "streams", "uni"],
            }
        },
    }
    release = install(values)
    release.wait_up(1)
    old, prober = release.pod("server"), release.pod("client")
    [listening] = release.events(old, "listening")
    assert listening["engine"] == server
    assert len(release.events(old, "engine_limited")) == (server == "quinn")
    [started] = release.events(prober, "started")
    assert started["engine"] == client

    metrics = release.metrics(old)
    assert metrics.value("pingpong_server_sessions_active") == 1
    assert metrics.value("pingpong_server_handshakes_total", result="completed") >= 1
    assert metrics.value("pingpong_server_protocol_errors_total") == 0
    assert release.metrics(prober).labels(SENT, "mode") == {"datagram", "stream", "streams", "uni"}
    passed = release.test()
    assert passed.ok, passed.output

    # The client was there before the server, and had nothing to send to.
    before = release.settled(prober)
    tail = LogTail(cluster, release.namespace, old)
    release.upgrade({"server": {"podAnnotations": {"example.org/version": "2"}}})
    log = tail.wait_end(ENDS_WITHIN)
    assert [event["event"] for event in log][-1] == "stopped"
    assert not [event for event in log if event["event"] == "drain_timed_out"]
    new = release.pod("server")
    answers = "pingpong_server_messages_answered_total"

    eventually(
        lambda: release.metrics(new).sum(answers) > 20, timeout=20, what=f"{new} answers the prober"
    )
    assert release.events(prober, "session_moved")
    assert not release.events(prober, "target_down")
    account = release.settled(prober) - before
    assert account.ok > 100
    assert (account.lost, account.late, account.send_error, account.malformed) == (0, 0, 0, 0), str(
        account
    )
    report(f"server {server}, client {client}", str(account))
    assert release.restarts == 0
