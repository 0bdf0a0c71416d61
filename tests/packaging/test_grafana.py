"""What Grafana is given: where its data is, the dashboard, and that they go together; read as Grafana reads them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import promql_parser
import pytest
import yaml

from tests.packaging.machines import COMPOSE, DOCKER
from tests.unit.test_alerts_and_boards import BOARDS, exported, panels, selectors

GRAFANA = DOCKER / "grafana"
SOURCES = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
PROVIDERS = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "taskq.yml").read_text())["providers"]
SERVICE = COMPOSE["services"]["grafana"]
COLUMNS = 24
UNITS = {"none", "short", "s", "ms", "bytes", "percentunit", "ops", "reqps", "cps", "dtdurations", "dateTimeFromNow"}
"""Of Grafana's, those that we use or might."""
board = pytest.mark.parametrize("board", [json.loads(path.read_text()) for path in BOARDS], ids=lambda one: one["uid"])


def in_container(path: str) -> Path:
    """The file here that stands at a path there, by the volumes of compose.yaml."""
    mounts = dict(reversed(mount.removesuffix(":ro").split(":")) for mount in SERVICE["volumes"])
    (target,) = (target for target in mounts if Path(path).is_relative_to(target))
    return DOCKER / mounts[target] / Path(path).relative_to(target)


def asked(value: Any) -> Iterator[dict[str, Any]]:
    """Every mention of a data source."""
    if isinstance(value, dict):
        if isinstance(value.get("datasource"), dict):
            yield value["datasource"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from asked(one)


def test_the_one_source_is_prometheus_where_compose_runs_it() -> None:
    (source,) = SOURCES
    assert source["isDefault"] and source["uid"] and source["type"] == "prometheus"
    where = urlsplit(source["url"])
    assert where.hostname in COMPOSE["services"] and where.hostname in SERVICE["depends_on"]
    (port,) = COMPOSE["services"][where.hostname]["ports"]
    assert port.rpartition(":")[2] == str(where.port)


def test_the_boards_are_where_grafana_looks_for_them() -> None:
    (provider,) = PROVIDERS
    assert provider["type"] == "file"
    assert sorted(in_container(provider["options"]["path"]).glob("*.json")) == BOARDS
    assert in_container(SERVICE["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]) in BOARDS
    targets = [volume.split(":")[1] for volume in SERVICE["volumes"]]
    assert "/etc/grafana/provisioning" not in targets, "that hides the folders that the image has there"
    for folder in (GRAFANA / "provisioning").iterdir():
        assert in_container(f"/etc/grafana/provisioning/{folder.name}") == folder, "it is given to Grafana"


@board
def test_every_panel_asks_a_source_that_is_provisioned(board: dict[str, Any]) -> None:
    provisioned = {(source["type"], source["uid"]) for source in SOURCES}
    chosen = {
        (one["query"], f"${{{one['name']}}}") for one in board["templating"]["list"] if one["type"] == "datasource"
    }
    assert {kind for kind, _ in chosen} <= {kind for kind, _ in provisioned}, "there is none to choose"
    asking = list(asked(board))
    assert asking and {(one["type"], one["uid"]) for one in asking} <= provisioned | chosen
    for panel in panels(board):
        if panel["type"] != "row":
            assert panel["datasource"] and all(target["datasource"] for target in panel["targets"]), panel["title"]


@board
def test_a_variable_is_filled_from_what_servers_export(board: dict[str, Any]) -> None:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert found is not None and found[2] in exported()[found[1]], variable["name"]


def labels_of(expression: Any) -> set[str]:
    """The labels of the series that come of an expression."""
    if isinstance(expression, promql_parser.AggregateExpr):
        modifier = expression.modifier
        if modifier is None:
            return set()
        assert "By" in str(modifier.type), "without is used nowhere"
        return set(modifier.labels)
    if isinstance(expression, promql_parser.BinaryExpr):
        return labels_of(expression.lhs)
    if isinstance(expression, promql_parser.ParenExpr | promql_parser.UnaryExpr):
        return labels_of(expression.expr)
    if isinstance(expression, promql_parser.Call):
        return set().union(*(labels_of(argument) for argument in expression.args)) - (
            {"le"} if expression.func.name == "histogram_quantile" else set()
        )
    return set().union(*(exported()[name] for name, _ in selectors(expression)))


@board
def test_a_legend_names_labels_that_its_series_have(board: dict[str, Any]) -> None:
    legends = 0
    for panel in panels(board):
        for target in panel.get("targets", ()):
            expression = promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))
            named = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]))
            assert named <= labels_of(expression), f"{panel['title']}: {target['legendFormat']}"
            legends += len(named)
    assert legends >= 10


@board
def test_a_panel_says_what_it_shows_and_in_what_unit(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("stat", "timeseries", "table", "gauge", "heatmap", "bargauge")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references), panel["title"]
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [{"value": None}])
        values = [step["value"] for step in steps]
        assert values[0] is None and values[1:] == sorted(values[1:]), panel["title"]


@board
def test_no_panel_lies_on_another(board: dict[str, Any]) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for title, at in places:
        assert at["w"] > 0 and at["h"] > 0 and at["x"] >= 0 and at["x"] + at["w"] <= COLUMNS, title
    for (one, a), (other, b) in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one} and {other}"
