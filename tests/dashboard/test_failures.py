"""Of which failures there is something left to do, and where their tasks are."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from taskq_server.http.dashboard import failures, overview
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


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The filters by which tasks were asked for."""
    filters: list[str] = []
    unary = Calls.unary

    async def watched(self: Calls, caller: Any, method: str, request: Any, *rest: str) -> Any:
        filters.extend([request.filter] if method == "AdminService/ListTasks" else [])
        return await unary(self, caller, method, request, *rest)

    monkeypatch.setattr(Calls, "unary", watched)
    return filters


@pytest.mark.parametrize(("most", "looks"), [(200, 1), (1, 5)])
async def test_all_failures_of_a_page_are_told_by_one_look_where_that_is_enough(
    site: Site, listed: list[str], monkeypatch: pytest.MonkeyPatch, most: int, looks: int
) -> None:
    monkeypatch.setattr(failures, "MOST_RETRIED", most)
    processor = await site.processor("oven", can=("bake",))
    await settles(site, processor, "Burnt", "Black", "Hard")
    for error_type in ("Pale", "Soft"):
        await fails(site, processor, error_type, initial_seconds=3_600, max_attempts=2)
    await written(site)
    for _ in range(3):
        failing, _, settled = (await site.get("/failures")).text.partition('id="settled"')
        assert [one in failing for one in ("Burnt", "Black", "Hard", "Pale", "Soft")] == [False] * 3 + [True] * 2
        assert [one in settled for one in ("Burnt", "Black", "Hard", "Pale", "Soft")] == [True] * 3 + [False] * 2
        assert len(listed) == looks, "and what was learnt is kept"


async def test_the_names_of_many_failures_are_asked_for_in_filters_that_can_hold_them(
    site: Site, listed: list[str]
) -> None:
    names = [f"bake.{'x' * 90}.{i}" for i in range(12)]
    processor = await site.processor("oven", can=tuple(names))
    for name in names:
        await site.scheduler.enqueue(name, retry_policy=retrying(1, max_attempts=2))
        await processor.fail(await processor.take_one(), error_type="Pale", message="pale")
    site.clock.advance(2)
    for _ in names[1:]:
        await processor.succeed(await processor.take_one())
    await written(site)
    failing, _, settled = (await site.get("/failures")).text.partition('id="settled"')
    assert sum(f">{one}<" in failing for one in names) == 1 and sum(f">{one}<" in settled for one in names) == 11
    assert len(listed) == 2


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
