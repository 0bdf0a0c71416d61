"""Of which failures there is something left to do, and where their tasks are."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from taskq_server.http.dashboard import overview
from taskq_server.http.dashboard.calls import Calls
from tests.dashboard.conftest import Site
from tests.rpc.support import RawProcessor, retrying
from tests.rpc.test_stats import written

SETTLED = "Nothing left to rerun"


async def fails(site: Site, processor: RawProcessor, error_type: str, **policy: Any) -> str:
    """A task that has failed once."""
    task_id = await site.scheduler.enqueue("bake", retry_policy=retrying(**policy))
    await processor.fail(await processor.take_one(), error_type=error_type, message=error_type)
    return task_id


async def settles(site: Site, processor: RawProcessor, *error_types: str) -> list[str]:
    """Tasks that have failed, each in its own way, and have succeeded since."""
    made = [await fails(site, processor, one, initial_seconds=1, max_attempts=2) for one in error_types]
    site.clock.advance(2)
    for _ in error_types:
        await processor.succeed(await processor.take_one())
    await written(site)
    return made


def way(page: str, words: str) -> str:
    """Where the link of these words leads."""
    found = re.search(rf'<a[^>]* href="([^"]+)"[^>]*>{re.escape(words)}</a>', page)
    assert found, page
    return html.unescape(found[1])


async def test_a_failure_is_not_settled_while_its_next_attempt_runs(site: Site) -> None:
    processor = await site.processor("oven", can=("bake",))
    task_id = await fails(site, processor, "Pale", initial_seconds=1, max_attempts=2)
    await written(site)
    site.clock.advance(20)
    task = await processor.take_one()
    page = (await site.get("/failures")).text
    assert SETTLED not in page and "its tasks are tried again" in page
    assert "Pale" in (await site.get("/")).text.partition('id="failing"')[2]
    assert task_id in (await site.get(way(page, "Tasks"))).text, "none of them is FAILED, but they are found"
    await processor.succeed(task)
    site.clock.advance(20)
    assert SETTLED in (await site.get("/failures")).text


async def test_a_failure_of_which_nobody_could_tell_is_not_settled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await settles(site, await site.processor("oven", can=("bake",)), "Pale")
    unary = Calls.unary

    async def late(self: Calls, caller: Any, method: str, request: Any, *rest: str) -> Any:
        if method == "AdminService/ListTasks":
            raise TimeoutError
        return await unary(self, caller, method, request, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Calls, "unary", late)
        page = (await site.get("/failures")).text
        assert SETTLED not in page and "whether its tasks are tried again was not to be learnt" in page
        assert "Pale" in (await site.get("/")).text.partition('id="failing"')[2]
    assert SETTLED in (await site.get("/failures")).text, "what was not learnt is not remembered"


async def test_what_failed_long_ago_is_found_behind_what_is_settled(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = await site.processor("oven", can=("bake",))
    await fails(site, processor, "Burnt", max_attempts=1)
    site.clock.advance(5)
    await settles(site, processor, *(f"Pale{i}" for i in range(overview.MOST_GROUPS)))
    page = (await site.get("/")).text.partition('id="failing"')[2]
    assert "Burnt" in page and "10 other groups" in page and "seen last" not in page
    monkeypatch.setattr(overview, "MOST_PAGES", 1)
    page = (await site.get("/")).text.partition('id="failing"')[2]
    assert "Nothing is left to rerun of the 10 groups seen last." in page and "Nothing is left to rerun." not in page
    assert way(page, "all failures") == "/failures"


async def test_a_settled_failure_leads_to_its_tasks(site: Site) -> None:
    tasks = await settles(site, await site.processor("oven", can=("bake",)), "Pale", 'Too "hot"')
    page = (await site.get("/failures")).text.partition('id="settled"')[2]
    for task_id, words in zip(tasks, ("Pale", "Too &#34;hot&#34;"), strict=True):
        found = (await site.get(way(page, words))).text
        assert [one in found for one in tasks] == [one == task_id for one in tasks]
