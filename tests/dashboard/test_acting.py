"""What pages change: each asks first, says what was wrong, and does what the same call by gRPC does."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import schedule_service_pb2_grpc
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.http import json_body
from taskq_server.http.dashboard.forms import MOST_EDITED_BYTES, text_of
from tests.dashboard.conftest import Reader, Site
from tests.rpc.support import a_task, soon, span


class _Fields(HTMLParser):
    """What a browser would send of the first form of a page that is typed into by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._textarea = self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        if tag == "input" and "name" in has:
            self.found[has["name"]] = has["value"]
        elif tag == "textarea":
            self._textarea = has["name"]
            self.found[self._textarea] = ""
        elif tag == "select":
            self._select = has["name"]
        elif tag == "option" and ("selected" in has or self._select not in self.found):
            self.found[self._select] = has["value"]

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.found[self._textarea] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            text = self.found[self._textarea].replace("\r\n", "\n").replace("\r", "\n").removeprefix("\n")
            self.found[self._textarea] = text.replace("\n", "\r\n")
            self._textarea = ""


def as_shown(text: str) -> dict[str, str]:
    fields = _Fields()
    fields.feed(text.partition('method="post"')[2].partition("</form>")[0])
    return fields.found


def hidden(text: str) -> dict[str, str]:
    """What a form carries along."""
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', text)
    return {name: html.unescape(value) for name, value in found}


async def test_a_capability_is_paused_and_resumed_from_its_page(site: Site, reader: Reader) -> None:
    await site.registered("oven", can=("cook",))

    def pause(page: Any) -> str:
        page.goto(site.url + "/capabilities")
        page.get_by_role("link", name="Pause", exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("the oven is hot")
        dialog.get_by_role("button", name="Pause").click()
        page.wait_for_url("**/capabilities?note=paused")
        return str(page.inner_text("main"))

    assert "the oven is hot" in await reader.does(pause)
    assert (await site.admin.capability("cook")).pause.reason == "the oven is hot"

    def resume(page: Any) -> None:
        page.get_by_role("link", name="Resume", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        page.wait_for_url("**/capabilities?note=resumed")

    await reader.does(resume)
    assert not (await site.admin.capability("cook")).HasField("pause")
    assert reader.complaints == []


async def test_a_processor_is_drained_and_disconnected_also_without_scripts(
    site: Site, readers: Callable[..., Reader]
) -> None:
    processor = await site.registered("oven", can=("cook",))
    session_id = processor.registered.session_id
    reader = readers(java_script_enabled=False)

    def drain(page: Any) -> str:
        page.goto(f"{site.url}/processors")
        page.get_by_role("link", name="oven").click()
        page.get_by_role("link", name="Drain").click()
        page.get_by_label("Reason").fill("a new build")
        page.get_by_role("button", name="Drain").click()
        return str(page.inner_text("main"))

    assert "a new build" in await reader.does(drain)
    assert (await site.admin.processors()).processors[0].drain.reason == "a new build"

    def disconnect(page: Any) -> str:
        page.get_by_role("link", name="Disconnect").click()
        page.get_by_role("button", name="Disconnect").click()
        return str(page.inner_text("main"))

    assert "No processor is registered" in await reader.does(disconnect)
    assert (await site.get(f"/processors/{session_id}")).status == 404


async def test_a_task_is_enqueued_from_a_form_and_once_however_often_it_is_sent(site: Site) -> None:
    form = await site.get("/tasks/new?name=cook")
    assert 'value="cook"' in form.text
    fields = hidden(form.text) | {
        "name": "cook",
        "payload": '{"dish": "soup",\r\n "n": 9007199254740993}',
        "content_type": "application/json",
        "delay": "1.5h",
        "priority": "7",
        "requires": "zone = eu\nspot exists",
        "tags": "vip\r\nhot, hot",
    }
    first = await site.post("/tasks/new", fields)
    again = await site.post("/tasks/new", fields)
    assert first.headers["location"] == f"/tasks/{fields['task_id']}?note=enqueued"
    assert again.status == 400 or again.headers["location"] == f"/tasks/{fields['task_id']}?note=existing"
    task = await site.scheduler.get(fields["task_id"])
    assert task.payload.data == b'{"dish": "soup",\n "n": 9007199254740993}'
    assert (task.priority, set(task.requires), set(task.tags)) == (
        7,
        {"zone = eu", "spot exists"},
        {"vip", "hot, hot"},
    )
    assert task.due_time.seconds - task.enqueue_time.seconds == 5_400


async def test_what_is_wrong_in_a_form_is_said_and_what_was_typed_stays(site: Site) -> None:
    refused = await site.post("/tasks/new", {"name": "no spaces", "payload": "<b>", "content_type": "text/plain"})
    assert refused.status == 400
    assert "tasks[0].name" in refused.text and "&lt;b&gt;" in refused.text
    for field, value in (("payload", "{"), ("delay", "soon"), ("due_time", "noon"), ("priority", "high")):
        refused = await site.post("/tasks/new", {"name": "cook", "content_type": "application/json", field: value})
        assert refused.status == 400 and f"{field} must be" in refused.text


class Schedules:
    """What there is, by gRPC."""

    def __init__(self, site: Site) -> None:
        self._stub = schedule_service_pb2_grpc.ScheduleServiceStub(site.channel())

    async def all(self) -> list[schedule_pb2.Schedule]:
        return list((await soon(self._stub.ListSchedules(schedule_pb2.ListSchedulesRequest()))).schedules)

    async def made(self, **fields: Any) -> schedule_pb2.Schedule:
        recurrence = schedule_pb2.Recurrence(
            crons=["0 9 * * *"], time_zone="Europe/Berlin", excluded_crons=["0 9 1 * *"]
        )
        task = scheduler_pb2.NewTask(name="cook", headers={"kept": "yes"}, tags=["a"])
        task.payload.metadata["key"] = "7"
        schedule = schedule_pb2.Schedule(name="breakfast", recurrence=recurrence, task=task, origin="here", **fields)
        return await self.add(schedule)

    async def add(self, schedule: schedule_pb2.Schedule) -> schedule_pb2.Schedule:
        request = schedule_pb2.CreateScheduleRequest(schedule=schedule)
        return (await soon(self._stub.CreateSchedule(request))).schedule  # type: ignore[no-any-return]


async def test_a_schedule_is_made_with_its_firings_shown_before(site: Site, reader: Reader) -> None:
    def make(page: Any) -> tuple[str, str]:
        page.goto(f"{site.url}/schedules")
        page.keyboard.press("n")
        page.wait_for_url("**/schedules/new")
        page.get_by_label("Name", exact=True).fill("nightly")
        page.get_by_label("Cron expressions").fill("30 2 * * *\n@daily")
        page.get_by_label("Time zone").fill("Europe/Berlin")
        page.get_by_label("Task name").fill("cook")
        page.locator("#preview").get_by_text("Berlin").first.wait_for()
        assert page.locator("#preview tbody tr").count() == 20
        page.get_by_label("Time zone").fill("Atlantis")
        page.wait_for_selector("#preview .wrong")
        wrong = page.inner_text("#preview")
        page.get_by_label("Time zone").fill("Europe/Berlin")
        page.get_by_role("button", name="Create").click()
        page.wait_for_url("**/schedules/*note=created")
        return wrong, str(page.inner_text("h1"))

    wrong, title = await reader.does(make)
    assert "time_zone" in wrong and title == "nightly"
    [made] = await Schedules(site).all()
    assert list(made.recurrence.crons) == ["30 2 * * *", "@daily"]
    assert (made.task.name, made.task.payload.content_type) == ("cook", "application/json")
    assert reader.complaints == []


async def test_an_edited_schedule_keeps_what_its_form_does_not_show(site: Site) -> None:
    schedules = Schedules(site)
    old = await schedules.made()
    form = await site.get(f"/schedules/{old.schedule_id}/edit")
    fields = hidden(form.text)
    assert fields["etag"] == old.etag
    fields |= {
        "name": "brunch",
        "crons": "0 11 * * *",
        "time_zone": "Europe/Berlin",
        "task_name": "cook",
        "tags": "a\r\nb c",
    }
    fields |= {"overlap": "OVERLAP_ALLOW_ALL", "catch_up": "CATCH_UP_SKIP", "dst_policy": "DST_POLICY_SKIP"}
    answer = await site.post(f"/schedules/{old.schedule_id}/edit", fields)
    assert answer.headers["location"].endswith("?note=updated")
    [new] = await schedules.all()
    assert (new.name, list(new.recurrence.crons), list(new.task.tags)) == ("brunch", ["0 11 * * *"], ["a", "b c"])
    assert (new.task.headers["kept"], new.task.payload.metadata["key"], new.origin) == ("yes", "7", "here")
    assert not new.recurrence.excluded_crons  # its field was emptied
    assert new.overlap == schedule_pb2.OVERLAP_ALLOW_ALL

    stale = await site.post(f"/schedules/{old.schedule_id}/edit", fields)
    assert stale.status == 400 and "read it again" in stale.text


AWKWARD = [
    b"\xff\xfe\x00cook",
    b"\0",
    "\ufeffa\r\nb\nc\rd\r\n".encode(),
    b"\n\n  <b>&amp;</textarea>\n",
    b"{not JSON",
    "ä".encode() * 131_072,
    b"",
]
"""Payloads of which a form makes others, if it is not careful."""


def test_what_a_form_could_not_send_back_is_not_shown_in_it() -> None:
    assert text_of(b"x" * MOST_EDITED_BYTES) and text_of(b"x" * (MOST_EDITED_BYTES + 1)) is None


@pytest.mark.parametrize("data", AWKWARD, ids=lambda data: repr(data[:9]))
async def test_a_form_that_is_sent_back_as_it_was_shown_changes_nothing_of_a_schedule(site: Site, data: bytes) -> None:
    task = scheduler_pb2.NewTask(name="cook", tags=["two words", "a,b", "line\nend"], requires=["zone = eu"])
    task.payload.data, task.payload.content_type = data, "application/json"
    task.retry_policy.max_attempts = 3
    recurrence = schedule_pb2.Recurrence(crons=["0 9 * * *"], start_time=Timestamp(seconds=1_900_000_000, nanos=1_000))
    schedules = Schedules(site)
    old = await schedules.add(schedule_pb2.Schedule(name="breakfast", recurrence=recurrence, task=task))
    path = f"/schedules/{old.schedule_id}/edit"
    answer = await site.post(path, as_shown((await site.get(path)).text))
    assert answer.status == 303, answer.text
    [new] = await schedules.all()
    assert new.task == old.task and new.recurrence == old.recurrence
    assert (new.overlap, new.catch_up) == (old.overlap, old.catch_up)

    cloned = as_shown((await site.get(f"/schedules/new?like={old.schedule_id}")).text) | {"name": "brunch"}
    assert (await site.post("/schedules/new", cloned)).status == 303
    [brunch] = [one for one in await schedules.all() if one.name == "brunch"]
    assert brunch.task == old.task


async def test_what_is_typed_into_a_schedule_replaces_what_was_there_and_an_emptied_number_is_the_default(
    site: Site,
) -> None:
    task = scheduler_pb2.NewTask(name="cook", payload={"data": b"{}", "content_type": "application/json"})
    task.retry_policy.max_attempts = 3
    schedules = Schedules(site)
    recurrence = schedule_pb2.Recurrence(crons=["0 9 * * *"])
    old = await schedules.add(schedule_pb2.Schedule(name="breakfast", recurrence=recurrence, task=task))
    path = f"/schedules/{old.schedule_id}/edit"
    typed = as_shown((await site.get(path)).text) | {"payload": '{\r\n"dish": "egg"}', "max_attempts": ""}
    assert (await site.post(path, typed | {"payload": "{"})).status == 400
    assert (await site.post(path, typed)).status == 303
    [new] = await schedules.all()
    assert new.task.payload.data == b'{\n"dish": "egg"}'
    assert new.task.retry_policy.max_attempts == 5


@pytest.mark.parametrize("data", AWKWARD, ids=lambda data: repr(data[:9]))
async def test_a_task_like_another_has_its_payload_byte_by_byte_and_its_tags(site: Site, data: bytes) -> None:
    task = a_task("cook", data, delay=span(60), tags=["two words", "a,b"])
    task.payload.content_type, task.payload.metadata["key"] = "text/plain", "7"
    [old] = await site.scheduler.enqueue_all(task)
    form = as_shown((await site.get(f"/tasks/new?like={old.task_id}")).text)
    answer = await site.post("/tasks/new", form)
    assert answer.status == 303, answer.text
    [before, after] = [await site.scheduler.get(task_id) for task_id in (old.task_id, form["task_id"])]
    assert after.payload == before.payload
    assert set(after.tags) == {"two words", "a,b"}


async def test_a_value_that_no_field_can_hold_is_said_to_be_wrong(site: Site) -> None:
    schedule = await Schedules(site).made()
    edit = f"/schedules/{schedule.schedule_id}/edit"
    shown = as_shown((await site.get(edit)).text)
    task_id = await site.scheduler.enqueue("cook", delay=span(60))
    trigger = hidden((await site.get(f"/act/trigger-schedule?schedule_id={schedule.schedule_id}")).text)
    reprioritise = hidden((await site.get(f"/act/reprioritise?ids={task_id}")).text)
    for path, fields, field, value in (
        ("/tasks/new", {"name": "cook"}, "priority", "99999999999"),
        ("/tasks/new", {"name": "cook"}, "max_attempts", "-99999999999"),
        ("/tasks/new", {"name": "cook"}, "delay", "9" * 300 + "d"),
        ("/act/reprioritise", reprioritise, "priority", "99999999999"),
        ("/act/reprioritise", reprioritise, "matched", "9" * 30),
        ("/act/trigger-schedule", trigger, "overlap", "bogus"),
        (edit, shown, "max_attempts", "2147483648"),
        (edit, shown, "max_firings", "9223372036854775808"),
        (edit, shown, "overlap", "bogus"),
        (edit, shown, "catch_up", "bogus"),
        (edit, shown, "dst_policy", "bogus"),
        (edit, shown, "interval", "nans"),
    ):
        refused = await site.post(path, fields | {field: value})
        assert refused.status == 400 and f"{field} must be" in refused.text, (field, refused.status)


async def test_a_schedule_is_paused_resumed_triggered_backfilled_and_deleted(site: Site) -> None:
    schedules = Schedules(site)
    schedule = await schedules.made(overlap=schedule_pb2.OVERLAP_ALLOW_ALL)

    async def do(action: str, **fields: str) -> str:
        asked = await site.get(f"/act/{action}?schedule_id={schedule.schedule_id}")
        assert asked.status == 200 and "breakfast" in asked.text
        answer = await site.post(f"/act/{action}", hidden(asked.text) | fields)
        assert answer.status == 303, answer.text
        page = await site.get(answer.headers["location"])
        assert page.status == 200
        return page.text

    assert "for a while" in await do("pause-schedule", note="for a while")
    assert (await schedules.all())[0].HasField("pause")
    await do("resume-schedule")
    assert not (await schedules.all())[0].HasField("pause")
    assert "Triggered" in await do("trigger-schedule", overlap="as the schedule says")
    assert (await schedules.all())[0].counters.fired == 1
    site.clock.advance(2 * 86_400)
    now = site.clock.now_us() // 1_000_000
    span = {"start_time": iso(now - 2 * 86_400), "end_time": iso(now)}
    assert re.search(r"Backfilled: \d fired", await do("backfill-schedule", overlap="allow_all", **span))
    assert "Deleted" in await do("delete-schedule")
    assert await schedules.all() == []


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def test_a_call_can_be_tried_and_says_what_was_wrong(site: Site) -> None:
    await site.registered("oven", can=("cook",))
    answer = await site.post("/api/AdminService/ListProcessors", {"request": '{"page_size": 5}'})
    assert answer.status == 200 and "processorName" in answer.text and "oven" in answer.text
    refused = await site.post("/api/AdminService/ListProcessors", {"request": '{"page_size": -1}'})
    assert refused.status == 400 and "INVALID_FIELDS" in refused.text
    refused = await site.post("/api/AdminService/ListProcessors", {"request": '{"nothing": 1}'})
    assert refused.status == 400 and "nothing" in refused.text
    assert 'action="/api/' not in (await site.get("/api/ProcessorService/Register")).text
    assert (await site.get("/api/AdminService/Nothing")).status == 501


async def test_a_call_that_is_tried_is_read_as_the_json_api_reads_it_and_holds_nobody_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[threading.Thread] = []
    loads = json_body.loads

    def watched(text: bytes, what: str) -> Any:
        readers.append(threading.current_thread())
        return loads(text, what)

    monkeypatch.setattr(json_body, "loads", watched)
    for request, why in (
        ('{"tasks": [{"name": "cook", "payload": {"data": "not base64!"}}]}', "must be base64"),
        ("[" * 300_000, "at most 200,000 values"),
        ('{"tasks": [], "tasks": []}', "stands twice"),
        ("{", "must be JSON"),
        ("[]", "must be a JSON object"),
    ):
        refused = await site.post("/api/SchedulerService/Enqueue", {"request": request})
        assert refused.status == 400 and why in refused.text, request[:20]
    assert len(readers) == 5 and threading.main_thread() not in readers
