"""What a server's settings make of its pages: where they are, what they say of it, whether they change anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from taskq_server.values import COLOURS, HTTP_PATHS
from tests.conftest import StartServer
from tests.dashboard.at_work import AtWork, at_work
from tests.dashboard.axe import faults
from tests.dashboard.conftest import Reader, Site
from tests.dashboard.test_acting import hidden
from tests.dashboard.test_guarding import PAGES
from tests.rpc.callers import granted

BASE = "/ops/taskq"


@pytest.fixture
async def below(start_server: StartServer) -> AsyncIterator[Site]:
    """A server that a proxy shows below a path, to people who are asked for elsewhere."""
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", http_base_path=BASE, auth="off")
    yield site
    await site.end()


@pytest.fixture
async def house_below(start_server: StartServer) -> AsyncIterator[Site]:
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", http_base_path=BASE)
    yield site
    await site.end()


@pytest.fixture
async def museum(start_server: StartServer) -> AsyncIterator[Site]:
    """A server at whose pages one may look, and no more."""
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", dashboard_read_only=True)
    yield site
    await site.end()


ADDRESSES = """() => [...document.querySelectorAll('[href], [src], [action], [data-href], [hx-post]')].flatMap(
  (one) => ['href', 'src', 'action', 'data-href', 'hx-post'].map((name) => one.getAttribute(name)).filter(Boolean))"""


def pages_of(work: AtWork) -> list[str]:
    return [
        *PAGES,
        f"/tasks/{work.running}",
        f"/tasks/{work.failed}",
        f"/schedules/{work.schedule_id}",
        f"/schedules/{work.schedule_id}/edit",
        f"/processors/{work.processor.session_id}",
    ]


async def test_every_address_on_a_page_is_below_the_base_path(below: Site, reader: Reader) -> None:
    work = await at_work(below)

    def addresses(path: str) -> Callable[[Any], list[str]]:
        def run(page: Any) -> list[str]:
            page.goto(below.url + BASE + path)
            return list(page.evaluate(ADDRESSES))

        return run

    for path in (*pages_of(work), f"/act/cancel?ids={work.waiting}"):
        found = await reader.does(addresses(path))
        assert len(found) > 15, path
        strange = [one for one in found if not one.startswith((f"{BASE}/", "#"))]
        assert strange == [], path
    asked = {urlsplit(url).path for url in reader.asked}
    assert {one for one in asked if not one.startswith(f"{BASE}/")} == set()
    assert reader.complaints == []


async def test_a_browser_lives_below_the_base_path(below: Site, reader: Reader) -> None:
    await below.registered("oven", can=("cook",))
    work = await below.scheduler.enqueue("later", delay={"seconds": 60})

    def walk(page: Any) -> list[str]:
        page.goto(below.url + BASE)
        page.keyboard.press("g")
        page.keyboard.press("k")
        page.wait_for_url(f"**{BASE}/capabilities")
        page.locator("#live-text", has_text="live").wait_for()
        page.get_by_role("link", name="Pause", exact=True).first.click()
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()
        page.wait_for_url(f"**{BASE}/capabilities?note=paused")
        page.keyboard.press("Control+k")
        page.keyboard.type(work)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{BASE}/tasks/{work}")
        page.goto(f"{below.url}{BASE}/tasks")
        page.keyboard.press("j")
        page.keyboard.press("x")
        page.keyboard.press("c")
        page.get_by_role("dialog").get_by_role("button", name="Cancel 1 task").click()
        page.wait_for_url(f"**{BASE}/tasks/{work}?op=*")
        return [page.inner_text("h1")]

    assert await reader.does(walk) == ["later"]
    assert reader.complaints == []


async def test_what_a_proxy_has_taken_off_is_not_missed(below: Site) -> None:
    for before in (BASE, ""):
        assert f'href="{BASE}/tasks"' in (await below.get(f"{before}/capabilities")).text
        assert (await below.get(f"{before}/livez")).status == 200
        assert (await below.get(f"{before}/static/taskq.js")).status == 200
        assert json.loads((await below.get(f"{before}/v1/processors")).text)["serverTime"]
        answer = await below.post(f"{before}/act/pause-capability", {"name": "cook"})
        assert (answer.status, answer.headers["location"]) == (303, f"{BASE}/capabilities?note=paused")
    assert json.loads((await below.get(f"{BASE}/openapi.json")).text)["servers"] == [{"url": BASE}]
    for elsewhere in (f"{BASE}x/livez", f"{BASE}{BASE}/livez", "/ops/livez", "/ops%2Ftaskq/livez"):
        assert (await below.get(elsewhere)).status == 404, elsewhere


async def test_signing_in_leads_below_the_base_path_and_the_cookie_stays_there(house_below: Site) -> None:
    away = await house_below.get(f"{BASE}/tasks?filter=name:cook")
    assert away.headers["location"] == f"{BASE}/signin?to=%2Ftasks%3Ffilter%3Dname%3Acook"
    form = await house_below.get(away.headers["location"])
    assert f'action="{BASE}/signin?to=%2Ftasks' in form.text
    token = await granted(house_below.server, "ana", "read")
    answer = await house_below.post(away.headers["location"], {"token": token})
    assert answer.headers["location"] == f"{BASE}/tasks?filter=name:cook"
    [cookie] = answer.cookies
    assert f"path={BASE};" in f"{cookie};".lower()
    house_below.cookie = cookie.partition(";")[0]
    assert (await house_below.get(f"{BASE}/tasks")).status == 200
    out = await house_below.post(f"{BASE}/signout")
    assert out.headers["location"] == f"{BASE}/signin" and f"path={BASE};" in f"{out.cookies[0]};".lower()
    for to in ("//evil.example", "/\\evil.example", "https://evil.example"):
        assert (await house_below.post(f"{BASE}/signin?to={to}", {"token": token})).headers["location"] == f"{BASE}/"


@pytest.mark.parametrize("above", ["taskq_session=another", "taskq_session.ops=another"])
async def test_servers_above_on_the_same_host_have_cookies_of_their_own(house_below: Site, above: str) -> None:
    token = await granted(house_below.server, "ana", "read")
    [cookie] = (await house_below.post(f"{BASE}/signin", {"token": token}, cookie=above)).cookies
    own = cookie.partition(";")[0]
    for both in (f"{own}; {above}", f"{above}; {own}"):
        assert (await house_below.get(f"{BASE}/tasks", cookie=both)).status == 200
    [ended] = (await house_below.post(f"{BASE}/signout", cookie=f"{own}; {above}")).cookies
    assert ended.partition("=")[0] == own.partition("=")[0] != above.partition("=")[0]
    assert (await house_below.get(f"{BASE}/tasks", cookie=f"{own}; {above}")).status == 303


async def test_no_base_path_can_be_taken_for_a_path_of_the_servers_own(below: Site) -> None:
    first = {path.split("/")[1] for path in _paths(below)}
    assert {word for word in first if "." not in word or word == "openapi.json"} == HTTP_PATHS


def _paths(site: Site) -> set[str]:
    application: Any = site.server._http._uvicorn.config.app
    assert site.server._api is not None
    found = {route.path for route in application.routes if route.path != "/"}
    return found | {binding.template.text for binding in site.server._api.bindings}


async def test_pages_that_are_read_only_offer_no_change_and_make_none(museum: Site) -> None:
    work = await at_work(museum)
    for path in pages_of(work):
        page = await museum.get(path)
        assert "/act/" not in page.text and "read-only" in page.text, path
    assert 'href="/tasks/new' not in (await museum.get("/tasks")).text
    for path, fields in (
        ("/act/cancel-task", {"task_id": work.waiting}),
        ("/act/pause-capability", {"name": "cook"}),
        ("/act/cancel", {"ids": work.waiting, "matched": "1"}),
        ("/tasks/new", hidden((await museum.get("/tasks/new")).text) | {"name": "cook", "priority": "9"}),
        ("/act/delete-schedule", {"schedule_id": work.schedule_id}),
    ):
        refused = await museum.post(path, fields)
        assert refused.status in (400, 403) and "TASKQ_DASHBOARD_READ_ONLY" in refused.text, path
    assert (await museum.get(f"/tasks/{work.waiting}")).text.count("state-scheduled") == 1
    tried = await museum.post("/api/AdminService/ListProcessors", {"request": "{}"})
    assert tried.status == 200 and "oven" in tried.text, "what only looks may be tried"
    await museum.admin.pause("cook")  # other ways in are other doors


@pytest.mark.parametrize("colour", ["", *COLOURS])
async def test_an_installation_has_a_name_and_a_colour_that_all_can_read(
    start_server: StartServer, readers: Callable[..., Reader], colour: str
) -> None:
    site = Site(start_server)
    await site.begin(http_listen="127.0.0.1:0", dashboard_environment=f"production{':' if colour else ''}{colour}")
    for theme in ("light", "dark"):
        reader = readers(color_scheme=theme, bypass_csp=True)
        assert await reader.does(faults(site.url + "/api", "dark")) == []
        assert await reader.does(lambda page: (page.title(), page.inner_text(".installation"))) == (
            "API · production · taskq",
            "production",
        )
    await site.end()


async def test_an_installation_without_a_name_is_not_spoken_of(site: Site) -> None:
    assert "installation" not in (await site.get("/api")).text.partition("<main")[0]
