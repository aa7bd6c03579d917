"""Alerts: what promtool says of them, series by series, and what holds for all of them.

``alerts/`` has promtool's unit tests, a file an alert, and one of what happens in normal life; they
are run on what the chart makes of its values, in ``alerts/secret/`` with a certificate from a
Secret. What an alert says, its annotations, is not compared there.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import promql
from tests.chart.rendering import CHART, Object, loaded, merged, render

PLAIN = CHART / "files" / "alerts.yaml"
RUNBOOK = CHART / "RUNBOOK.md"
CASES = Path(__file__).parent / "alerts"
VALUES: dict[str, Any] = {
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
}
SELF_SIGNED = {"server": {"tls": {"mode": "selfSigned"}}}
APIS = [f"monitoring.coreos.com/v1/{kind}" for kind in ("PodMonitor", "PrometheusRule")]

_THRESHOLD = re.compile(r"(\S+) # (\w+)$", re.MULTILINE)


def rules_of(content: Object) -> dict[str, Object]:
    """Alerts by name; each name is there once."""
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    by_name = {rule["alert"]: rule for rule in rules}
    assert len(by_name) == len(rules)
    return by_name


def rendered(*values: dict[str, Any]) -> Object:
    """What the PrometheusRule says; as a rule file of Prometheus does."""
    rule = render(merged(VALUES, *values), api_versions=APIS).one("PrometheusRule")
    spec: Object = rule["spec"]
    return spec


def thresholds(rule: Object) -> set[tuple[str, str]]:
    """Name and number of each threshold in an alert."""
    return {(name, number) for number, name in _THRESHOLD.findall(rule["expr"])}


def groups_of(path: Path) -> list[dict[str, Any]]:
    """Promtool's tests in a file."""
    groups: list[dict[str, Any]] = yaml.safe_load(path.read_text())["tests"]
    return groups


PLAIN_RULES = rules_of(yaml.safe_load(PLAIN.read_text()))
FILES = sorted(CASES.rglob("*.yaml"))
OTHERS: dict[str, float] = {"severalClients": 3, "discoveryStaleSeconds": 912.5}
"""Other thresholds than the defaults, where it can't be a small fraction."""
DEFAULTS: dict[str, Any] = loaded().values["monitoring"]["prometheusRule"]["thresholds"]

every_alert = pytest.mark.parametrize("name", PLAIN_RULES)


@pytest.mark.promtool
@pytest.mark.parametrize("case", FILES, ids=lambda path: str(path.relative_to(CASES)))
def test_it_fires_keeps_still_and_resolves(case: Path, promtool: Path, tmp_path: Path) -> None:
    content = rendered(SELF_SIGNED if case.parent.name == "self-signed" else {})
    for rule in rules_of(content).values():
        del rule["annotations"]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / case.name).write_text(case.read_text())
    done = subprocess.run(
        [promtool, "test", "rules", case.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_alert
def test_each_has_cases_of_all_three(name: str) -> None:
    fires = resolves = False
    still = []
    for group in groups_of(CASES / f"{name}.yaml"):
        looks = [
            bool(look.get("exp_alerts"))
            for look in group["alert_rule_test"]
            if look["alertname"] == name
        ]
        fires |= any(looks)
        resolves |= any(looks) and not looks[0] and not looks[-1]
        still += [group["name"]] if not any(looks) else []
        # What it says it shows is what it looks at.
        assert any(looks) == group["name"].startswith("fires"), group["name"]
    assert fires
    assert resolves
    assert still


@pytest.mark.promtool
@pytest.mark.parametrize(
    "values", [None, {}, SELF_SIGNED], ids=["as it is", "rendered", "self-signed"]
)
def test_promtool_finds_nothing_to_complain_about(
    values: dict[str, Any] | None, promtool: Path, tmp_path: Path
) -> None:
    path = PLAIN
    if values is not None:
        path = tmp_path / "alerts.yaml"
        path.write_text(yaml.safe_dump(rendered(values)))
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", path],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(PLAIN_RULES)} rules found" in done.stdout


def test_the_chart_adds_this_release_to_the_plain_file_and_nothing_else() -> None:
    made = rules_of(rendered())
    assert list(made) == list(PLAIN_RULES)
    for name, rule in made.items():
        plain = PLAIN_RULES[name]
        component = "server" if name.startswith("PingpongServer") else "client"
        matchers = f'namespace="testing",job="pingpong-{component}"'
        with_matchers = re.sub(r"(pingpong_[a-z_]+){", rf"\1{{{matchers},", plain["expr"])
        assert rule == {**plain, "expr": with_matchers.replace(",}", "}")}
        assert rule["expr"].count(matchers) == len(promql.selectors(plain["expr"]))


def test_thresholds_of_the_plain_file_are_the_default_values() -> None:
    there = {name: float(n) for rule in PLAIN_RULES.values() for name, n in thresholds(rule)}
    # 7 where certificates are somebody else's to renew; null is for the chart to decide.
    assert there == {**DEFAULTS, "certificateDays": 7}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_threshold_is_set_wherever_it_counts(name: str) -> None:
    number = OTHERS.get(name, 0.375)
    values = {"monitoring": {"prometheusRule": {"thresholds": {name: number}}}}
    before, after = rules_of(rendered()), rules_of(rendered(values))
    concerned = [alert for alert in before if name in dict(thresholds(before[alert]))]
    assert concerned
    assert [alert for alert in before if before[alert] != after[alert]] == concerned
    for alert in concerned:
        there = [text for which, text in thresholds(after[alert]) if which == name]
        assert there == [str(number)]


@every_alert
def test_it_asks_for_what_the_services_offer(name: str) -> None:
    assert promql.problems(PLAIN_RULES[name]["expr"]) == []
    assert promql.series(PLAIN_RULES[name]["expr"])


@every_alert
def test_all_numbers_that_decide_are_thresholds_or_none(name: str) -> None:
    expression = _THRESHOLD.sub("", PLAIN_RULES[name]["expr"])
    # What is up or down, there or not; half of the clients.
    compared = set(re.findall(r"[<>=]=? ?(\d[\d.]*)", expression))
    assert compared <= {"0", "1", "0.5"}


@every_alert
def test_it_says_how_severe_it_is_what_it_is_and_where_to_look(name: str) -> None:
    rule = PLAIN_RULES[name]
    assert re.fullmatch(r"Pingpong[A-Z][A-Za-z]+", name)
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    for text in rule["annotations"].values():
        assert text.endswith(".")
        assert "\n" not in text


@every_alert
def test_the_labels_it_speaks_of_are_the_alerts(name: str) -> None:
    texts = " ".join(PLAIN_RULES[name]["annotations"].values())
    spoken = set(re.findall(r"\$labels\.(\w+)", texts))
    for group in groups_of(CASES / f"{name}.yaml"):
        for look in group["alert_rule_test"]:
            for alert in look.get("exp_alerts", []) if look["alertname"] == name else []:
                assert spoken <= alert["exp_labels"].keys()


def test_the_runbook_has_a_section_for_each_and_no_other() -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert [each for each in headings if each.startswith("Pingpong")] == list(PLAIN_RULES)


def test_the_schema_knows_the_names_of_all_alerts() -> None:
    schema: Any = loaded().schema
    monitoring = schema["properties"]["monitoring"]["properties"]["prometheusRule"]["properties"]
    assert monitoring["disabled"]["items"]["enum"] == list(PLAIN_RULES)
