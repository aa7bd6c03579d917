"""The dashboard: what it asks for is there, and Grafana can place and draw it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import promql
from tests.chart.rendering import CHART

FILE = CHART / "files" / "dashboard.json"
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
DRAWN = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
BUILT_IN = {"__rate_interval", "__all"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

every_panel = pytest.mark.parametrize("panel", DRAWN, ids=lambda panel: str(panel["title"]))


def queries() -> Iterator[tuple[str, str]]:
    """Each panel's title and queries, and the annotations'."""
    for panel in DRAWN:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def filled_in(query: str, interval: str = "5m") -> str:
    """A query as Grafana sends it, with all of everything chosen."""
    values = {"__rate_interval": interval, "client_label": "node"}
    return re.sub(
        r"\$\{?([a-z_]\w*)\}?", lambda match: values.get(match[1], ".*"), query, flags=re.ASCII
    )


@every_panel
def test_it_asks_for_what_the_services_offer(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert promql.problems(filled_in(target["expr"])) == []
        assert promql.series(target["expr"])


@every_panel
def test_it_asks_the_data_source_that_was_chosen(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == SOURCE
    assert all(target["datasource"] == SOURCE for target in panel["targets"])


@every_panel
def test_every_series_is_of_what_was_chosen(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for selector in promql.selectors(target["expr"]):
            name = selector.partition("{")[0]
            assert 'namespace=~"$namespace",job=~"$job"' in selector
            has_target = "target" in promql.specs()[name].labels
            assert ('target=~"$target"' in selector) == has_target


@every_panel
def test_it_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


@every_panel
def test_its_legend_names_labels_that_its_series_have(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            grouped = re.search(r"\bby \(([^)]*)\)", target["expr"])
            if grouped:
                assert label in re.split(r", ", grouped[1])
            else:
                assert label in promql.SCRAPED


@pytest.mark.promtool
def test_promtool_can_read_every_query(promtool: Path, tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": filled_in(q)} for n, (_, q) in enumerate(queries())]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", path], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_all_variables_that_are_used_are_there_and_all_that_are_there_are_used() -> None:
    content = FILE.read_text()
    used = set(re.findall(r"\$\{?([a-z_]\w*)", content, re.ASCII)) - BUILT_IN
    assert used == VARIABLES.keys()
    assert list(VARIABLES) == ["datasource", "namespace", "job", "target", "client_label"]
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"


@pytest.mark.parametrize("name", ["namespace", "job", "target"])
def test_a_variable_can_be_all_also_where_the_label_is_missing(name: str) -> None:
    variable = VARIABLES[name]
    assert variable["datasource"] == SOURCE
    assert variable["includeAll"] is True
    assert variable["allValue"] == ".*"
    assert variable["current"]["value"] == ["$__all"]
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
    assert found is not None
    assert found[2] == name
    assert variable["definition"] == variable["query"]["query"]


def test_panels_have_ids_of_their_own() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(number, int) and number > 0 for number in ids)


def test_panels_have_titles_of_their_own() -> None:
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)


def test_no_panel_lies_on_another_or_hangs_out() -> None:
    places = {panel["title"]: panel["gridPos"] for panel in PANELS}
    for title, place in places.items():
        assert place["x"] >= 0, title
        assert place["w"] > 0, title
        assert place["x"] + place["w"] <= 24, title
        assert place["h"] > 0, title
    for (one, a), (other, b) in itertools.combinations(places.items(), 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, f"{one} and {other}"


def test_it_is_as_grafana_reads_it() -> None:
    assert DASHBOARD["uid"] == "pingpong"
    assert DASHBOARD["title"] == "pingpong"
    # An id is a database's; with one, another Grafana refuses the dashboard.
    assert DASHBOARD["id"] is None
    # Of Grafana 10: later ones bring it up to theirs, which they do not do backwards.
    assert DASHBOARD["schemaVersion"] == 38
    assert "__inputs" not in DASHBOARD
    kinds = {panel["type"] for panel in PANELS}
    assert kinds <= {"row", "stat", "timeseries", "table", "heatmap", "bargauge"}
    assert {"heatmap", "table"} <= kinds
    for panel in PANELS:
        if panel["type"] == "row":
            assert panel["panels"] == []
            assert panel["collapsed"] is False


def test_the_matrix_has_clients_in_rows_and_targets_in_columns() -> None:
    tables = [panel for panel in DRAWN if panel.get("transformations")]
    matrices = [
        panel for panel in tables if panel["transformations"][0]["id"] == "groupingToMatrix"
    ]
    assert len(matrices) == 3
    for panel in matrices:
        [target] = panel["targets"]
        assert "by (client, target)" in target["expr"]
        assert target["format"] == "table"
        assert target["instant"] is True
        options = panel["transformations"][0]["options"]
        assert (options["rowField"], options["columnField"]) == ("client", "target")


def test_what_an_alert_goes_by_is_on_a_panel() -> None:
    shown = {metric for _, query in queries() for metric in promql.metrics(query)}
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        missing = promql.metrics(rule["expr"]) - shown
        # That probes are sent at all shows in what became of them.
        assert missing <= {"pingpong_client_probes_sent_total"}, rule["alert"]
