"""The metrics of a server with several workers, and of a prober, as Prometheus reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.services import probing, serving


@pytest.mark.promtool
def test_promtool_finds_nothing_to_complain_about(promtool: Path) -> None:
    with serving(workers=2) as server, probing(server, rtt_buckets="0.00005,1") as probe:
        probe.wait_answers()
        texts = [service.get("/metrics") for service in (server, probe)]
    for text in texts:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    buckets = [line for line in texts[1].splitlines() if "_rtt_seconds_bucket" in line]
    of_setting = [line for line in buckets if "client_rtt" in line]
    assert len(of_setting) == 3
