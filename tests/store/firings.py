"""What schedules have fired, and firing all that is due."""

from __future__ import annotations

from taskq_server.core.recurring import Key, Schedule
from taskq_server.core.schedule import Recurrence
from taskq_server.store.store import Store
from tests.store.given import rows

NIGHTLY = Key(None, "nightly")


async def firings(store: Store) -> list[tuple[str, int]]:
    """The name and the nominal time of every firing that is a task, as often as there is one."""
    found = await rows(
        store,
        "SELECT schedule.name AS name, task.nominal_us AS nominal_us FROM task "
        "JOIN schedule ON schedule.schedule_seq = task.schedule_seq ORDER BY 2, 1",
    )
    return [(row["name"], row["nominal_us"]) for row in found]


async def the_schedule(store: Store, key: Key = NIGHTLY) -> Schedule:
    found = await store.get_schedule(key)
    assert found is not None
    return found


async def fire_all(store: Store, ahead: int = 0) -> int:
    """Fires until nothing is left that is due; answers how many tasks that made."""
    tasks = 0
    while True:
        fired = await store.fire(ahead)
        tasks += fired.tasks
        if not fired.more:
            return tasks


def nominal_times(schedule: Schedule, after_us: int, until_us: int) -> list[int]:
    recurrence = Recurrence(schedule.definition.rule, schedule.schedule_id)
    found: list[int] = []
    while (next_us := recurrence.next_after(after_us)) is not None and next_us <= until_us:
        found.append(next_us)
        after_us = next_us
    return found
