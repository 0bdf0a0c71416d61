"""The client of administration: a method for each call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from admin_client.connection import Connection
from client_core.times import Moment, to_timestamp
from taskq.v1 import admin_service_pb2 as admin
from taskq.v1 import admin_task_pb2 as tasks
from taskq.v1 import audit_pb2 as audit
from taskq.v1 import bulk_operation_pb2 as bulk
from taskq.v1 import event_pb2 as events
from taskq.v1 import failure_group_pb2 as failures
from taskq.v1 import schedule_service_pb2 as schedules
from taskq.v1 import scheduler_service_pb2 as scheduling
from taskq.v1 import stats_pb2 as stats


class AdminClient(Connection):
    """A client of one server, for administrators. Connects at the first call.

    address     host:port, of several servers `ip:port,ip:port`; absent: `TASKQ_ADDRESS`, else 127.0.0.1:50051
    tls         True or a TLS: encrypted; False: not; absent: as `TASKQ_TLS_CA` and its like say
    tls_ca      a PEM file: TLS with a server whose certificate this CA has signed
    token       what the server knows this client by; absent: `TASKQ_TOKEN`, or what stands in `TASKQ_TOKEN_FILE`
    timeout     the longest that one call may take
    user_agent  what the audit recognises a program by; absent: that of the Python clients

    It belongs to one event loop. A call is made once: whether to repeat it is for the caller to say. Each carries an
    `x-request-id`, of which the last is `request_id`: the server's log and the audit know it.
    """

    # ── tasks ──

    async def enqueue(self, tasks: Iterable[scheduling.NewTask]) -> scheduling.EnqueueResponse:
        """Enqueues up to 1,000; safe to repeat for those that have ids."""
        return await self.ask(scheduling.EnqueueRequest(tasks=tasks), scheduling.EnqueueResponse)

    def list_tasks(
        self,
        filter: str = "",
        *,
        limit: int | None = 50,
        page_token: str = "",
        view: tasks.TaskView.ValueType = tasks.TASK_VIEW_BASIC,
        with_total: bool = False,
    ) -> AsyncIterator[tasks.ListTasksResponse]:
        """Pages of the tasks that a filter matches, those enqueued last first; of at most `limit`, None: of all."""
        request = tasks.ListTasksRequest(filter=filter, page_token=page_token, view=view, with_total=with_total)
        return self.pages(request, tasks.ListTasksResponse, limit)

    async def count_tasks(self, filter: str = "") -> tasks.ListTasksResponse:
        """How many a filter matches: its `total_size`. The page has one of them."""
        request = tasks.ListTasksRequest(filter=filter, page_size=1, with_total=True)
        return await self.ask(request, tasks.ListTasksResponse)

    async def get_task(
        self, task_id: str, view: tasks.TaskView.ValueType = tasks.TASK_VIEW_BASIC
    ) -> tasks.AdminServiceGetTaskResponse:
        """A task with its attempts and its timeline."""
        request = tasks.AdminServiceGetTaskRequest(task_id=task_id, view=view)
        return await self.ask(request, tasks.AdminServiceGetTaskResponse)

    async def explain_task(self, task_id: str) -> tasks.ExplainTaskResponse:
        """Why it is not running, or what became of it."""
        return await self.ask(tasks.ExplainTaskRequest(task_id=task_id), tasks.ExplainTaskResponse)

    def watch_tasks(self, task_ids: Iterable[str]) -> AsyncIterator[scheduling.WatchTaskResponse]:
        """Each task as it stands, then after each change, until all are finished."""
        return self.stream(scheduling.WatchTaskRequest(task_ids=task_ids), scheduling.WatchTaskResponse)

    async def cancel_task(self, task_id: str) -> scheduling.CancelTaskResponse:
        """Cancels a task that waits or runs."""
        return await self.ask(scheduling.CancelTaskRequest(task_id=task_id), scheduling.CancelTaskResponse)

    async def prune_tasks(self, max_tasks: int = 0, reason: str = "") -> tasks.PruneTasksResponse:
        """Deletes a batch of finished tasks whose retention has passed."""
        return await self.ask(tasks.PruneTasksRequest(max_tasks=max_tasks, reason=reason), tasks.PruneTasksResponse)

    # ── many tasks at once ──

    async def start_operation(
        self,
        action: bulk.BulkAction,
        *,
        filter: str = "",
        task_ids: Iterable[str] = (),
        dry_run: bool = False,
        expected_count: int = 0,
        max_tasks: int = 0,
        reason: str = "",
        operation_id: str = "",
    ) -> bulk.StartBulkOperationResponse:
        """Begins to do the same to tasks that are named, or that a filter matches. Safe to repeat with the same id."""
        request = bulk.StartBulkOperationRequest(
            operation_id=operation_id,
            filter=filter,
            task_ids=task_ids,
            action=action,
            dry_run=dry_run,
            expected_count=expected_count,
            max_tasks=max_tasks,
            reason=reason,
        )
        return await self.ask(request, bulk.StartBulkOperationResponse)

    async def get_operation(self, operation_id: str) -> bulk.GetBulkOperationResponse:
        """One operation as it stands."""
        request = bulk.GetBulkOperationRequest(operation_id=operation_id)
        return await self.ask(request, bulk.GetBulkOperationResponse)

    def list_operations(
        self, *, limit: int | None = 50, page_token: str = ""
    ) -> AsyncIterator[bulk.ListBulkOperationsResponse]:
        """Pages of operations, those started last first."""
        request = bulk.ListBulkOperationsRequest(page_token=page_token)
        return self.pages(request, bulk.ListBulkOperationsResponse, limit)

    async def cancel_operation(self, operation_id: str) -> bulk.CancelBulkOperationResponse:
        """Ends one after the batch at which it is."""
        request = bulk.CancelBulkOperationRequest(operation_id=operation_id)
        return await self.ask(request, bulk.CancelBulkOperationResponse)

    # ── processors and capabilities ──

    def list_processors(
        self, *, limit: int | None = 50, page_token: str = ""
    ) -> AsyncIterator[admin.ListProcessorsResponse]:
        """Pages of the sessions that live, in the order of their registration."""
        return self.pages(admin.ListProcessorsRequest(page_token=page_token), admin.ListProcessorsResponse, limit)

    async def drain_processor(self, session_id: str, reason: str = "") -> admin.DrainProcessorResponse:
        """Gives a session no further tasks."""
        request = admin.DrainProcessorRequest(session_id=session_id, reason=reason)
        return await self.ask(request, admin.DrainProcessorResponse)

    async def disconnect_processor(self, session_id: str, reason: str = "") -> admin.DisconnectProcessorResponse:
        """Ends a session at once; what it holds goes to others."""
        request = admin.DisconnectProcessorRequest(session_id=session_id, reason=reason)
        return await self.ask(request, admin.DisconnectProcessorResponse)

    def list_capabilities(
        self, *, limit: int | None = 50, page_token: str = ""
    ) -> AsyncIterator[admin.ListCapabilitiesResponse]:
        """Pages of the names that are known, with what is asked of them and what there is for it."""
        return self.pages(admin.ListCapabilitiesRequest(page_token=page_token), admin.ListCapabilitiesResponse, limit)

    async def pause_capability(self, name: str, reason: str = "") -> admin.PauseCapabilityResponse:
        """Dispatches no further tasks of this name."""
        return await self.ask(admin.PauseCapabilityRequest(name=name, reason=reason), admin.PauseCapabilityResponse)

    async def resume_capability(self, name: str, reason: str = "") -> admin.ResumeCapabilityResponse:
        """Dispatches them again."""
        return await self.ask(admin.ResumeCapabilityRequest(name=name, reason=reason), admin.ResumeCapabilityResponse)

    # ── schedules, by name ──

    def list_schedules(
        self, name_prefix: str = "", *, origin_prefix: str = "", limit: int | None = 50, page_token: str = ""
    ) -> AsyncIterator[schedules.ListSchedulesResponse]:
        """Pages of schedules, in the order of their names."""
        request = schedules.ListSchedulesRequest(
            name_prefix=name_prefix, origin_prefix=origin_prefix, page_token=page_token
        )
        return self.pages(request, schedules.ListSchedulesResponse, limit)

    async def get_schedule(self, name: str) -> schedules.GetScheduleResponse:
        """One schedule as it stands."""
        return await self.ask(schedules.GetScheduleRequest(name=name), schedules.GetScheduleResponse)

    async def create_schedule(
        self, schedule: schedules.Schedule, *, validate_only: bool = False
    ) -> schedules.CreateScheduleResponse:
        """Stores a schedule; or only checks it."""
        request = schedules.CreateScheduleRequest(schedule=schedule, validate_only=validate_only)
        return await self.ask(request, schedules.CreateScheduleResponse)

    async def update_schedule(self, schedule: schedules.Schedule) -> schedules.UpdateScheduleResponse:
        """Replaces what a schedule says, whole, if its etag is the one that was read."""
        return await self.ask(schedules.UpdateScheduleRequest(schedule=schedule), schedules.UpdateScheduleResponse)

    async def delete_schedule(self, name: str, etag: str = "") -> schedules.DeleteScheduleResponse:
        """Deletes it, with what is stored and not due yet."""
        request = schedules.DeleteScheduleRequest(name=name, etag=etag)
        return await self.ask(request, schedules.DeleteScheduleResponse)

    async def pause_schedule(self, name: str, note: str = "") -> schedules.PauseScheduleResponse:
        """Lets it fire no more until it is resumed."""
        return await self.ask(schedules.PauseScheduleRequest(name=name, note=note), schedules.PauseScheduleResponse)

    async def resume_schedule(self, name: str) -> schedules.ResumeScheduleResponse:
        """Lets it fire again."""
        return await self.ask(schedules.ResumeScheduleRequest(name=name), schedules.ResumeScheduleResponse)

    async def trigger_schedule(
        self, name: str, *, overlap: schedules.Overlap.ValueType = schedules.OVERLAP_UNSPECIFIED, task_id: str = ""
    ) -> schedules.TriggerScheduleResponse:
        """Fires once, now."""
        request = schedules.TriggerScheduleRequest(name=name, overlap=overlap, task_id=task_id)
        return await self.ask(request, schedules.TriggerScheduleResponse)

    async def backfill_schedule(
        self,
        name: str,
        start: Moment,
        end: Moment,
        *,
        overlap: schedules.Overlap.ValueType = schedules.OVERLAP_UNSPECIFIED,
    ) -> schedules.BackfillScheduleResponse:
        """Fires at the nominal times of a range that are over and have not fired."""
        request = schedules.BackfillScheduleRequest(
            name=name, start_time=to_timestamp(start), end_time=to_timestamp(end), overlap=overlap
        )
        return await self.ask(request, schedules.BackfillScheduleResponse)

    async def preview_schedule(
        self, what: str | schedules.Recurrence, *, count: int = 10, after: Moment | None = None
    ) -> schedules.PreviewScheduleResponse:
        """When a schedule fires next, by its name; or when one would that recurs so."""
        request = schedules.PreviewScheduleRequest(count=count)
        if isinstance(what, str):
            request.name = what
        else:
            request.recurrence.CopyFrom(what)
        if after is not None:
            request.after_time.CopyFrom(to_timestamp(after))
        return await self.ask(request, schedules.PreviewScheduleResponse)

    # ── failures, figures, events, audit, server ──

    def list_failures(
        self, name: str = "", *, include_resolved: bool = False, limit: int | None = 50, page_token: str = ""
    ) -> AsyncIterator[failures.ListFailureGroupsResponse]:
        """Pages of groups of alike failures, the one seen last first."""
        request = failures.ListFailureGroupsRequest(name=name, include_resolved=include_resolved, page_token=page_token)
        return self.pages(request, failures.ListFailureGroupsResponse, limit)

    async def resolve_failure(self, fingerprint: str, note: str = "") -> failures.ResolveFailureGroupResponse:
        """Notes that a group needs nobody's attention any more, until it is seen again."""
        request = failures.ResolveFailureGroupRequest(fingerprint=fingerprint, note=note)
        return await self.ask(request, failures.ResolveFailureGroupResponse)

    async def get_stats(
        self,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        name: str = "",
        by_name: bool = False,
        step: stats.StatsStep.ValueType = stats.STATS_STEP_UNSPECIFIED,
    ) -> stats.GetStatsResponse:
        """How many tasks there are, how late they start, and what was done from `start` to `end`."""
        request = stats.GetStatsRequest(name=name, by_name=by_name, step=step)
        if start is not None:
            request.start_time.CopyFrom(to_timestamp(start))
        if end is not None:
            request.end_time.CopyFrom(to_timestamp(end))
        return await self.ask(request, stats.GetStatsResponse)

    def watch_events(
        self, topics: Iterable[events.EventTopic.ValueType] = (), cursor: str = ""
    ) -> AsyncIterator[events.WatchEventsResponse]:
        """Hints of what changes, from now on, or after a cursor."""
        return self.stream(events.WatchEventsRequest(topics=topics, cursor=cursor), events.WatchEventsResponse)

    def list_audit(
        self,
        *,
        principal: str = "",
        target_kind: str = "",
        target: str = "",
        start: Moment | None = None,
        end: Moment | None = None,
        limit: int | None = 50,
        page_token: str = "",
    ) -> AsyncIterator[audit.ListAuditEntriesResponse]:
        """Pages of what administrators have changed, the last first."""
        request = audit.ListAuditEntriesRequest(
            principal=principal, target_kind=target_kind, target=target, page_token=page_token
        )
        if start is not None:
            request.start_time.CopyFrom(to_timestamp(start))
        if end is not None:
            request.end_time.CopyFrom(to_timestamp(end))
        return self.pages(request, audit.ListAuditEntriesResponse, limit)

    async def get_server_info(self) -> admin.GetServerInfoResponse:
        """What runs, on what database, beside which other servers, by which settings."""
        return await self.ask(admin.GetServerInfoRequest(), admin.GetServerInfoResponse)
