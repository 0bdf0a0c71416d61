"""Enqueue tasks, wait for them, repeat them.

    from scheduler_client import Scheduler, Task

    class CookTask(Task):
        name = "kitchen.cook"
        config = {"dish": "soup", "servings": 2}

    async with Scheduler("localhost:50051") as scheduler:
        handle = await scheduler.enqueue(CookTask(dish="stew"), delay="5m")
        print(await handle.result())

A task is run at least once: a processor may die between its work and its report, so handlers must bear a repetition.

The map, from what a program uses down to the wire:

sync.py            the same names, blocking;            background.py   the thread in which that runs
task.py            Task: enqueues itself;               definition.py   what is so for all tasks of a kind
function_task.py   a function as a kind of task;        names.py        no name belongs to two kinds
recurring.py       cron, every: how a task recurs;      schedule.py     a schedule as it is declared
                                                        declaring.py    and brought in step with the server's
main_scheduler.py  MainScheduler: repeats tasks;        firings.py      what it fired and the server does not have yet
                                                        frequency.py    when it fires;  clock.py  by which time
scheduler.py       Scheduler: every call;               handle.py  view.py   what calls answer
bulk.py            many tasks;                          enqueuer.py     batches, tried again until answered
watcher.py         changes of tasks over few streams;   calls.py        one call, tried again until answered
connection.py      what lives in one event loop
request.py         the options of a task, new_task;     fields.py  retry.py   each option's check and form on the wire
ids.py             task ids, made before the first try; errors.py  what goes wrong with a task
"""

import logging

from client_core.access import TLS
from client_core.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    HandshakeFailed,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TaskqError,
    Unauthenticated,
    Unavailable,
)
from client_core.payload import register_codec
from scheduler_client.declaring import SyncReport
from scheduler_client.errors import (
    Conflict,
    EnqueueManyFailed,
    FiringsNotSent,
    Rejected,
    TaskCancelled,
    TaskFailed,
)
from scheduler_client.function_task import FunctionTask
from scheduler_client.handle import Handle, Outcome
from scheduler_client.main_scheduler import MainScheduler
from scheduler_client.recurring import Recurring, cron, every, on_dates
from scheduler_client.request import new_task
from scheduler_client.retry import Retry
from scheduler_client.schedule import Schedule
from scheduler_client.scheduler import Scheduler
from scheduler_client.task import Task
from scheduler_client.view import Failure, Progress, TaskState, TaskView

__all__ = [
    "TLS",
    "AlreadyExists",
    "Conflict",
    "DeadlineExceeded",
    "EnqueueManyFailed",
    "FailedPrecondition",
    "Failure",
    "FiringsNotSent",
    "FunctionTask",
    "Handle",
    "HandshakeFailed",
    "Internal",
    "InvalidArgument",
    "MainScheduler",
    "NotFound",
    "Outcome",
    "PermissionDenied",
    "Progress",
    "Recurring",
    "Rejected",
    "ResourceExhausted",
    "Retry",
    "Schedule",
    "Scheduler",
    "SyncReport",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskState",
    "TaskView",
    "TaskqError",
    "Unauthenticated",
    "Unavailable",
    "cron",
    "every",
    "new_task",
    "on_dates",
    "register_codec",
]

logging.getLogger("taskq").addHandler(logging.NullHandler())
