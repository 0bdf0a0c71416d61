"""Schedules over the wire, and what has become of them in the tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from sqlalchemy import text

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq.v1 import schedule_service_pb2_grpc, task_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.task_id import to_text
from tests.rpc.support import soon, span

FIRED, SKIPPED = schedule_pb2.FIRING_OUTCOME_FIRED, schedule_pb2.FIRING_OUTCOME_SKIPPED
BUFFERED = schedule_pb2.FIRING_OUTCOME_BUFFERED
OF_A_SCHEDULE = {
    "schedule_id",
    "overlap",
    "max_buffered",
    "catch_up",
    "catch_up_window",
    "max_firings",
    "origin",
    "etag",
}
OF_A_RECURRENCE = {field.name for field in schedule_pb2.Recurrence.DESCRIPTOR.fields}


def a_schedule(name: str = "nightly", task: str = "cook", data: bytes = b"", **fields: Any) -> schedule_pb2.Schedule:
    """A schedule; `fields` are those of Schedule, of Recurrence and of NewTask."""
    of_schedule = {key: fields.pop(key) for key in OF_A_SCHEDULE & fields.keys()}
    recurrence = schedule_pb2.Recurrence(**{key: fields.pop(key) for key in OF_A_RECURRENCE & fields.keys()})
    if data:
        fields["payload"] = task_pb2.Payload(data=data)
    new = scheduler_pb2.NewTask(name=task, **fields)
    return schedule_pb2.Schedule(name=name, recurrence=recurrence, task=new, **of_schedule)


def every(seconds: float, name: str = "nightly", **fields: Any) -> schedule_pb2.Schedule:
    return a_schedule(name, interval=span(seconds), **fields)


class RawSchedules:
    """Calls the ScheduleService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = schedule_service_pb2_grpc.ScheduleServiceStub(channel)

    async def create(self, schedule: schedule_pb2.Schedule) -> schedule_pb2.Schedule:
        return (await soon(self.stub.CreateSchedule(schedule_pb2.CreateScheduleRequest(schedule=schedule)))).schedule

    async def get(self, **key: Any) -> schedule_pb2.Schedule:
        return (await soon(self.stub.GetSchedule(schedule_pb2.GetScheduleRequest(**key)))).schedule

    async def list(self, **page: Any) -> schedule_pb2.ListSchedulesResponse:
        return await soon(self.stub.ListSchedules(schedule_pb2.ListSchedulesRequest(**page)))

    async def update(self, schedule: schedule_pb2.Schedule) -> schedule_pb2.Schedule:
        return (await soon(self.stub.UpdateSchedule(schedule_pb2.UpdateScheduleRequest(schedule=schedule)))).schedule

    async def delete(self, **key: Any) -> int:
        request = schedule_pb2.DeleteScheduleRequest(**key)
        return int((await soon(self.stub.DeleteSchedule(request))).withdrawn_tasks)

    async def pause(self, **key: Any) -> schedule_pb2.Schedule:
        return (await soon(self.stub.PauseSchedule(schedule_pb2.PauseScheduleRequest(**key)))).schedule

    async def resume(self, **key: Any) -> schedule_pb2.Schedule:
        return (await soon(self.stub.ResumeSchedule(schedule_pb2.ResumeScheduleRequest(**key)))).schedule

    async def trigger(self, **asked: Any) -> schedule_pb2.TriggerScheduleResponse:
        return await soon(self.stub.TriggerSchedule(schedule_pb2.TriggerScheduleRequest(**asked)))

    async def backfill(self, **asked: Any) -> schedule_pb2.BackfillScheduleResponse:
        return await soon(self.stub.BackfillSchedule(schedule_pb2.BackfillScheduleRequest(**asked)))

    async def preview(self, **asked: Any) -> schedule_pb2.PreviewScheduleResponse:
        return await soon(self.stub.PreviewSchedule(schedule_pb2.PreviewScheduleRequest(**asked)))


class FiredTask(NamedTuple):
    """A task that is a firing."""

    task_id: str
    nominal_us: int
    due_us: int
    state: int


async def tasks_of(store: Store, name: str) -> list[FiredTask]:
    """The tasks of a schedule, in the order of their nominal times. By their headers, as their processors see it."""
    sql = text(
        "SELECT task_id, nominal_us, due_time_us, state FROM task WHERE headers LIKE :header ORDER BY nominal_us, seq"
    )

    def find(tx: Transaction, names: list[str]) -> list[list[FiredTask]]:
        header = f'%"taskq-schedule":"{names[0]}"%'
        found = tx.connection.execute(sql, {"header": header})
        return [[FiredTask(to_text(row[0]), row[1], row[2], row[3]) for row in found]]

    return (await store.read(find, [name]))[0]
