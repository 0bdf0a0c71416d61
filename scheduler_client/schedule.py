"""A schedule as a program declares it: a name, when it fires, and what it enqueues."""

from __future__ import annotations

import hashlib
from typing import Any

import taskq.v1.schedule_service_pb2 as wire
from client_core.errors import InvalidArgument
from scheduler_client.definition import TaskDefinition
from scheduler_client.fields import checked_name
from scheduler_client.function_task import FunctionTask
from scheduler_client.recurring import Recurring
from taskq.v1.scheduler_service_pb2 import NewTask

Recurrent = type[TaskDefinition] | TaskDefinition | FunctionTask[Any, Any, Any]
"""A kind of task that says itself when it recurs."""


class Schedule:
    """What `Scheduler.sync_schedules` keeps on the server.

    name    no other schedule has it
    when    `cron(...)`, `every(...)` or `on_dates(...)`
    task    what each firing enqueues: a Task class or instance, a decorated function, or what `new_task` makes

        Schedule("kitchen.brunch", cron("0 11 * * SUN", tz="Europe/Paris"), CookTask(dish="eggs"))

    The task may have no time of its own, no key and no expiry. Raises InvalidArgument, which names every fault.
    """

    def __init__(self, name: str, when: Recurring, task: Recurrent | NewTask) -> None:
        if not isinstance(when, Recurring):
            raise TypeError(f"{when!r:.100} is no recurrence; must be cron(...), every(...) or on_dates(...)")
        try:
            self.name = checked_name(name)
        except ValueError as fault:
            raise InvalidArgument(
                f"schedule {name!r:.140}", reason="INVALID_FIELDS", fields=[("name", str(fault))]
            ) from None
        self.when = when
        self._task = _template(task, when)

    def __repr__(self) -> str:
        return f"<Schedule {self.name} of {self._task.name}>"

    def to_message(self, origin: str = "") -> wire.Schedule:
        """As it is stored: `origin` says who declares it, and what was declared, so that one that somebody has changed
        is told from one whose declaration has changed."""
        message = self.when.to_message()
        message.name = self.name
        message.task.CopyFrom(self._task)
        digest = hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
        message.origin = f"{origin} {digest[:32]}"
        return message


def declared(what: Schedule | Recurrent) -> Schedule:
    """A schedule that is given, or that of a kind of task, which has its name."""
    if isinstance(what, Schedule):
        return what
    when: object
    if isinstance(what, FunctionTask):
        name, when = what.task_name, what.recurring
    elif isinstance(what, TaskDefinition) or (isinstance(what, type) and issubclass(what, TaskDefinition)):
        task = what() if isinstance(what, type) else what
        name, when = task.name, task.schedule()
    else:
        raise TypeError(f"{what!r:.100} cannot be declared; must be a Schedule, a Task or a decorated function")
    if not isinstance(when, Recurring):
        raise TypeError(f"{name} says no recurrence; its schedule must be cron(...), every(...) or on_dates(...)")
    return Schedule(name, when, what)


def _template(task: Recurrent | NewTask, when: Recurring) -> NewTask:
    template = NewTask()
    if isinstance(task, NewTask):
        template.CopyFrom(task)
    elif isinstance(task, FunctionTask):
        template.CopyFrom(task.to_message(**when.args))
    elif isinstance(task, type):
        template.CopyFrom(task(**when.args).to_message())
    else:
        template.CopyFrom(task.to_message())
    if when.args and isinstance(task, NewTask | TaskDefinition):
        raise TypeError(f"{', '.join(when.args)} are given beside {task!r:.100}; must be given to a kind of task")
    template.ClearField("task_id")
    _must_recur(template)
    return template


def _must_recur(template: NewTask) -> None:
    given = {
        "at": template.HasField("due_time"),
        "delay": template.HasField("delay"),
        "expire_after": template.HasField("expire_time"),
        "key": template.HasField("dedup"),
    }
    faults = [(option, "must not be set: each firing has its own") for option, is_set in given.items() if is_set]
    if faults:
        raise InvalidArgument(f"task {template.name!r} cannot recur", reason="INVALID_FIELDS", fields=faults)
