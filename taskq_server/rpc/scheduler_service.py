"""SchedulerService: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq.v1 import task_pb2
from taskq_server.access import Access
from taskq_server.clock import Clock
from taskq_server.config import Config
from taskq_server.core.task import Task
from taskq_server.rpc import convert
from taskq_server.rpc.checks import Faults
from taskq_server.task_queue import TaskQueue

MOST_WATCHED = 1_000


class SchedulerService:
    """What schedulers call."""

    def __init__(self, tasks: TaskQueue, access: Access, clock: Clock, config: Config) -> None:
        self._tasks = tasks
        self._access = access
        self._clock = clock
        self._most_payload_bytes = config.max_payload_bytes

    async def Enqueue(self, request: scheduler_pb2.EnqueueRequest) -> scheduler_pb2.EnqueueResponse:
        tasks = convert.new_tasks(request.tasks, self._most_payload_bytes)
        self._access.caller().must_enqueue(tasks)
        return convert.enqueue_response(await self._tasks.enqueue(tasks), self._clock.now_us())

    async def GetTask(self, request: scheduler_pb2.GetTaskRequest) -> scheduler_pb2.GetTaskResponse:
        task = await self._tasks.get(_task_id(request.task_id))
        return scheduler_pb2.GetTaskResponse(task=self._shown(task))

    def _shown(self, task: Task) -> task_pb2.Task:
        """As much of a task as the caller may see; TaskNotFound for nothing."""
        caller = self._access.caller()
        caller.must_see(task)
        return convert.task_message(task, with_payloads=caller.sees_payloads(task))

    async def WatchTask(
        self, request: scheduler_pb2.WatchTaskRequest
    ) -> AsyncIterator[scheduler_pb2.WatchTaskResponse]:
        faults = Faults()
        texts = {f"task_ids[{i}]": text for i, text in enumerate(request.task_ids)}
        if request.task_id or not texts:
            texts["task_id"] = request.task_id
        if len(texts) > MOST_WATCHED:
            faults.add("task_ids", f"must be at most {MOST_WATCHED:,} with task_id; are {len(texts):,}")
        task_ids = list(dict.fromkeys(faults.uuid(field, text) for field, text in texts.items()))
        faults.raise_if_any()
        async for task in self._tasks.watch(task_ids):
            yield scheduler_pb2.WatchTaskResponse(task=self._shown(task))

    async def CancelTask(self, request: scheduler_pb2.CancelTaskRequest) -> scheduler_pb2.CancelTaskResponse:
        task_id, caller = _task_id(request.task_id), self._access.caller()
        if not caller.cancels_all:
            caller.must_cancel(await self._tasks.get(task_id))
        return scheduler_pb2.CancelTaskResponse(task=self._shown(await self._tasks.cancel(task_id)))


def _task_id(text: str) -> bytes:
    faults = Faults()
    raw = faults.uuid("task_id", text)
    faults.raise_if_any()
    return raw
