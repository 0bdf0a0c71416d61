"""The calendar: what is to come, what has run, and how much of it there will be at once."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from taskq_server.http.dashboard import coming
from taskq_server.http.dashboard.calls import Calls
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
    assert "7 ran, 3 failed" not in week and "back=1" in week
    before = (await site.get("/calendar?view=week&back=2")).text
    assert "Tue 14 Nov 22:00: 7 ran, 3 failed" in before and "Busiest to come" not in before
    assert "back=13" not in (await site.get("/calendar?view=week&back=99")).text, "no older figures are kept"
    for nonsense in ("-1", "x", "99999999"):
        assert (await site.get(f"/calendar?back={nonsense}")).status == 200


async def test_what_ran_before_anything_that_is_kept_leads_nowhere(site: Site) -> None:
    """What falls due as days pass may run then, and stands in a cell of its own, which does lead somewhere."""
    await at_work(site)
    site.clock.advance(6 * 86_400)
    way((await site.get("/calendar?view=month&back=1")).text, "Tue 14 Nov 22:00: 7 ran, 3 failed")
    site.clock.advance(2 * 86_400)
    month = (await site.get("/calendar?view=month&back=1")).text
    assert "Tue 14 Nov 22:00: 7 ran, 3 failed" in month, "its figures are kept"
    assert 'aria-label="Tue 14 Nov' not in month and "<td>Tue 14 Nov 22:00</td>" in month, "neither is a link"
    assert "the tasks that are still kept, by their last attempt: finished ones for 7 d" in month


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


def due_in(page: str) -> int:
    """In all cells together."""
    return sum(int(many) for many in re.findall(r'aria-label="[^"]*?(\d+) due', page))


@pytest.fixture
def previewed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many firings each preview asked for."""
    counts: list[int] = []
    unary = Calls.unary

    async def watched(self: Calls, caller: Any, method: str, request: Any, *rest: str) -> Any:
        counts.extend([request.count] if method == "ScheduleService/PreviewSchedule" else [])
        return await unary(self, caller, method, request, *rest)

    monkeypatch.setattr(Calls, "unary", watched)
    return counts


async def test_many_schedules_that_fire_often_are_read_within_bounds_and_then_kept(
    site: Site, previewed: list[int]
) -> None:
    schedules = RawSchedules(site.channel())
    for i in range(100):
        await schedules.create(every(60, f"minutely-{i}"))
    week = (await site.get("/calendar?view=week")).text
    assert "of 100 schedules only the next 100 firings, or fewer, are looked at" in week
    assert due_in(week) == coming.MOST_IN_ALL
    assert len(previewed) <= 300 and sum(previewed) <= coming.MOST_IN_ALL
    before = len(previewed)
    for _ in range(5):
        site.clock.advance(30)
        week = (await site.get("/calendar?view=week")).text
    assert len(previewed) == before, "none has changed, and most of what was read is to come"
    assert coming.MOST_IN_ALL - 300 <= due_in(week) < coming.MOST_IN_ALL, "what is over is no longer shown"
    site.clock.advance(60 * 60)
    await site.get("/calendar?view=week")
    assert before < len(previewed) <= before + 200, "half of it is over"


async def test_what_will_fire_is_read_again_when_its_schedule_changes(site: Site, previewed: list[int]) -> None:
    schedules = RawSchedules(site.channel())
    made = await schedules.create(every(3_600, "hourly"))
    assert "Wed 15 Nov 12:00: 1 due" in (await site.get("/calendar?view=week")).text
    made.recurrence.interval.CopyFrom(span(7_200))
    await schedules.update(made)
    before = len(previewed)
    week = (await site.get("/calendar?view=week")).text
    assert len(previewed) > before and len(set(re.findall(r"Wed 15 Nov [0-9:]+: 1 due", week))) == 12


async def test_what_could_not_be_read_of_a_schedule_is_said_and_not_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await RawSchedules(site.channel()).create(every(3_600, "hourly"))
    unary = Calls.unary

    async def late(self: Calls, caller: Any, method: str, request: Any, *rest: str) -> Any:
        if method == "ScheduleService/PreviewSchedule":
            raise TimeoutError
        return await unary(self, caller, method, request, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Calls, "unary", late)
        page = (await site.get("/calendar")).text
        assert "what schedule hourly will fire was not read: there was no answer in time" in page
    page = (await site.get("/calendar")).text
    assert "was not read" not in page and "Wed 15 Nov 00:00: 1 due" in page
