from __future__ import annotations

import pytest

from pingpong.client.discovery import Result
from pingpong.client.probe import metrics
from pingpong.client.probe.metrics import (
    BUILD_INFO,
    COMPLETED,
    DISCOVERY_LAST_SUCCESS,
    DISCOVERY_RESULTS,
    EVENT_LOOP_LAG,
    LOG_LINES_DROPPED,
    MODES,
    SENT,
    SPECS,
    ProbeMetrics,
    TargetCounts,
)
from pingpong.link import CONNECT_RESULTS
from pingpong.link.failures import FAILURES
from pingpong.settings.probe import RTT_BUCKETS
from pingpong.telemetry.metrics import Spec
from pingpong.webtransport.asyncio import Cause

# As the operations page names them; the prefix is pingpong_client_.
NAMES = """
probes_sent_total{target,mode} probes_completed_total{target,mode,result} rtt_seconds{target,mode}
server_time_seconds{target} lost_total{target,direction} duplicates_total{target}
reordered_total{target,mode} connect_duration_seconds{target,phase} connects_total{target,result}
session_up{target} sessions_closed_total{reason} outage_seconds{} targets{}
discovery_total{result} discovery_last_success_timestamp_seconds{} schedule_skipped_total{}
event_loop_lag_seconds{} peer_certificate_not_after_timestamp_seconds{target}
quic_rtt_seconds{target} quic_congestion_window_bytes{target} quic_lost_packets_total{target}
build_info{version,python,aioquic} log_lines_dropped_total{} first_rtt_seconds{target,mode}
"""


def made(*targets: str, modes: tuple[str, ...] = ("datagram",)) -> ProbeMetrics:
    metrics = ProbeMetrics()
    metrics.targets = {name: TargetCounts(modes, RTT_BUCKETS) for name in targets}
    return metrics


def samples(metrics: ProbeMetrics) -> dict[str, float]:
    """The values, series by series, without the prefix."""
    found = {}
    for metric in metrics.collect():
        for sample in metric.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            name = sample.name.removeprefix("pingpong_client_")
            found[f"{name}{{{labels}}}"] = sample.value
    return found


def test_names_and_labels() -> None:
    listed = {
        f"{spec.name.removeprefix('pingpong_client_')}{{{','.join(spec.labels)}}}" for spec in SPECS
    }
    assert listed == set(NAMES.split())


def test_every_spec_is_listed_and_has_its_values() -> None:
    assert {one for one in vars(metrics).values() if isinstance(one, Spec)} == set(SPECS)
    elsewhere = {DISCOVERY_LAST_SUCCESS, EVENT_LOOP_LAG, LOG_LINES_DROPPED, BUILD_INFO}
    names = {spec.metric([]).name for spec in set(SPECS) - elsewhere}
    assert {metric.name for metric in made().collect()} == names


def test_no_scrape_has_more_probes_completed_than_sent() -> None:
    metrics = made("a")
    counts = metrics.targets["a"].modes["datagram"]
    found = {}
    for metric in metrics.collect():
        found[metric.name] = sum(sample.value for sample in metric.samples)
        counts.sent += 1
        counts.completed["ok"] += 1
    assert found[COMPLETED.metric([]).name] <= found[SENT.metric([]).name]


def test_labels_are_of_their_closed_sets() -> None:
    specs = {spec.metric([]).name: spec for spec in SPECS}
    for metric in made("a", modes=MODES).collect():
        for sample in metric.samples:
            for label, values in specs[metric.name].labels.items():
                assert values is None or sample.labels[label] in values


def test_lookups_have_discovery_s_results() -> None:
    assert set(DISCOVERY_RESULTS) == set(Result)
    metrics = made()
    metrics.count_lookup(Result.NXDOMAIN)
    assert samples(metrics)["discovery_total{result=nxdomain}"] == 1


def test_a_target_s_series_are_all_there_from_the_start_and_gone_at_the_end() -> None:
    metrics = made("a", modes=("datagram", "uni"))
    of_target = {name: value for name, value in samples(metrics).items() if "target=a" in name}
    assert set(of_target.values()) == {0}
    for series in (
        "probes_sent_total{target=a,mode=uni}",
        "probes_completed_total{target=a,mode=datagram,result=late}",
        "lost_total{target=a,direction=back}",
        "connects_total{target=a,result=unauthorized}",
        "connect_duration_seconds_count{target=a,phase=resolve}",
        "rtt_seconds_count{target=a,mode=uni}",
        "session_up{target=a}",
    ):
        assert series in of_target
    # Only what is probed has series, and a certificate that nobody has seen has no date.
    assert not any("mode=stream" in name or "certificate" in name for name in of_target)
    assert samples(metrics)["targets{}"] == 1
    del metrics.targets["a"]
    assert not any("target=" in name for name in samples(metrics))


def test_values() -> None:
    metrics = made("a")
    counts = metrics.targets["a"]
    counts.modes["datagram"].sent = 7
    counts.modes["datagram"].rtt.observe(0.003)
    counts.is_up = True
    counts.not_after = 1.5e9
    metrics.sessions_closed["idle"] += 1
    metrics.outages.observe(12.5)
    metrics.skipped = 3
    found = samples(metrics)
    assert found["probes_sent_total{target=a,mode=datagram}"] == 7
    assert found["rtt_seconds_bucket{target=a,mode=datagram,le=0.0015}"] == 0
    assert found["rtt_seconds_bucket{target=a,mode=datagram,le=0.003}"] == 1
    assert found["rtt_seconds_sum{target=a,mode=datagram}"] == pytest.approx(0.003)
    assert found["session_up{target=a}"] == 1
    assert found["peer_certificate_not_after_timestamp_seconds{target=a}"] == 1.5e9
    assert found["sessions_closed_total{reason=idle}"] == 1
    assert found["outage_seconds_sum{}"] == 12.5
    assert found["schedule_skipped_total{}"] == 3


def test_targets_may_come_and_go_between_slices() -> None:
    metrics = made(*map(str, range(300)))
    seen: set[str] = set()
    for number, metric in enumerate(metrics.collect()):
        seen |= {sample.labels.get("target", "") for sample in metric.samples}
        metrics.targets[f"new {number}"] = TargetCounts(["datagram"], RTT_BUCKETS)
        metrics.targets.pop(str(number), None)
    assert {str(number) for number in range(300)} <= seen


def test_every_cause_of_a_failed_connect_has_a_label() -> None:
    assert set(FAILURES) == set(Cause)
    results = {result for result, _ in FAILURES.values()}
    assert results | {"ok", "unauthorized"} == set(CONNECT_RESULTS)
