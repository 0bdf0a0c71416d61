"""The pages in a real browser: whatever they hold is text, they ask nobody else, and they can be used by all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.dashboard import anything
from tests.dashboard.at_work import AtWork, at_work
from tests.dashboard.axe import faults
from tests.dashboard.conftest import Reader, Site

ID = "01890000-0000-7000-8000-000000000001"
PAGES = [
    "/",
    "/tasks",
    f"/tasks/{ID}",
    "/tasks/new",
    f"/tasks/new?like={ID}",
    "/failures",
    "/schedules",
    f"/schedules/{ID}",
    f"/schedules/{ID}/edit",
    "/calendar?view=week",
    "/processors",
    "/capabilities",
    "/operations",
    f"/operations/{ID}",
    "/audit",
    "/system",
    "/api",
    "/api/AdminService/ListTasks",
    f"/act/rerun?ids={ID}",
    "/act/cancel?filter=state:RUNNING",
    f"/act/rerun-edited?ids={ID}",
    f"/act/delete-schedule?schedule_id={ID}",
    "/act/pause-capability?name=<script>pwned=1</script>",
    "/tasks?filter=\"><script>pwned=1</script>&note=<b>&page='",
    '/failures?name="><img src=x onerror=pwned=1>',
]
FOREIGN = """() => [...document.querySelectorAll(
  'img, iframe, object, embed, base, marquee, video, math, style, template, body svg script, body svg animate, ' +
  'meta[http-equiv], a[href^="javascript" i], [onload], [onerror], ' +
  '[onclick], [onmouseover], [onfocus], [ontoggle], [onbegin], [onstart], [hx-get*="evil"]')]
  .concat([...document.querySelectorAll('script')].filter((one) => !(one.src ?? '').toString().includes('/static/')))
  .concat([...document.querySelectorAll('[href], [action], [src]')].filter((one) => ['href', 'action', 'src'].some(
    (name) => one.hasAttribute(name) && new URL(one.getAttribute(name), location.href).origin !== location.origin)))
  .map((one) => one.outerHTML.slice(0, 200))"""


FOLDED = "/", "/failures", "/schedules", "/processors", "/calendar?view=week"
"""What looks other on a phone, beside what is looked at with made-up answers."""

PARTS = 3
"""In so many tests, since each page is a second of work."""


def pages_of(work: AtWork) -> list[str]:
    """All that show something of a server at work."""
    tasks = (work.running, work.succeeded, work.failed, work.retried, work.waiting)
    return [
        *("/", "/tasks", "/failures", "/failures?resolved=1", "/schedules", f"/schedules/{work.schedule_id}"),
        *(f"/tasks/{task_id}" for task_id in tasks),
        *(f"/calendar?view={view}" for view in ("day", "week")),
        *("/processors", f"/processors/{work.processor.session_id}", "/capabilities", "/operations", "/audit"),
    ]


BEYOND = """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
  [...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > innerWidth)
  .filter((one) => !one.closest('.scroll')).map((one) => one.outerHTML.slice(0, 150))"""


def look(where: str) -> Callable[[Any], Any]:
    def go(page: Any) -> Any:
        page.goto(where)
        found = page.evaluate(FOREIGN)
        return found, page.evaluate("window.pwned"), page.inner_text("main")[:60]

    return go


async def test_fifty_texts_that_would_be_something_else_stay_text_on_every_page(site: Site, reader: Reader) -> None:
    assert len(anything.HOSTILE) == 50
    where = await site.answers(*anything.servicers())
    for path in PAGES:
        foreign, pwned, shown = await reader.does(look(where + path))
        assert foreign == [], path
        assert pwned is None, path
        assert "went wrong" not in shown, path
    assert {urlsplit(url).netloc for url in reader.asked} == {urlsplit(where).netloc}
    assert reader.complaints == []


async def test_a_page_that_did_let_them_through_would_be_noticed(site: Site, reader: Reader) -> None:
    await reader.does(lambda page: page.goto(site.url + "/api"))
    for text in (text for text in anything.HOSTILE if "refresh" not in text):  # which would lead away
        await reader.does(lambda page, text=text: page.evaluate("(text) => main.innerHTML += text", text))
    assert len(await reader.does(lambda page: page.evaluate(FOREIGN))) > 20


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_page_keeps_anybody_out(site: Site, readers: Callable[..., Reader], theme: str) -> None:
    """axe finds nothing, neither on a phone nor on a desk; in the dark only colours are other."""
    await site.registered("oven", can=("cook",), labels={"zone": "eu"})
    await site.scheduler.enqueue("cook")
    await site.admin.pause("cook", "hot")
    where = await site.answers(*anything.servicers())
    narrow = readers(viewport={"width": 390, "height": 800}, color_scheme=theme, bypass_csp=True)
    wide = readers(viewport={"width": 1440, "height": 900}, color_scheme=theme, bypass_csp=True)
    coloured = ("/", "/tasks", f"/tasks/{ID}", "/failures", f"/schedules/{ID}", "/calendar?view=week", "/capabilities")
    ways = [(wide, where + path) for path in (PAGES[:20] if theme == "light" else coloured)]
    ways += [
        (narrow, site.url + path) for path in ("/", "/capabilities", "/processors", "/tasks/new", "/schedules/new")
    ]

    assert {url: found for reader, url in ways if (found := await reader.does(faults(url, theme)))} == {}


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_page_of_a_server_at_work_keeps_anybody_out(
    site: Site, readers: Callable[..., Reader], theme: str, part: int
) -> None:
    """Made-up answers do not belong together: what only stands where they do is looked at here."""
    pages = pages_of(await at_work(site))[part::PARTS]
    narrow = readers(viewport={"width": 390, "height": 800}, color_scheme=theme, bypass_csp=True)
    wide = readers(viewport={"width": 1440, "height": 900}, color_scheme=theme, bypass_csp=True)
    ways = [(wide, path) for path in pages] + [(narrow, path) for path in pages if theme == "light" and path in FOLDED]
    found = [(path, await reader.does(faults(site.url + path, theme))) for reader, path in ways]
    assert [one for one in found if one[1]] == []


async def test_no_page_is_wider_than_the_screen(site: Site, reader: Reader) -> None:
    where = await site.answers(*anything.servicers(7))

    def beyond(path: str) -> Callable[[Any], list[str]]:
        """What reaches beyond a screen, if the page does."""

        def run(page: Any) -> list[str]:
            page.goto(where + path)
            found = []
            for width in (390, 820, 1440):
                page.set_viewport_size({"width": width, "height": 800})
                found += [f"{width}: {one}" for one in page.evaluate(BEYOND)]
            return found

        return run

    assert {path: found for path in PAGES[:20] if (found := await reader.does(beyond(path)))} == {}


async def test_pages_can_be_walked_by_keys_alone(site: Site, reader: Reader) -> None:
    for name in ("bake", "cook", "fry"):
        await site.registered(name, can=(name,))

    def walk(page: Any) -> tuple[list[str], str, str]:
        page.goto(site.url + "/capabilities")
        seen = []
        for keys in (["g", "p"], ["g", "x"], ["g", "k"]):
            for key in keys:
                page.keyboard.press(key)
            page.wait_for_url(lambda url: True)
            page.wait_for_load_state()
            seen.append(page.inner_text("h1"))
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        page.keyboard.press("j")
        row = page.inner_text("tr.here td")
        page.keyboard.press("?")
        assert page.is_visible("#help")
        page.keyboard.press("Escape")
        page.keyboard.press("Control+k")
        page.keyboard.type("proc")
        page.keyboard.press("Enter")
        page.wait_for_url("**/processors")
        return seen, row, page.inner_text("h1")

    assert await reader.does(walk) == (["Processors", "System", "Capabilities"], "cook", "Processors")


async def test_the_theme_is_the_systems_until_somebody_chooses(site: Site, readers: Callable[..., Reader]) -> None:
    reader = readers(color_scheme="dark")

    def colours(page: Any) -> list[str]:
        page.goto(site.url + "/api")
        found = []
        for _ in range(3):
            found.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.keyboard.press("t")
        page.keyboard.press("t")
        page.keyboard.press("t")
        page.reload()
        return [*found, page.evaluate("getComputedStyle(document.body).backgroundColor")]

    system, dark, light, kept = await reader.does(colours)
    assert system == dark != light == kept


async def test_what_is_new_is_seen_without_asking(site: Site, reader: Reader) -> None:
    await reader.does(lambda page: page.goto(site.url + "/capabilities"))
    await site.registered("oven", can=("cook",))
    await reader.does(lambda page: page.wait_for_selector("text=cook"))
    await site.admin.pause("cook", "the oven is hot")
    await reader.does(lambda page: page.wait_for_selector("text=the oven is hot"))

    def pause(page: Any) -> str:
        page.keyboard.press("p")
        return str(page.inner_text("#live-text"))

    assert await reader.does(pause) == "paused"


async def test_what_somebody_has_opened_and_where_they_are_stays_when_a_page_looks_anew(
    site: Site, reader: Reader
) -> None:
    where = await site.answers(*anything.servicers())

    def stand(page: Any) -> tuple[bool, str]:
        page.goto(f"{where}/tasks/{ID}")
        page.click("#copy-2 > summary", position={"x": 5, "y": 5})
        page.focus("#copy-3 > summary")
        page.evaluate("htmx.ajax('GET', location.href, {target: '#live', select: '#live', swap: 'outerMorph'})")
        page.wait_for_timeout(300)
        return page.evaluate("document.querySelector('#copy-2').open"), page.evaluate(
            "document.activeElement.parentNode.id"
        )

    assert await reader.does(stand) == (True, "copy-3")
