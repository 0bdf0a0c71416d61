"""A SchedulerService that does what a test tells it to: for the faults that a real server does not commit on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from client_core.times import to_duration
from taskq.v1 import scheduler_service_pb2 as pb
from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server
from taskq.v1.task_pb2 import TASK_STATE_SCHEDULED, Task


class Refusal(Exception):
    """Makes a call end as a taskq server would end it."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str = "",
        fields: tuple[tuple[str, str], ...] = (),
        retry_delay: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(code, reason)
        details: list[Any] = []
        if reason:
            details.append(error_details_pb2.ErrorInfo(reason=reason, domain="taskq.v1", metadata=metadata))
        if fields:
            faults = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in fields]
            details.append(error_details_pb2.BadRequest(field_violations=faults))
        if retry_delay is not None:
            details.append(error_details_pb2.RetryInfo(retry_delay=to_duration(retry_delay)))
        packed = [Packed() for _ in details]
        for each, detail in zip(packed, details, strict=True):
            each.Pack(detail)
        number = getattr(code_pb2, code.name)
        self.status = rpc_status.to_status(status_pb2.Status(code=number, message="as scripted", details=packed))


def unavailable(retry_delay: float | None = None) -> Refusal:
    return Refusal(grpc.StatusCode.UNAVAILABLE, "STOPPING", retry_delay=retry_delay)


Step = Refusal | Callable[[pb.EnqueueRequest], pb.EnqueueResponse] | None


class ScriptedSchedulerService(SchedulerServiceServicer):
    """Stores tasks as a server would, but takes `script` first: a Refusal, a function, or None for the usual.

    gate          when cleared, Enqueue waits for it before it answers
    loses_reply   how many of the next Enqueues are stored and then answered UNAVAILABLE
    """

    def __init__(self) -> None:
        self.requests: list[pb.EnqueueRequest] = []
        self.tasks: dict[str, pb.NewTask] = {}
        self.script: deque[Step] = deque()
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.loses_reply = 0
        self.watches: list[list[str]] = []
        self.views: dict[str, Task] = {}
        self.version = 0
        self.changed = asyncio.Condition()
        self.watch_script: deque[Refusal | None] = deque()

    async def Enqueue(self, request: pb.EnqueueRequest, context: Any) -> pb.EnqueueResponse:
        self.requests.append(request)
        self.arrived.set()
        await self.gate.wait()
        step = self.script.popleft() if self.script else None
        if isinstance(step, Refusal):
            await context.abort_with_status(step.status)
        if callable(step):
            return step(request)
        response = self._store(request)
        if self.loses_reply:
            self.loses_reply -= 1
            await context.abort_with_status(unavailable().status)
        return response

    async def WatchTask(self, request: pb.WatchTaskRequest, context: Any) -> AsyncIterator[pb.WatchTaskResponse]:
        ids = [request.task_id, *request.task_ids]
        self.watches.append(ids)
        step = self.watch_script.popleft() if self.watch_script else None
        if step is not None:
            await context.abort_with_status(step.status)
        unknown = [task_id for task_id in ids if task_id not in self.views]
        if unknown:
            refusal = Refusal(grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND", task_id=unknown[0])
            await context.abort_with_status(refusal.status)
        shown: dict[str, Task] = {}
        while True:
            version = self.version
            for task_id in ids:
                if shown.get(task_id) != self.views[task_id]:
                    shown[task_id] = self.views[task_id]
                    yield pb.WatchTaskResponse(task=shown[task_id])
            if all(view.state > 2 for view in shown.values()):
                return
            async with self.changed:
                while self.version == version:
                    await self.changed.wait()

    async def show(self, *tasks: Task) -> None:
        """Changes tasks for those who watch."""
        self.views.update({task.task_id: task for task in tasks})
        self.version += 1
        async with self.changed:
            self.changed.notify_all()

    def _store(self, request: pb.EnqueueRequest) -> pb.EnqueueResponse:
        results = []
        for task in request.tasks:
            known = task.task_id in self.tasks
            self.tasks.setdefault(task.task_id, task)
            outcome = pb.ENQUEUE_OUTCOME_EXISTING if known else pb.ENQUEUE_OUTCOME_CREATED
            results.append(pb.EnqueueResult(task_id=task.task_id, outcome=outcome))
            self.views.setdefault(task.task_id, Task(task_id=task.task_id, name=task.name, state=TASK_STATE_SCHEDULED))
        return pb.EnqueueResponse(results=results)


@asynccontextmanager
async def serving(
    service: ScriptedSchedulerService, address: str = "127.0.0.1:0", streams_per_connection: int = 64
) -> AsyncIterator[str]:
    """Serves it, and answers its address."""
    options = [("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", streams_per_connection)]
    server = grpc.aio.server(options=options)
    add_SchedulerServiceServicer_to_server(service, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def outcomes(request: pb.EnqueueRequest, **by_name: int) -> pb.EnqueueResponse:
    """Answers each task by its name; CREATED when nothing is said of it."""
    return pb.EnqueueResponse(
        results=[
            pb.EnqueueResult(task_id=task.task_id, outcome=by_name.get(task.name, 1))  # type: ignore[arg-type]
            for task in request.tasks
        ]
    )
