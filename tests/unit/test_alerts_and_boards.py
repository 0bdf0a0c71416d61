"""Alert rules and the dashboard: each expression is PromQL, and asks for nothing that a server does not export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from taskq_server.metrics import Metrics
from tests.support.process import ROOT

RULES = ROOT / "docker" / "prometheus" / "alerts.yml"
BOARDS = sorted((ROOT / "docker" / "grafana").glob("*.json"))
OBSERVING = ROOT / "docs" / "observing.md"

INNER = promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr
"""What holds one other expression."""
OF_PROMETHEUS = {"up": {"job", "instance"}}
OF_SCRAPING = {"job", "instance"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",), "info": ("",)}


def exported() -> dict[str, set[str]]:
    """Every series that a server may have, and its labels."""
    found: dict[str, set[str]] = dict(OF_PROMETHEUS)
    metrics = Metrics()
    for name, kind, labels in described(metrics):
        for suffix in SUFFIXES[kind]:
            extra = {"le"} if suffix == "_bucket" else set()
            found[name + suffix] = labels | extra | OF_SCRAPING
    return found


def described(metrics: Metrics) -> Iterator[tuple[str, str, set[str]]]:
    """Name, kind and labels of all metrics, those that have no value yet too."""
    for collector, names in metrics.registry._collector_to_names.items():
        labels = set(getattr(collector, "_labelnames", ()) or getattr(collector, "_labels", ()))
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            kind = family.type
            name = family.name + {"counter": "_total", "info": "_info"}.get(kind, "")
            of_samples = {key for sample in family.samples for key in sample.labels}
            yield name, kind, labels | of_samples | ({"version", "python", "grpcio"} if kind == "info" else set())
        assert names is not None


def selectors(expression: Any) -> Iterator[tuple[str, set[str]]]:
    """The metrics that an expression reads, and the labels by which it selects."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name, {matcher.name for matcher in expression.matchers.matchers}
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield from selectors(expression.vector_selector)
    elif isinstance(expression, INNER):
        yield from selectors(expression.expr)
    elif isinstance(expression, promql_parser.BinaryExpr):
        yield from selectors(expression.lhs)
        yield from selectors(expression.rhs)
    elif isinstance(expression, promql_parser.Call):
        for argument in expression.args:
            yield from selectors(argument)
    else:
        assert isinstance(expression, promql_parser.NumberLiteral | promql_parser.StringLiteral), expression


def check(text: str) -> None:
    """Fails for what Prometheus could not run, or would never find anything for."""
    text = text.replace("$__rate_interval", "5m")
    known = exported()
    found = list(selectors(promql_parser.parse(text)))
    for name, labels in found:
        assert name in known, f"no server exports {name}: {text}"
        assert labels <= known[name], f"{name} has no {labels - known[name]}: {text}"
    shared = set.union(*(known[name] for name, _ in found)) if found else set()
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text):
        words = {word.strip() for word in group.split(",")}
        assert words <= shared, f"nothing in it has {words - shared}: {text}"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_what_servers_export_and_says_what_it_is_about(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    check(rule["expr"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert f"`{rule['alert']}`" in OBSERVING.read_text(), "docs/observing.md says what to do about it"


def test_no_two_alerts_have_one_name() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 10


@pytest.mark.parametrize("expression", ["taskq_nothing > 0", 'taskq_processors{colour="red"} > 0', "sum by (("])
def test_an_expression_that_finds_nothing_would_be_noticed(expression: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(expression)


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel.get("targets", ())]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.name)
def test_each_panel_of_a_board_shows_what_servers_export(path: Any) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] and board["title"] and board["schemaVersion"] >= 36
    numbers = [panel["id"] for panel in panels(board)]
    assert len(set(numbers)) == len(numbers)
    assert len(expressions(board)) >= 10
    for expression in expressions(board):
        check(expression)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z][a-z_]*)", path.read_text()))
    assert used - {"__rate_interval"} <= variables


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def metrics_table() -> str:
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    metrics = Metrics()
    helps = {family.name: family.documentation for family in metrics.registry.collect()}
    for name, kind, labels in described(metrics):
        if name.startswith("process_"):
            continue
        family = name.removesuffix("_total").removesuffix("_info")
        shown = ", ".join(f"`{label}`" for label in sorted(labels))
        rows.append(f"| `{name}` | {kind} | {shown} | {helps[family]} |")
    return "\n".join(rows)


def test_the_table_of_metrics_is_the_one_that_the_server_has() -> None:
    table = OBSERVING.read_text().partition("-->\n")[2].partition("\n<!-- /metrics -->")[0]
    assert table == metrics_table()
