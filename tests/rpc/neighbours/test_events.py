"""What one server changes, those hear who watch at another; and what several servers count is one sum."""

from __future__ import annotations

from tests.rpc.support import retrying
from tests.rpc.test_failure_groups import groups
from tests.rpc.test_stats import stats, written
from tests.rpc.test_watching_events import CAPABILITIES, GAP, TASKS, watching
from tests.rpc.world import Pair


async def test_what_is_changed_at_one_server_is_told_at_another(pair: Pair) -> None:
    here, there = pair
    watch = await watching(here)
    await watch.until(GAP)  # this server writes hints from now on
    await there.server.neighbours.tick()  # type: ignore[union-attr]
    await watch.until(GAP)  # and now the other one, too

    task_id = await there.scheduler.enqueue()
    await watch.until(TASKS)
    await there.scheduler.cancel(task_id)
    assert list((await watch.until(TASKS)).ids) == [task_id]
    await there.admin.pause("cook")
    assert list((await watch.until(CAPABILITIES)).ids) == ["cook"]
    watch.cancel()


async def test_who_moves_to_another_server_goes_on_where_they_were(pair: Pair) -> None:
    here, there = pair
    watch = await watching(here)
    await watch.until(GAP)
    await there.server.neighbours.tick()  # type: ignore[union-attr]
    seen = await watch.until(GAP)
    await there.admin.pause("cook")
    await watch.until(CAPABILITIES)
    watch.cancel()

    again = await watching(there, cursor=seen.cursor)

    assert list((await again.next()).ids) == ["cook"]
    again.cancel()


async def test_what_two_servers_have_done_is_added_up(pair: Pair) -> None:
    for world in pair:
        processor = await world.processor(world.server.address.replace(":", "-"), can=("cook",))
        await world.scheduler.enqueue(retry_policy=retrying(max_attempts=1))
        await processor.fail(await processor.take_one(), message="burnt")
        await processor.unregister()
        await written(world)

    for world in pair:
        (minute,) = (await stats(world)).history
        assert (minute.enqueued, minute.leased, minute.failed) == (2, 2, 2)
        (group,) = await groups(world)
        assert (group.failures, group.failed_tasks, len(group.processor_names)) == (2, 2, 2)
