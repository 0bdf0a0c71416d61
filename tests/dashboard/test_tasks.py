"""The pages of tasks, over real ones: the list, one of them, and what is done to one or to many."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
import uuid
from typing import Any

import pytest

from taskq.v1 import task_pb2
from taskq_server.access import Caller
from taskq_server.clock import pause
from taskq_server.http.dashboard import export, payloads
from taskq_server.http.dashboard.calls import Calls
from taskq_server.http.dashboard.tasks import with_state
from tests.dashboard.conftest import Reader, Site
from tests.dashboard.test_acting import hidden
from tests.dashboard.test_guarding import signed_in
from tests.rpc.callers import revoke
from tests.rpc.support import a_task, span

MINUTE = span(60)


async def operated(site: Site, location: str) -> str:
    """The page of an operation, once it has come to its end."""
    path = location if location.startswith("/operations/") else f"/operations/{location.partition('op=')[2]}"
    async with asyncio.timeout(20):
        while "state-succeeded" not in (page := (await site.get(path)).text):
            await pause(0.02)
    return page


async def test_the_list_shows_what_a_filter_matches_and_says_where_a_bad_one_is_wrong(site: Site) -> None:
    cook, bake = await site.scheduler.enqueue("cook"), await site.scheduler.enqueue("bake")
    page = await site.get("/tasks")
    assert cook in page.text and bake in page.text
    page = await site.get("/tasks?filter=name:bake&total=1")
    assert cook not in page.text and bake in page.text and "1 match" in page.text
    page = await site.get("/tasks?filter=colour:%3Cred%3E")
    assert page.status == 400
    assert 'value="colour:&lt;red&gt;"' in page.text and "filter" in page.text


def test_a_tab_asks_for_its_state_and_leaves_the_rest_of_the_filter_as_it_is() -> None:
    text = 'error:"x state:FAILED -y" -state:running name:cook'
    assert with_state(text, "FAILED") == 'state:FAILED error:"x state:FAILED -y" name:cook'
    assert with_state("state:failed name:cook", "FAILED") == "name:cook"
    assert with_state("state=failed,running name:cook", "FAILED") == "state:FAILED name:cook"
    assert with_state("", "RUNNING") == "state:RUNNING"
    assert with_state("-state:RUNNING", "RUNNING") == "state:RUNNING"
    assert with_state('error:"x', "FAILED") == 'state:FAILED error:"x'  # no filter: it is said so, and stays


async def test_a_page_leads_to_the_next(site: Site) -> None:
    await site.scheduler.enqueue_all(*(a_task("cook") for _ in range(30)))
    first = (await site.get("/tasks?size=25")).text
    assert first.count("<tr data-id=") == 25
    following = first.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    second = (await site.get(following)).text
    assert second.count("<tr data-id=") == 5 and 'rel="next"' not in second


async def test_a_task_says_why_it_does_not_run_and_what_it_carries(site: Site) -> None:
    data = b'{"order": {"id": 9007199254740993}, "note": "<b>hot</b>"}'
    [task_id] = [result.task_id for result in await site.scheduler.enqueue_all(_task("gpu-render", data))]
    page = await site.get(f"/tasks/{task_id}")
    assert page.status == 200
    assert "no processor" in page.text.lower() and "gpu-render" in page.text
    assert "9007199254740993" in page.text and "&lt;b&gt;hot" in page.text and "<b>hot" not in page.text
    assert f"taskq task get {task_id}" in page.text and "grpcurl" in page.text
    file = await site.get(f"/tasks/{task_id}/payload")
    assert file.text.encode() == data
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["content-disposition"].startswith("attachment")
    assert (await site.get(f"/tasks/{task_id[:-4]}0000")).status == 404
    assert (await site.get("/tasks/nonsense")).status == 400


def _task(name: str, data: bytes) -> Any:
    task = a_task(name, data)
    task.payload.content_type = "application/json"
    return task


async def test_a_task_that_carries_much_holds_nobody_up_and_is_not_shown_as_json_besides(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: list[threading.Thread] = []
    shown = payloads.shown

    def watched(payload: task_pb2.Payload, text: str = "") -> payloads.Shown:
        makers.append(threading.current_thread())
        return shown(payload, text)

    monkeypatch.setattr(payloads, "shown", watched)
    processor = await site.processor("oven", can=("cook",))
    for size, has_json in ((1_000, True), (262_144, False)):
        await site.scheduler.enqueue("cook")
        task = await processor.take_one()
        await processor.succeed(task, b"x" * size)
        page = await site.get(f"/tasks/{task.task_id}")
        assert page.status == 200 and ('id="raw"' in page.text) is has_json
    assert len(makers) == 4 and threading.main_thread() not in makers


async def test_payloads_are_shown_only_to_those_who_may_read_them(house: Site) -> None:
    await signed_in(house, "admin")
    fields = hidden((await house.get("/tasks/new")).text)
    fields |= {"name": "cook", "payload": '{"card": "4711"}', "content_type": "application/json"}
    await house.post("/tasks/new", fields)
    path = f"/tasks/{fields['task_id']}"
    assert "4711" in (await house.get(path)).text
    await signed_in(house, "payload:read")
    assert "4711" in (await house.get(path)).text
    await signed_in(house, "read")
    page = await house.get(path)
    assert page.status == 200 and "4711" not in page.text and "payload:read" in page.text
    assert (await house.get(f"{path}/payload")).status == 403
    assert "4711" not in (await house.get(f"/tasks/new?like={fields['task_id']}")).text
    assert "/act/" not in page.text


async def test_tasks_are_exported_and_no_cell_is_a_formula(site: Site) -> None:
    processor = await site.processor("oven", can=("cook",))
    task_id = await site.scheduler.enqueue("cook")
    task = await processor.take_one()
    await processor.fail(task, error_type="=HYPERLINK(1)", message="+1", retryable=False)
    file = await site.get("/tasks/export?filter=state:FAILED&as=csv")
    [row] = list(csv.DictReader(io.StringIO(file.text)))
    assert (row["task_id"], row["state"]) == (task_id, "FAILED")
    assert (row["error_type"], row["error_message"]) == ("'=HYPERLINK(1)", "'+1")
    lines = (await site.get("/tasks/export?as=jsonl")).text.splitlines()
    assert json.loads(lines[0])["taskId"] == task_id


async def test_a_file_that_does_not_hold_all_says_so_in_its_last_line(
    house: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await signed_in(house, "admin")
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for task_id in ids:
        await house.post("/tasks/new", {"task_id": task_id, "name": "cook", "delay": "1h"})
    unary = Calls.unary

    async def one_by_one(self: Calls, caller: Caller, method: str, request: Any, *rest: str) -> Any:
        if method == "AdminService/ListTasks":
            request.page_size = 1
            await (then() if request.page_token else nothing())
        return await unary(self, caller, method, request, *rest)

    async def nothing() -> None:
        pass

    async def revoked() -> None:
        await revoke(house.server, token)

    async def too_late() -> None:
        raise TimeoutError

    monkeypatch.setattr(Calls, "unary", one_by_one)
    then = nothing
    whole = (await house.get("/tasks/export?as=jsonl")).text.splitlines()
    assert {json.loads(line)["taskId"] for line in whole} == set(ids)
    for name, most, why in (
        ("MOST", 2, "cut after 2 tasks: a file holds at most 2 tasks"),
        ("MOST_SECONDS", 0, "cut after 1 tasks: a file is written for at most 0 s"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(export, name, most)
            assert json.loads((await house.get("/tasks/export?as=jsonl")).text.splitlines()[-1]) == {"cut": why}
            assert list(csv.reader(io.StringIO((await house.get("/tasks/export?as=csv")).text)))[-1] == [why]
    then = too_late
    assert "no answer in time" in (await house.get("/tasks/export?as=csv")).text.splitlines()[-1]
    then = revoked
    lines = (await house.get("/tasks/export?as=csv")).text.splitlines()
    assert len(lines) == 1 + 1 + 1 and "does not hold any more" in lines[-1]


async def test_one_task_is_cancelled_with_a_reason_and_the_audit_names_it(site: Site) -> None:
    task_id = await site.scheduler.enqueue("cook", delay=MINUTE)
    way = f"/act/cancel-task?task_id={task_id}"
    assert f'href="{way}"' in (await site.get(f"/tasks/{task_id}")).text
    asked = await site.get(way)
    answer = await site.post("/act/cancel-task", hidden(asked.text) | {"reason": "nobody is hungry"})
    assert answer.headers["location"] == f"/tasks/{task_id}?note=cancelled"
    assert "Cancelled." in (await site.get(answer.headers["location"])).text
    assert (await site.scheduler.get(task_id)).state == task_pb2.TASK_STATE_CANCELLED
    audit = (await site.get(f"/audit?kind=task&target={task_id}")).text
    assert "nobody is hungry" in audit and "dashboard" in audit and "CancelTask" in audit
    assert "None yet." in (await site.get("/operations")).text


async def test_whoever_may_enqueue_a_task_may_cancel_it_and_nobody_elses(house: Site) -> None:
    await signed_in(house, "admin")
    new = hidden((await house.get("/tasks/new")).text) | {"delay": "1h"}
    cook, bake = f"{new['task_id'][:-4]}0001", f"{new['task_id'][:-4]}0002"
    await house.post("/tasks/new", new | {"name": "cook", "task_id": cook})
    await house.post("/tasks/new", new | {"name": "bake", "task_id": bake})
    await signed_in(house, "read", "enqueue:cook")
    assert "/act/cancel-task" in (await house.get(f"/tasks/{cook}")).text
    assert (await house.post("/act/cancel-task", {"task_id": cook})).status == 303
    refused = await house.post("/act/cancel-task", {"task_id": bake})
    assert refused.status in (400, 403) and "enqueue:bake" in refused.text
    assert "Cancelled." not in (await house.get(f"/tasks/{bake}")).text
    too_long = await house.post("/act/cancel-task", {"task_id": cook, "reason": "x" * 10_000})
    assert too_long.status == 400 and "reason must be" in too_long.text


async def test_a_task_is_run_again_with_another_payload_and_the_old_one_stays(site: Site) -> None:
    processor = await site.processor("oven", can=("cook",))
    await site.scheduler.enqueue_all(_task("cook", b'{"dish": "soup"}'))
    task = await processor.take_one()
    await processor.succeed(task)
    asked = await site.get(f"/act/rerun-edited?ids={task.task_id}")
    assert "soup" in asked.text
    fields = hidden(asked.text) | {"payload": '{"dish": "stew"}', "content_type": "application/json"}
    bad = await site.post("/act/rerun-edited", fields | {"payload": "{"})
    assert bad.status == 400 and "payload must be JSON" in bad.text
    await operated(site, (await site.post("/act/rerun-edited", fields)).headers["location"])
    again = await processor.take_one()
    assert again.payload.data == b'{"dish": "stew"}'
    assert again.task_id in (await site.get(f"/tasks/{task.task_id}")).text
    assert task.task_id in (await site.get(f"/tasks/{again.task_id}")).text
    assert (await site.scheduler.get(task.task_id)).state == task_pb2.TASK_STATE_SUCCEEDED


async def test_all_that_match_are_changed_once_their_number_is_typed(site: Site) -> None:
    await site.scheduler.enqueue_all(*(a_task("cook", delay=MINUTE) for _ in range(1_000)))
    await site.scheduler.enqueue_all(a_task("cook", delay=MINUTE), a_task("bake", delay=MINUTE))
    asked = await site.get("/act/reprioritise?filter=name:cook")
    assert "1 001 tasks" in asked.text and "Type 1001" in asked.text
    fields = hidden(asked.text) | {"priority": "9", "reason": "breakfast"}
    refused = await site.post("/act/reprioritise", fields | {"typed": "1000"})
    assert refused.status == 400 and "typed must be 1001" in refused.text
    page = await operated(site, (await site.post("/act/reprioritise", fields | {"typed": "1001"})).headers["location"])
    assert "1 001 done" in page and "breakfast" in page
    assert "breakfast" in (await site.get("/operations")).text
    changed = (await site.get("/tasks?filter=priority>=9&total=1")).text
    assert "1 001 match" in changed


async def test_no_filter_means_every_task_and_is_said_so(site: Site) -> None:
    await site.scheduler.enqueue_all(a_task("cook", delay=MINUTE), a_task("bake", delay=MINUTE))
    asked = await site.get("/act/cancel?filter=")
    assert "all tasks, whatever they are" in asked.text and "Cancel 2 tasks" in asked.text
    answer = await site.post("/act/cancel", hidden(asked.text))
    assert "2 done" in await operated(site, answer.headers["location"])


async def test_what_has_changed_meanwhile_is_not_done_by_mistake(site: Site) -> None:
    await site.scheduler.enqueue("cook", delay=MINUTE)
    fields = hidden((await site.get("/act/cancel?filter=name:cook")).text)
    await site.scheduler.enqueue("cook", delay=MINUTE)
    refused = await site.post("/act/cancel", fields)
    assert refused.status == 400 and "1" in refused.text and "2" in refused.text
    answer = await site.post("/act/cancel", fields | {"any_count": "1"})
    assert "2 done" in await operated(site, answer.headers["location"])


async def test_rows_are_chosen_by_keys_and_acted_on(site: Site, reader: Reader) -> None:
    ids = [await site.scheduler.enqueue("cook", delay=MINUTE) for _ in range(3)]

    def cancel_two(page: Any) -> str:
        page.goto(site.url + "/tasks")
        for key in ("j", "x", "j", "Shift+X", "c"):
            page.keyboard.press(key)
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("too many")
        dialog.get_by_role("button", name="Cancel 2 tasks").click()
        page.wait_for_url("**/operations/*")
        return str(page.url)

    url = await reader.does(cancel_two)
    await operated(site, "/operations/" + url.rpartition("/")[2])
    states = await site.scheduler.states(ids)
    assert states == [task_pb2.TASK_STATE_SCHEDULED, *[task_pb2.TASK_STATE_CANCELLED] * 2]
    assert reader.complaints == []


async def test_rows_change_where_they_stand_and_what_is_new_waits_to_be_asked_for(site: Site, reader: Reader) -> None:
    first = await site.scheduler.enqueue("cook", delay=MINUTE)
    await reader.does(lambda page: page.goto(site.url + "/tasks"))
    await reader.does(lambda page: page.locator("#live-text", has_text="live").wait_for())
    await site.scheduler.cancel(first)
    await site.scheduler.enqueue("bake", delay=MINUTE)

    def look(page: Any) -> tuple[str, list[str], list[str]]:
        page.locator("#pill button", has_text="1 new").wait_for()
        page.locator("tr[data-id] .state-cancelled").wait_for()
        before = page.locator("tr[data-id] td:nth-child(3)").all_inner_texts()
        page.click("#pill button")
        page.locator("tr[data-id]").nth(1).wait_for()
        return before, page.locator("tr[data-id] td:nth-child(3)").all_inner_texts()

    assert await reader.does(look) == (["cook"], ["bake", "cook"])
    assert reader.complaints == []
