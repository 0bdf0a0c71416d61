"""ScheduleService: convert, call, convert."""

from __future__ import annotations

import hashlib

from taskq.v1 import schedule_service_pb2 as schedule_pb2
from taskq_server import task_id
from taskq_server.access import Access
from taskq_server.clock import Clock
from taskq_server.config import Config
from taskq_server.core.recurring import Definition, Key, Schedule
from taskq_server.core.schedule import Overlap
from taskq_server.rpc import convert_schedule as convert
from taskq_server.rpc.checks import Faults
from taskq_server.rpc.convert import member, timestamp
from taskq_server.rpc.pages import fill, page_of
from taskq_server.schedules import Schedules, missing
from taskq_server.store.verbs.firing_by_hand import Backfill, Trigger
from taskq_server.store.verbs.schedules import Listed
from taskq_server.store.verbs.scheduling import Change, Deletion, NewSchedule, SchedulePause

MOST_NOTE = 1_024
MOST_PREVIEWED = 1_000
PREVIEWED = 10


class ScheduleService:
    """What keeps tasks recurring."""

    def __init__(self, schedules: Schedules, access: Access, clock: Clock, config: Config) -> None:
        self._schedules = schedules
        self._access = access
        self._clock = clock
        self._most_payload_bytes = config.max_payload_bytes

    async def CreateSchedule(self, request: schedule_pb2.CreateScheduleRequest) -> schedule_pb2.CreateScheduleResponse:
        faults = Faults()
        given = request.schedule.schedule_id
        schedule_id = faults.uuid("schedule.schedule_id", given) if given else task_id.new()
        definition = self._definition(faults, request.schedule)
        faults.raise_if_any()
        self._access.caller().must_keep(definition.task.route.name, "schedule.task.name")
        if request.validate_only:
            return schedule_pb2.CreateScheduleResponse(schedule=convert.stated(definition, schedule_id))
        created = await self._schedules.create(NewSchedule(schedule_id, definition))
        return schedule_pb2.CreateScheduleResponse(schedule=self._shown(created))

    def _definition(self, faults: Faults, message: schedule_pb2.Schedule) -> Definition:
        return convert.definition(faults, message, self._most_payload_bytes)

    async def _found(self, key: Key) -> Schedule:
        """The schedule; to those who may not see it, it does not exist."""
        schedule = await self._schedules.get(key)
        if not self._access.caller().sees_schedule(schedule):
            raise missing(key)
        return schedule

    async def _kept(self, key: Key) -> Key:
        """The schedule, if the caller may enqueue what it does. By its id from now on: another may get its name."""
        caller = self._access.caller()
        if caller.cancels_all:
            return key
        schedule = await self._found(key)
        caller.must_keep(schedule.definition.task.route.name, "name" if key.schedule_id is None else "schedule_id")
        return Key(schedule.schedule_id)

    def _shown(self, schedule: Schedule) -> schedule_pb2.Schedule:
        return convert.schedule(schedule, with_payload=self._access.caller().sees_payload_of(schedule))

    async def GetSchedule(self, request: schedule_pb2.GetScheduleRequest) -> schedule_pb2.GetScheduleResponse:
        faults = Faults()
        key = convert.key(faults, request)
        faults.raise_if_any()
        return schedule_pb2.GetScheduleResponse(schedule=self._shown(await self._found(key)))

    async def ListSchedules(self, request: schedule_pb2.ListSchedulesRequest) -> schedule_pb2.ListSchedulesResponse:
        faults = Faults()
        faults.text("name_prefix", request.name_prefix, 128)
        faults.text("origin_prefix", request.origin_prefix, convert.MOST_TEXT)
        of = _of(request)
        page = page_of(faults, of, request, "")
        faults.raise_if_any()
        found = await self._schedules.find(Listed(page, request.name_prefix, request.origin_prefix))
        schedules, token = fill(of, page, found, self._listed, lambda one: one.definition.name)
        return schedule_pb2.ListSchedulesResponse(
            schedules=[one for one in schedules if one.name],
            next_page_token=token,
            server_time=timestamp(self._clock.now_us()),
        )

    def _listed(self, schedule: Schedule) -> schedule_pb2.Schedule:
        """Nothing of one that the caller may not see."""
        if self._access.caller().sees_schedule(schedule):
            return self._shown(schedule)
        return schedule_pb2.Schedule()

    async def UpdateSchedule(self, request: schedule_pb2.UpdateScheduleRequest) -> schedule_pb2.UpdateScheduleResponse:
        faults = Faults()
        message = request.schedule
        schedule_id = faults.uuid("schedule.schedule_id", message.schedule_id) if message.schedule_id else None
        if not message.etag:
            faults.add("schedule.etag", "must be set, as it was read")
        definition = self._definition(faults, message)
        faults.raise_if_any()
        key = Key(schedule_id, message.name)
        key = await self._kept(key)
        self._access.caller().must_keep(definition.task.route.name, "schedule.task.name")
        updated = await self._schedules.update(Change(key, definition, message.etag))
        return schedule_pb2.UpdateScheduleResponse(schedule=self._shown(updated))

    async def DeleteSchedule(self, request: schedule_pb2.DeleteScheduleRequest) -> schedule_pb2.DeleteScheduleResponse:
        faults = Faults()
        key = convert.key(faults, request)
        etag = faults.printable("etag", request.etag, convert.MOST_ETAG)
        faults.raise_if_any()
        key = await self._kept(key)
        withdrawn = await self._schedules.delete(Deletion(key, etag))
        return schedule_pb2.DeleteScheduleResponse(withdrawn_tasks=withdrawn)

    async def PauseSchedule(self, request: schedule_pb2.PauseScheduleRequest) -> schedule_pb2.PauseScheduleResponse:
        faults = Faults()
        key = convert.key(faults, request)
        note = faults.text("note", request.note, MOST_NOTE)
        faults.raise_if_any()
        key = await self._kept(key)
        paused = await self._schedules.pause(SchedulePause(key, note))
        return schedule_pb2.PauseScheduleResponse(schedule=self._shown(paused))

    async def ResumeSchedule(self, request: schedule_pb2.ResumeScheduleRequest) -> schedule_pb2.ResumeScheduleResponse:
        faults = Faults()
        key = convert.key(faults, request)
        faults.raise_if_any()
        key = await self._kept(key)
        return schedule_pb2.ResumeScheduleResponse(schedule=self._shown(await self._schedules.resume(key)))

    async def TriggerSchedule(
        self, request: schedule_pb2.TriggerScheduleRequest
    ) -> schedule_pb2.TriggerScheduleResponse:
        faults = Faults()
        key = convert.key(faults, request)
        raw_id = faults.uuid("task_id", request.task_id) if request.task_id else task_id.new()
        overlap = _overlap(faults, request.overlap)
        faults.raise_if_any()
        key = await self._kept(key)
        done = await self._schedules.trigger(Trigger(key, raw_id, overlap))
        outcome = int(done.outcome)
        response = schedule_pb2.TriggerScheduleResponse(
            outcome=outcome,  # type: ignore[arg-type]
            schedule=self._shown(done.schedule),
        )
        if outcome != schedule_pb2.FIRING_OUTCOME_SKIPPED:
            response.firing.CopyFrom(convert.firing(done.nominal_us, done.task_id))
        return response

    async def BackfillSchedule(
        self, request: schedule_pb2.BackfillScheduleRequest
    ) -> schedule_pb2.BackfillScheduleResponse:
        faults = Faults()
        key = convert.key(faults, request)
        times = {}
        for field in ("start_time", "end_time"):
            if not request.HasField(field):
                faults.add(field, "must be set")
            times[field] = faults.time_us(field, getattr(request, field))
        overlap = _overlap(faults, request.overlap)
        if times["end_time"] <= times["start_time"]:
            faults.add("end_time", "must be after start_time")
        faults.raise_if_any()
        key = await self._kept(key)
        done = await self._schedules.backfill(Backfill(key, times["start_time"], times["end_time"], overlap))
        return schedule_pb2.BackfillScheduleResponse(
            fired=done.fired,
            skipped=done.skipped,
            buffered=done.buffered,
            existing=done.existing,
            schedule=self._shown(done.schedule),
        )

    async def PreviewSchedule(
        self, request: schedule_pb2.PreviewScheduleRequest
    ) -> schedule_pb2.PreviewScheduleResponse:
        faults = Faults()
        is_stored = request.WhichOneof("key") != "recurrence"
        of = convert.key(faults, request) if is_stored else convert.rule_of(faults, "recurrence", request)
        after_us = faults.time_us("after_time", request.after_time) if request.HasField("after_time") else None
        faults.number("count", request.count, 0, MOST_PREVIEWED)
        faults.raise_if_any()
        if isinstance(of, Key):
            await self._found(of)
        return convert.preview(*await self._schedules.preview(of, after_us, request.count or PREVIEWED))


def _overlap(faults: Faults, value: int) -> Overlap | None:
    """The policy that is asked for; None for the schedule's own."""
    known = member(faults, "overlap", value, schedule_pb2.Overlap.values())
    return Overlap(known) if known else None


def _of(request: schedule_pb2.ListSchedulesRequest) -> str:
    """What a page token is good for: a list with the same prefixes."""
    if not request.name_prefix and not request.origin_prefix:
        return "schedules"
    prefixes = f"{request.name_prefix}\0{request.origin_prefix}".encode()
    return f"schedules {hashlib.blake2b(prefixes, digest_size=8).hexdigest()}"
