"""Brings the server's schedules in step with those that a program declares; any number of its replicas may at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import Message

import taskq.v1.schedule_service_pb2 as wire
from client_core.errors import Aborted, AlreadyExists, NotFound
from scheduler_client.calls import call
from scheduler_client.connection import Connection
from scheduler_client.ids import new_task_id
from scheduler_client.schedule import Schedule

if TYPE_CHECKING:
    from taskq.v1.schedule_service_pb2_grpc import ScheduleServiceAsyncStub

T = TypeVar("T")

_TRIES: Final = 20
"""Each of them lost against somebody who has just changed the same schedule."""
_AT_ONCE: Final = 16
_PAGE: Final = 1_000
_DECLARED: Final = ("recurrence", "task", "overlap", "max_buffered", "catch_up", "catch_up_window", "max_firings")
_PARTED: Final = ("recurrence", "task")


@dataclass(slots=True)
class SyncReport:
    """What `sync_schedules` found and did, by the schedules' names, in order.

    created     were not there
    updated     were there, and their declaration has changed
    unchanged   are as they are declared
    drifted     are not as they are declared, though the declaration is as it was: somebody has changed them. With the
                fields that differ. They were left so, unless `overwrite` was set
    removed     are not declared any more
    """

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    drifted: dict[str, list[str]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


class Declaring:
    """One `sync_schedules`."""

    def __init__(
        self, connection: Connection, timeout: float | None, origin: str, *, overwrite: bool, dry_run: bool
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._origin = origin
        self._overwrite = overwrite
        self._dry_run = dry_run
        self._report = SyncReport()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def sync(self, schedules: Sequence[Schedule], remove: bool) -> SyncReport:
        each = [self._sync_one(schedule.to_message(self._origin)) for schedule in schedules]
        for error in await asyncio.gather(*each, return_exceptions=True):
            if error is not None:
                raise error
        if remove:
            await self._remove_all_but({schedule.name for schedule in schedules})
        return self._in_order()

    async def _sync_one(self, wanted: wire.Schedule) -> None:
        async with self._places:
            for _ in range(_TRIES):
                try:
                    return await self._try_one(wanted)
                except (AlreadyExists, NotFound, Aborted) as error:
                    lost = error  # somebody else was faster: look again
            raise lost

    async def _try_one(self, wanted: wire.Schedule) -> None:
        name, report = wanted.name, self._report
        current = await self._get(name)
        if current is None:
            await self._create(wanted)
            report.created.append(name)
        elif not (fields := differences(await self._completed(wanted), current)):
            if wanted.origin != current.origin and self._is_mine(current):  # it is declared in other words
                await self._update(wanted, current)
            report.unchanged.append(name)
        elif wanted.origin != current.origin:
            await self._update(wanted, current)
            report.updated.append(name)
        else:
            if self._overwrite:
                await self._update(wanted, current)
            report.drifted[name] = fields

    async def _create(self, wanted: wire.Schedule) -> None:
        request = wire.CreateScheduleRequest(schedule=wanted, validate_only=self._dry_run)
        request.schedule.schedule_id = new_task_id()  # once for all tries of this call
        await self._call(lambda stub: stub.CreateSchedule, request)

    async def _completed(self, wanted: wire.Schedule) -> wire.Schedule:
        """As the server would store it: with every default, and in its own spelling."""
        request = wire.CreateScheduleRequest(schedule=wanted, validate_only=True)
        return (await self._call(lambda stub: stub.CreateSchedule, request)).schedule

    async def _update(self, wanted: wire.Schedule, current: wire.Schedule) -> None:
        if not self._dry_run:
            request = wire.UpdateScheduleRequest(schedule=wanted)
            request.schedule.schedule_id, request.schedule.etag = current.schedule_id, current.etag
            await self._call(lambda stub: stub.UpdateSchedule, request)

    async def _call(
        self, method: Callable[[ScheduleServiceAsyncStub], Callable[..., Awaitable[T]]], request: Message
    ) -> T:
        connection = self._connection
        return await call(lambda: method(connection.schedules), request, self._timeout, connection.explain)

    async def _get(self, name: str) -> wire.Schedule | None:
        try:
            response = await self._call(lambda stub: stub.GetSchedule, wire.GetScheduleRequest(name=name))
        except NotFound:
            return None
        return response.schedule

    async def _remove_all_but(self, names: set[str]) -> None:
        """Of those that this origin has declared. Whoever changed one meanwhile keeps it."""
        request = wire.ListSchedulesRequest(page_size=_PAGE, origin_prefix=f"{self._origin} ")
        while True:
            page = await self._call(lambda stub: stub.ListSchedules, request)
            for schedule in page.schedules:
                if schedule.name not in names and self._is_mine(schedule):
                    await self._remove(schedule)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _is_mine(self, schedule: wire.Schedule) -> bool:
        """Whether this origin has declared it. Another origin may begin with this one."""
        return schedule.origin.rpartition(" ")[0] == self._origin

    async def _remove(self, schedule: wire.Schedule) -> None:
        request = wire.DeleteScheduleRequest(schedule_id=schedule.schedule_id, etag=schedule.etag)
        try:
            if not self._dry_run:
                await self._call(lambda stub: stub.DeleteSchedule, request)
        except (NotFound, Aborted):
            return
        self._report.removed.append(schedule.name)

    def _in_order(self) -> SyncReport:
        report = self._report
        return SyncReport(
            sorted(report.created),
            sorted(report.updated),
            sorted(report.unchanged),
            dict(sorted(report.drifted.items())),
            sorted(report.removed),
        )


def differences(wanted: wire.Schedule, current: wire.Schedule) -> list[str]:
    """The fields in which two schedules say something else, such as `recurrence.crons`; what the server adds apart."""
    found: list[str] = []
    for name in _DECLARED:
        mine, theirs = getattr(wanted, name), getattr(current, name)
        if mine == theirs:
            continue
        if name in _PARTED:
            found += [f"{name}.{part}" for part in _differing(mine, theirs)]
        else:
            found.append(name)
    return found


def _differing(mine: Message, theirs: Message) -> list[str]:
    names = [one.name for one in mine.DESCRIPTOR.fields]
    return [name for name in names if getattr(mine, name) != getattr(theirs, name)]
