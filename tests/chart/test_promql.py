"""That nobody could ask for a metric or a label that isn't there."""

from __future__ import annotations

import pytest

from tests.chart import promql


@pytest.mark.parametrize(
    "expression",
    [
        'rate(pingpong_client_rtt_seconds_bucket{mode="uni",le="1"}[5m])',
        'sum by (target) (pingpong_client_session_up{namespace="a",job=~".*"})',
        'pingpong_client_connects_total{result=~"dns|tls"}',
        'sum by (a) (label_replace(pingpong_server_draining, "a", "$1", "pod", "(.+)"))',
        "max without (target) (pingpong_client_session_up) and on (pod, node) up",
    ],
)
def test_what_is_there(expression: str) -> None:
    assert promql.problems(expression) == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("pingpong_client_rtt_seconds", "no metric has series pingpong_client_rtt_seconds"),
        ("pingpong_client_sent_total{}", "no metric has series pingpong_client_sent_total"),
        ('pingpong_client_targets{target="a"}', "pingpong_client_targets has no label target"),
        (
            'pingpong_client_connects_total{result=~"dns|eof"}',
            "pingpong_client_connects_total: result is never 'eof'",
        ),
        ("pingpong_client_targets{a}", "pingpong_client_targets: 'a' is no matcher"),
        (
            "sum by (mode) (pingpong_client_session_up)",
            "nothing in it has a label mode: sum by (mode) (pingpong_client_session_up)",
        ),
    ],
)
def test_what_is_not_there(expression: str, problem: str) -> None:
    assert promql.problems(expression) == [problem]
