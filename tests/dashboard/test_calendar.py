"""The calendar: what is to come, what has run, and how much of it there will be at once."""

from __future__ import annotations

import html
import re
from typing import Any

from tests.dashboard.at_work import at_work
from tests.dashboard.conftest import Reader, Site
from tests.rpc.support import a_task, span
from tests.rpc.test_stats import written
from tests.support.schedules import RawSchedules, every


def way(page: str, title: str) -> str:
    """Where the cell of this title leads."""
    found = re.search(rf'<a href="([^"]+)"[^>]*aria-label="{re.escape(title)}"', page)
    assert found, re.findall(r'aria-label="([^"]+)"', page)
    return html.unescape(found[1])


async def test_what_has_run_stands_in_its_cell_and_leads_to_its_tasks(site: Site) -> None:
    work = await at_work(site)
    page = (await site.get("/calendar")).text
    tasks = (await site.get(way(page, "Tue 14 Nov 22:13: 7 ran, 3 failed"))).text
    assert all(one in tasks for one in (work.succeeded, work.failed, work.retried, work.running))
    assert work.waiting not in tasks
    hours = (await site.get("/calendar?view=month&zone=Europe/Berlin")).text
    assert "Tue 14 Nov 23:00: 7 ran, 3 failed; 7 due, 3 at once" in hours, "of the hour that has begun, both"


async def test_what_ran_in_another_week_is_shown_by_going_back(site: Site) -> None:
    await at_work(site)
    site.clock.advance(9 * 86_400)
    week = (await site.get("/calendar?view=week")).text
    assert " ran" not in week.partition('<svg class="heat"')[2].partition("</svg>")[0] and "back=1" in week
    before = (await site.get("/calendar?view=week&back=2")).text
    assert "Tue 14 Nov 22:00: 7 ran, 3 failed" in before and "Busiest to come" not in before
    assert "back=13" not in (await site.get("/calendar?view=week&back=99")).text, "no older figures are kept"
    for nonsense in ("-1", "x", "99999999"):
        assert (await site.get(f"/calendar?back={nonsense}")).status == 200


async def test_more_at_once_than_there_are_credits_is_foretold(site: Site) -> None:
    processor = await site.processor("oven", can=("cook", "bake"), max_in_flight=2)
    for name, seconds in (("cook", 20), ("bake", 1)):
        await site.scheduler.enqueue(name)
        task = await processor.take_one()
        site.clock.advance(seconds)
        await processor.succeed(task)
    await written(site)
    for name in ("cook", "bake"):
        await site.scheduler.enqueue_all(*(a_task(name, delay=span(3_600 + 5 * i)) for i in range(3)))
    page = (await site.get("/calendar")).text
    assert "Tue 14 Nov 23:13: 6 due, 4 at once" in page, re.findall(r"\d due[^<]*", page)
    assert page.count("over 2</span>") == 1 and 'class="heat-5 over"' in page


async def test_a_cell_is_a_link_with_a_name(site: Site, reader: Reader) -> None:
    work = await at_work(site)

    def follow(page: Any) -> tuple[str, str]:
        page.goto(site.url + "/calendar")
        page.get_by_role("link", name="Tue 14 Nov 23:13: 1 due").click()
        page.wait_for_url("**/tasks?*")
        by_mouse = page.inner_text("#tasks tbody")
        page.goto(site.url + "/calendar")
        page.get_by_role("cell", name="Tue 14 Nov 22:15").get_by_role("link").press("Enter")
        page.wait_for_url("**/tasks?*")
        return by_mouse, page.inner_text("#tasks tbody")

    by_mouse, by_keys = await reader.does(follow)
    assert work.waiting[-4:] in by_mouse and by_keys.count("cook") == 3
    assert reader.complaints == []


async def test_each_firing_is_counted_once_however_many_a_schedule_has(site: Site) -> None:
    schedules = RawSchedules(site.channel())
    await schedules.create(every(60, "minutely"))
    await schedules.create(every(3_600, "hourly"))
    week = (await site.get("/calendar?view=week")).text
    assert "Wed 15 Nov 00:00: 61 due" in week and "Wed 15 Nov 13:00: 61 due" in week
    assert "of schedule minutely only the next 1000 firings are looked at" in week and "schedule hourly" not in week
    assert "Mon 20 Nov 23:00: 1 due" in week and "Wed 15 Nov 15:00: 1 due" in week
    assert "Wed 15 Nov 00:00: 2 due" in (await site.get("/calendar")).text
