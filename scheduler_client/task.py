"""The original form of a task: a subclass with a name, a config and a schedule, which enqueues itself."""

from __future__ import annotations

from typing import Unpack

from scheduler_client.definition import TaskDefinition
from scheduler_client.handle import Handle
from scheduler_client.request import EnqueueOptions
from scheduler_client.scheduler import Scheduler, default_scheduler


class Task(TaskDefinition):
    """One kind of task; each instance is one to be enqueued.

    class CookTask(Task):
        name = "kitchen.cook"
        config = {"dish": "soup", "servings": 2}
        run_timeout = "10m"

        def schedule(self):
            return timedelta(minutes=1)

    handle = await CookTask(dish="stew").enqueue()
    """

    async def enqueue(self, *, scheduler: Scheduler | None = None, **options: Unpack[EnqueueOptions]) -> Handle:
        """As `Scheduler.enqueue`, by the given scheduler or the default one, whose server is at `TASKQ_ADDRESS`.

        Every call enqueues another task, unless `task_id=` or `key=` says that it is the same.
        """
        return await (scheduler or default_scheduler()).enqueue(self, **options)
