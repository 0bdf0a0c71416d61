"""Once around every call: who makes it, and whether they may at all. What a call is about, its servicer looks at.

What is not in the table cannot be called, so a call that is added is closed until somebody says whose it is.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from taskq_server.access import Access, Caller
from taskq_server.core.errors import TaskqError, Unauthenticated
from taskq_server.core.rights import Need
from taskq_server.rpc.status import to_status

Context = grpc.aio.ServicerContext[Any, Any]
Parse = Callable[[Any], Any]

NEEDS: dict[str, Need] = {
    "/taskq.v1.SchedulerService/Enqueue": Need.ENQUEUE,
    "/taskq.v1.SchedulerService/GetTask": Need.TASKS,
    "/taskq.v1.SchedulerService/WatchTask": Need.TASKS,
    "/taskq.v1.SchedulerService/CancelTask": Need.ENQUEUE,
    "/taskq.v1.ProcessorService/Register": Need.PROCESS,
    "/taskq.v1.ProcessorService/StreamTasks": Need.PROCESS,
    "/taskq.v1.ProcessorService/Heartbeat": Need.PROCESS,
    "/taskq.v1.ProcessorService/ReportResult": Need.PROCESS,
    "/taskq.v1.ProcessorService/Unregister": Need.PROCESS,
    "/taskq.v1.ScheduleService/CreateSchedule": Need.ENQUEUE,
    "/taskq.v1.ScheduleService/GetSchedule": Need.TASKS,
    "/taskq.v1.ScheduleService/ListSchedules": Need.TASKS,
    "/taskq.v1.ScheduleService/UpdateSchedule": Need.ENQUEUE,
    "/taskq.v1.ScheduleService/DeleteSchedule": Need.ENQUEUE,
    "/taskq.v1.ScheduleService/PauseSchedule": Need.ENQUEUE,
    "/taskq.v1.ScheduleService/ResumeSchedule": Need.ENQUEUE,
    "/taskq.v1.ScheduleService/TriggerSchedule": Need.ENQUEUE,
    "/taskq.v1.ScheduleService/BackfillSchedule": Need.ENQUEUE,
    "/taskq.v1.ScheduleService/PreviewSchedule": Need.TASKS,
    "/taskq.v1.AdminService/ListProcessors": Need.READ,
    "/taskq.v1.AdminService/DrainProcessor": Need.ADMIN,
    "/taskq.v1.AdminService/DisconnectProcessor": Need.ADMIN,
    "/taskq.v1.AdminService/ListCapabilities": Need.READ,
    "/taskq.v1.AdminService/PauseCapability": Need.ADMIN,
    "/taskq.v1.AdminService/ResumeCapability": Need.ADMIN,
    "/taskq.v1.AdminService/GetServerInfo": Need.READ,
    "/taskq.v1.AdminService/ListTasks": Need.READ,
    "/taskq.v1.AdminService/GetTask": Need.READ,
    "/taskq.v1.AdminService/ExplainTask": Need.READ,
    "/taskq.v1.AdminService/PruneTasks": Need.ADMIN,
    "/taskq.v1.AdminService/StartBulkOperation": Need.ADMIN,
    "/taskq.v1.AdminService/GetBulkOperation": Need.READ,
    "/taskq.v1.AdminService/ListBulkOperations": Need.READ,
    "/taskq.v1.AdminService/CancelBulkOperation": Need.ADMIN,
    "/taskq.v1.AdminService/ListFailureGroups": Need.READ,
    "/taskq.v1.AdminService/ResolveFailureGroup": Need.ADMIN,
    "/taskq.v1.AdminService/GetStats": Need.READ,
    "/taskq.v1.AdminService/WatchEvents": Need.READ,
    "/taskq.v1.AdminService/ListAuditEntries": Need.READ,
    # A probe has no credential. A Watch stays open, and so must be somebody's.
    "/grpc.health.v1.Health/Check": Need.NOTHING,
    "/grpc.health.v1.Health/List": Need.NOTHING,
    "/grpc.health.v1.Health/Watch": Need.A_CREDENTIAL,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Need.A_CREDENTIAL,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Need.A_CREDENTIAL,
}
"""The right that each call needs, whatever it is about."""

REQUEST_SECONDS = 10
"""A request has to be whole this long after its call was let in."""

_BEARER = "bearer "


class Guard(grpc.aio.ServerInterceptor):
    """Stands before every call of a server on which access is required."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._guarded: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        method: str = details.method
        if (guarded := self._guarded.get(method)) is None:
            handler = await continuation(details)
            need = NEEDS.get(method)
            if handler is None or need is None:  # there is no such call, which is told to those who may come in
                return grpc.stream_unary_rpc_method_handler(self._refuse)
            guarded = self._guarded[method] = self._guard(handler, need)
        return guarded

    async def _refuse(self, requests: object, context: Context) -> object:
        try:
            self._who(context)
        except TaskqError as error:
            await context.abort_with_status(to_status(error))
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
        return None  # never reached

    def _who(self, context: Context) -> Caller:
        """Who calls, by the token that they show; without one, by their certificate."""

        def peer() -> str:
            return context.peer().rpartition(":")[0]

        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                text = value if isinstance(value, str) else ""
                token = text[len(_BEARER) :].strip() if text[: len(_BEARER)].lower() == _BEARER else ""
                return self._access.by_token(token, peer)
        names = context.auth_context().get("x509_subject_alternative_name")
        if names:
            return self._access.by_certificate((_text(name) for name in names), peer)
        raise self._access.by_nothing(peer)

    def _guard(self, handler: grpc.RpcMethodHandler[Any, Any], need: Need) -> grpc.RpcMethodHandler[Any, Any]:
        """Whoever may not come in has nothing read and nothing parsed: every call is one whose requests are a stream to
        gRPC, which would otherwise take in the request whole before anybody is asked."""
        parse, serialize = handler.request_deserializer, handler.response_serializer
        if need is Need.NOTHING:
            return handler
        if handler.unary_unary is not None:
            unary = self._unary(handler.unary_unary, parse or _as_it_is, need)
            return grpc.stream_unary_rpc_method_handler(unary, None, serialize)
        if handler.unary_stream is not None:
            stream = self._stream(handler.unary_stream, parse or _as_it_is, need)
            return grpc.stream_stream_rpc_method_handler(stream, None, serialize)
        assert handler.stream_stream is not None, "there is no call of another kind"
        stream = self._stream(handler.stream_stream, None, need)
        return grpc.stream_stream_rpc_method_handler(stream, parse, serialize)

    def _unary(self, behaviour: Callable[..., Any], parse: Parse, need: Need) -> Callable[..., Any]:
        async def call(requests: object, context: Context) -> Any:
            try:
                caller = self._who(context)
                caller.must_meet(need)
            except TaskqError as error:
                await context.abort_with_status(to_status(error))
                raise  # never reached
            self._access.enter(caller)
            return await behaviour(parse(await _read(context)), context)

        return call

    def _stream(self, behaviour: Callable[..., Any], parse: Parse | None, need: Need) -> Callable[..., Any]:
        """Without `parse` the requests are a stream, which the behaviour reads."""

        async def call(requests: Any, context: Context) -> None:
            try:
                caller = self._who(context)
                caller.must_meet(need)
                self._access.enter(caller)
                with self._access.streaming(caller) as limit:
                    async with limit:
                        request = requests if parse is None else parse(await _read(context))
                        if inspect.isasyncgenfunction(behaviour):
                            async for message in behaviour(request, context):
                                await context.write(message)
                        else:
                            await behaviour(request, context)
            except TaskqError as error:
                await context.abort_with_status(to_status(error))
            except TimeoutError:
                ended = Unauthenticated("the token was revoked or has expired while the stream was open")
                await context.abort_with_status(to_status(ended))

        return call


async def _read(context: Context) -> bytes:
    """The one request of a call, as it came."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            request = await context.read()
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"the request was not whole after {REQUEST_SECONDS} s")
    if request is grpc.aio.EOF:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no whole request in the call")
    return request  # type: ignore[no-any-return]


def _as_it_is(request: Any) -> Any:
    return request


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
