"""What became of the tasks of a schedule, of a processor, of a failure; and when one that runs will have ended."""

from __future__ import annotations

import re
from typing import Any

import pytest

from taskq.v1 import admin_task_pb2
from taskq.v1.admin_service_pb2_grpc import AdminServiceStub
from taskq_server.http.dashboard.calls import Calls
from taskq_server.http.dashboard.expected import seconds_left
from taskq_server.http.dashboard.kept import spell
from tests.dashboard.at_work import at_work
from tests.dashboard.conftest import Reader, Site
from tests.dashboard.test_acting import hidden
from tests.dashboard.test_tasks import operated
from tests.rpc.support import retrying, soon, span
from tests.rpc.test_stats import written
from tests.support.schedules import RawSchedules, every


async def test_a_schedule_shows_what_became_of_its_last_firings(site: Site, reader: Reader) -> None:
    work = await at_work(site)

    def look(page: Any) -> tuple[str, list[str], list[str]]:
        page.goto(site.url + "/schedules")
        words = page.get_by_role("img").get_attribute("aria-label")
        heights = page.locator(".marks rect").evaluate_all("all => all.map((one) => one.getAttribute('class'))")
        page.goto(f"{site.url}/schedules/{work.schedule_id}")
        page.click("#firings > summary")
        return words, heights, page.locator("#firings tbody tr td:first-child").all_inner_texts()

    words, classes, rows = await reader.does(look)
    assert words == "The last firings, the last one last: 2 succeeded, 1 failed"
    assert classes == ["bar-succeeded", "bar-failed", "bar-succeeded"]
    assert rows == ["succeeded", "failed", "succeeded"], "the last one first"
    assert reader.complaints == []


async def test_the_firings_of_a_schedule_are_read_again_only_when_it_has_fired_or_one_has_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = await at_work(site)
    looked: list[str] = []
    unary = Calls.unary

    async def watched(self: Calls, caller: Any, method: str, request: Any, *rest: str) -> Any:
        looked.extend([request.filter] if method == "AdminService/ListTasks" else [])
        return await unary(self, caller, method, request, *rest)

    monkeypatch.setattr(Calls, "unary", watched)
    for _ in range(3):
        assert "2 succeeded, 1 failed" in (await site.get("/schedules")).text
    assert looked == ["schedule=tidy"]
    await RawSchedules(site.channel()).trigger(schedule_id=work.schedule_id)
    task = await work.processor.take_one()
    assert "1 running, 2 succeeded, 1 failed" in (await site.get("/schedules")).text
    await work.processor.succeed(task)
    assert "3 succeeded, 1 failed" in (await site.get("/schedules")).text
    assert looked == ["schedule=tidy"] * 3


async def test_a_processor_shows_what_it_has_done_and_how_much_of_it_failed(site: Site) -> None:
    work = await at_work(site)
    await site.registered("oven", can=("fry",))
    page = (await site.get(f"/processors/{work.processor.session_id}")).text
    assert "6 results since" in page and "3 failed (50 %)" in page and "half ran no longer than 2 s" in page
    assert all(one in page for one in (work.succeeded, work.failed, work.retried))
    assert work.waiting not in page
    [namesake] = [one.session_id for one in (await site.admin.processors()).processors if one.session_id not in page]
    assert "results since" not in (await site.get(f"/processors/{namesake}")).text


async def test_what_a_processor_has_done_is_read_once_in_some_seconds_however_many_look(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = await at_work(site)
    looked: list[str] = []
    unary = Calls.unary

    async def watched(self: Calls, caller: Any, method: str, request: Any, *rest: str) -> Any:
        looked.extend([request.filter] if method == "AdminService/ListTasks" else [])
        return await unary(self, caller, method, request, *rest)

    monkeypatch.setattr(Calls, "unary", watched)
    for _ in range(3):
        assert "results since" in (await site.get(f"/processors/{work.processor.session_id}")).text
    assert len(looked) == 1
    site.clock.advance(5)
    assert 'data-pace="5000"' in (await site.get(f"/processors/{work.processor.session_id}")).text
    assert len(looked) == 2


def test_what_is_kept_for_a_time_does_not_end_for_all_at_once() -> None:
    ends = {second for i in range(100) for second in range(30) if _differs(f"{i}", second)}
    assert len(ends) > 20
    assert all(sum(_differs(f"{i}", second) for second in range(30)) == 1 for i in range(100)), "once in its span"


def _differs(key: str, second: int) -> bool:
    return spell(key, second * 1_000_000, 30_000_000) != spell(key, (second + 1) * 1_000_000, 30_000_000)


def test_the_further_a_task_is_the_more_its_own_rate_tells_when_it_ends() -> None:
    assert seconds_left(0.5, 10, None) == 10
    assert seconds_left(0.5, 10, 30) == 0.5 * 10 + 0.5 * 20
    assert seconds_left(0.9, 90, 1_000) == pytest.approx(0.9 * 10 + 0.1 * 910)
    assert seconds_left(0.5, 10, 5) == 5, "one that is slower than usual goes by its own rate alone"
    assert seconds_left(0, 10, 30) is seconds_left(1, 10, 30) is seconds_left(0.5, 0, 30) is None


async def test_a_task_that_runs_says_when_it_will_have_ended_and_when_its_progress_stands_still(site: Site) -> None:
    work = await at_work(site)
    path = f"/tasks/{work.running}"
    page = (await site.get(path)).text
    # a quarter in 4 s leaves 12 s; others took 5 s, the bucket of 2 s: a quarter of 12 s and three of 1 s
    assert re.search(r"expected end</dt><dd><time [^>]+>in 4 s<", page), page.partition("expected end")[2][:200]
    assert ">stale<" not in page
    work.processor.stream.tasks.append(work.held)
    await site.let_pass(15, work.processor)
    assert ">stale<" not in (await site.get(path)).text, "two heartbeats are no wonder"
    await site.let_pass(8, work.processor)
    page = (await site.get(path)).text
    assert ">stale<" in page and "not moved for 23 s" in page
    await work.processor.heartbeat(work.held, progress={"fraction": 0.5, "message": "stirring"})
    assert ">stale<" not in (await site.get(path)).text


async def test_failures_of_which_nothing_is_left_stand_apart_and_are_resolved_by_one_click(
    site: Site, reader: Reader
) -> None:
    processor = await site.processor("oven", can=("bake",))
    await site.scheduler.enqueue("bake", retry_policy=retrying(max_attempts=1))
    await processor.fail(await processor.take_one(), error_type="Burnt", message="black")
    await site.scheduler.enqueue("bake", retry_policy=retrying(3_600, max_attempts=2))
    await processor.fail(await processor.take_one(), error_type="Pale", message="pale")
    await written(site)
    page = (await site.get("/failures")).text
    assert "Nothing left to rerun" not in page and "its tasks are tried again" in page

    asked = await site.get("/act/rerun?filter=state:FAILED")
    await operated(site, (await site.post("/act/rerun", hidden(asked.text))).headers["location"])
    await processor.succeed(await processor.take_one())
    site.clock.advance(10)

    def resolve(page: Any) -> tuple[str, str, str]:
        page.goto(site.url)
        overview = page.inner_text("[aria-labelledby=failing]")
        page.get_by_role("link", name="1 other group").click()
        page.wait_for_url("**/failures#settled")
        before = page.inner_text("[aria-labelledby=settled]")
        page.get_by_role("button", name="Resolve Burnt of bake").click()
        page.wait_for_url("**/failures?note=resolved")
        return overview, before, page.inner_text("main")

    overview, before, after = await reader.does(resolve)
    assert "Pale" in overview and "Burnt" not in overview
    assert "Burnt" in before and "Pale" not in before
    assert "Pale" in after and "Burnt" not in after
    assert reader.complaints == []


async def test_a_schedule_whose_tasks_are_gone_is_not_said_never_to_have_fired(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules = RawSchedules(site.channel())
    made = await schedules.create(every(600, "tidy", task="clean", retention=span(10)))
    where = f"/schedules/{made.schedule_id}"
    assert "It has not fired yet." in (await site.get(where)).text
    await schedules.trigger(schedule_id=made.schedule_id)
    processor = await site.processor("oven", can=("clean",))
    await processor.succeed(await processor.take_one())
    site.clock.advance(20)
    await soon(AdminServiceStub(site.channel()).PruneTasks(admin_task_pb2.PruneTasksRequest()))
    page = (await site.get(where)).text
    assert "not fired yet" not in page and "None of its firings&#39; tasks is kept." in page

    unary = Calls.unary

    async def breaking_off(self: Calls, caller: Any, method: str, request: Any, *rest: str) -> Any:
        answer = await unary(self, caller, method, request, *rest)
        if method == "AdminService/ListTasks":
            answer.next_page_token = "more"
        return answer

    monkeypatch.setattr(Calls, "unary", breaking_off)
    page = (await site.get(where)).text
    assert "None among the tasks that were looked at." in page and "there may be more" in page
