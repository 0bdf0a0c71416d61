"""Grafana, asked by its HTTP API what a visitor and an administrator would see. Its pages are not looked at.

A visitor asks first: there have been versions in which nobody found a board before somebody had logged in. A source is
named by its uid, which is known since Grafana 9; by its number it is not to be had any more since 13.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.parse
import urllib.request
from typing import Any

from tests.packaging.test_grafana import SERVICE, SOURCES, in_container
from tests.stack.engine import PORTS, say, wait_for
from tests.unit.test_alerts_and_boards import BOARDS, expressions

ADMINISTRATOR = f"admin:{os.environ.get('GRAFANA_PASSWORD', 'admin')}"
OF_SOURCES = ("uid", "type", "url", "isDefault")


def shows_what_it_is_given() -> None:
    """The boards, the home page and the source, as docker/grafana and docker/compose.yaml tell."""
    given = {board["uid"]: board for board in (json.loads(path.read_text()) for path in BOARDS)}
    wait_for(is_up, "Grafana is up")
    wait_for(lambda: found() == set(given), "a visitor finds the dashboard in Grafana")
    for uid, board in given.items():
        assert expressions(of_grafana(f"dashboards/uid/{uid}")["dashboard"]) == expressions(board), uid
    home = json.loads(in_container(SERVICE["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).read_text())
    shown = of_grafana("dashboards/home").get("dashboard", {})
    assert shown.get("title") == home["title"] and expressions(shown) == expressions(home), shown.get("title")
    sources = of_grafana("datasources", login=ADMINISTRATOR)
    assert [only(source) for source in sources] == [only(source) for source in SOURCES], sources
    version = of_grafana("health").get("version")
    say(f"Grafana {version} opens with the dashboard, and has the source {SOURCES[0]['url']}")


def only(source: dict[str, Any]) -> dict[str, Any]:
    return {key: source[key] for key in OF_SOURCES}


def is_up() -> bool:
    try:
        return bool(of_grafana("health")["database"] == "ok")
    except OSError:
        return False


def found() -> set[str]:
    """The boards that a visitor finds; Grafana reads them after it is up."""
    try:
        return {board["uid"] for board in of_grafana("search", type="dash-db")}
    except OSError:
        return set()


def by_proxy(what: str, **asked: str) -> Any:
    """What Prometheus answers to Grafana, which asks for a visitor."""
    return of_grafana(f"datasources/proxy/uid/{SOURCES[0]['uid']}/api/v1/{what}", **asked)["data"]


def of_grafana(path: str, login: str = "", **asked: str) -> Any:
    """OSError where it does not answer, or refuses."""
    question = f"http://localhost:{PORTS['GRAFANA_PORT']}/api/{path}?{urllib.parse.urlencode(asked)}"
    shown = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    with urllib.request.urlopen(urllib.request.Request(question, headers=shown), timeout=10) as answer:
        return json.load(answer)
