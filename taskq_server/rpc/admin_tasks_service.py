"""AdminService, of tasks: convert, call, convert."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from taskq.v1 import admin_task_pb2, task_pb2
from taskq_server.access import Access
from taskq_server.admin_tasks import AdminTasks, Listed
from taskq_server.clock import Clock
from taskq_server.core.filter import Filter
from taskq_server.core.task import Task
from taskq_server.rpc import convert
from taskq_server.rpc.checks import Faults
from taskq_server.rpc.convert import timestamp
from taskq_server.rpc.convert_admin_task import basic_task, detail, explanation
from taskq_server.rpc.pages import MOST_BYTES, page_of, token_of
from taskq_server.store.verbs.looking import END
from taskq_server.task_id import to_text

FULL = admin_task_pb2.TASK_VIEW_FULL


class AdminTasksService:
    """What administrators ask about tasks."""

    def __init__(self, tasks: AdminTasks, access: Access, clock: Clock) -> None:
        self._tasks = tasks
        self._access = access
        self._clock = clock

    async def ListTasks(self, request: admin_task_pb2.ListTasksRequest) -> admin_task_pb2.ListTasksResponse:
        faults = Faults()
        wanted = faults.filter("filter", request.filter)
        of = _of(wanted)
        page = page_of(faults, of, request, END)
        in_full = self._view(faults, request.view) == FULL
        faults.raise_if_any()
        if in_full:
            self._must_see_payloads()
        listed = await self._tasks.page(wanted, page.after, page.at_most - 1)
        response = admin_task_pb2.ListTasksResponse(next_page_token=_token(of, listed.before))
        await self._fill(response, of, listed, in_full=in_full)
        if request.with_total:
            total = await self._tasks.count(wanted)
            response.total_size, response.total_is_partial = total.many, total.is_partial
        response.server_time.CopyFrom(timestamp(self._clock.now_us()))
        return response

    async def GetTask(
        self, request: admin_task_pb2.AdminServiceGetTaskRequest
    ) -> admin_task_pb2.AdminServiceGetTaskResponse:
        faults = Faults()
        task_id = faults.uuid("task_id", request.task_id)
        in_full = self._view(faults, request.view) == FULL
        faults.raise_if_any()
        history = await self._tasks.history(task_id)
        caller = self._access.caller()
        if in_full and not caller.sees_payloads(history.task):
            raise caller.denied(("payload:read",), ("view",))
        return admin_task_pb2.AdminServiceGetTaskResponse(
            detail=detail(history, in_full=in_full), server_time=timestamp(self._clock.now_us())
        )

    async def ExplainTask(self, request: admin_task_pb2.ExplainTaskRequest) -> admin_task_pb2.ExplainTaskResponse:
        faults = Faults()
        task_id = faults.uuid("task_id", request.task_id)
        faults.raise_if_any()
        explained = explanation(await self._tasks.explain(task_id))
        explained.task_id = to_text(task_id)
        explained.server_time.CopyFrom(timestamp(self._clock.now_us()))
        return explained

    @staticmethod
    def _view(faults: Faults, view: int) -> int:
        return convert.member(faults, "view", view, admin_task_pb2.TaskView.values())

    def _must_see_payloads(self) -> None:
        caller = self._access.caller()
        if not caller.rights.reads_payloads:
            raise caller.denied(("payload:read",), ("view",))

    async def _fill(
        self, response: admin_task_pb2.ListTasksResponse, of: str, listed: Listed, *, in_full: bool
    ) -> None:
        """Puts tasks into a page until it has grown too large; then the next begins after the last of them."""
        numbers = {one.task.task_id: one.seq for one in listed.found}
        size_bytes = 0
        async for task, message in self._messages(listed, in_full=in_full):
            if size_bytes > MOST_BYTES:
                break
            response.tasks.append(message)
            size_bytes += message.ByteSize()
            last = numbers[task.task_id]
        else:
            return
        response.next_page_token = token_of(of, last)

    async def _messages(self, listed: Listed, *, in_full: bool) -> AsyncIterator[tuple[Task, task_pb2.Task]]:
        if in_full:
            async for task in self._tasks.in_full(listed.found):
                yield task, convert.task_message(task)
        else:
            for one in listed.found:
                yield one.task, basic_task(one.task)


def _of(wanted: Filter) -> str:
    """What a page token is good for: a list with the same filter."""
    return f"tasks {hashlib.blake2b(str(wanted).encode(), digest_size=8).hexdigest()}"


def _token(of: str, before: int | None) -> str:
    return "" if before is None else token_of(of, before)
