"""Every error of a call, as a tree, so that a program can name the one that it can do something about.

TaskqError
├─ Cancelled            the call was cancelled
├─ Unknown              the server gave no reason
├─ InvalidArgument      what was sent breaks a rule: see `.fields`          (also a ValueError)
├─ DeadlineExceeded     no answer in time: it may have been done, or not    (also a TimeoutError)
├─ NotFound             there is no such thing
├─ AlreadyExists        there is one already
├─ PermissionDenied     this caller may not
├─ Unauthenticated      the server does not know this caller
├─ ResourceExhausted    a limit is reached: see `.retry_delay`
├─ FailedPrecondition   its state does not allow it
├─ Aborted              somebody else was faster
├─ OutOfRange           past the end
├─ Unimplemented        this server is too old
├─ Internal             a fault of the server: its log has the id in `.metadata`
├─ Unavailable          the server cannot be reached, or stops: try again
│  └─ HandshakeFailed   it can be reached, but TLS is not agreed on: the message says what to set
└─ DataLoss             what was stored is damaged
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class TaskqError(Exception):
    """The root.

    code          the canonical gRPC status
    reason        the machine-readable cause, such as TASK_NOT_FOUND; empty when the server did not say
    message       for people
    metadata      the facts, by name
    retry_delay   seconds after which the server suggests trying again; None when it suggests nothing
    fields        on InvalidArgument: (field, what is wrong) for each fault; else empty
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay: float | None = None,
        fields: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_delay = retry_delay
        self.fields = list(fields)

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.reason, self.message) if part) or self.code.name
        # The server's own sentence may list its faults already.
        faults = "; ".join(f"{field}: {fault}" for field, fault in self.fields if fault not in self.message)
        return f"{head} ({faults})" if faults else head

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles whatever the arguments of a subclass's __init__ are.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[TaskqError], arguments: tuple[Any, ...], facts: dict[str, Any]) -> TaskqError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(facts)
    return error


class Cancelled(TaskqError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED


class Unknown(TaskqError):
    """The server gave no reason."""


class InvalidArgument(TaskqError, ValueError):
    """What was sent breaks a rule; `fields` names every fault. Nothing was stored."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(TaskqError, TimeoutError):
    """No answer came in time: what was asked may have been done, or not."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(TaskqError):
    """There is no such thing."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(TaskqError):
    """There is one already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(TaskqError):
    """This caller may not."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(TaskqError):
    """The server does not know this caller."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhausted(TaskqError):
    """A limit is reached; `retry_delay` says when to try again, if that can help."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(TaskqError):
    """Its state does not allow it."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(TaskqError):
    """Somebody else was faster."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(TaskqError):
    """Past the end."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(TaskqError):
    """This server is too old, or is not a taskq server."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(TaskqError):
    """A fault of the server; its log has the id in `metadata`."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(TaskqError):
    """The server cannot be reached, or stops. What was asked may have been done, or not; try again."""

    code = grpc.StatusCode.UNAVAILABLE


class HandshakeFailed(Unavailable):
    """The server is there, but one side does not speak TLS or does not trust the other. Nothing was done, and trying
    again does not help: the message says what to set."""


class DataLoss(TaskqError):
    """What was stored is damaged."""

    code = grpc.StatusCode.DATA_LOSS


_BY_CODE: dict[grpc.StatusCode, type[TaskqError]] = {
    kind.code: kind
    for kind in (
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
    )
}


def from_rpc_error(error: grpc.RpcError) -> TaskqError:
    """The error of a call, from a blocking or an asyncio stub, with what the server said in its google.rpc details."""
    call: Any = error
    facts: dict[str, Any] = {}
    for detail in _details(call):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            facts["reason"] = detail.reason
            facts["metadata"] = dict(detail.metadata)
        elif isinstance(detail, error_details_pb2.RetryInfo):
            facts["retry_delay"] = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
        elif isinstance(detail, error_details_pb2.BadRequest):
            facts["fields"] = [(fault.field, fault.description) for fault in detail.field_violations]
    kind = _BY_CODE.get(call.code(), Unknown)
    return kind(call.details() or "", **facts)


_KNOWN_DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
)


def _details(call: Any) -> list[Message]:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(call)
        return [detail for packed in status.details if (detail := _unpack(packed))] if status else []
    # A proxy may answer in the server's place, with details that do not fit its own code.
    except (ValueError, TypeError, DecodeError):
        return []


def _unpack(packed: Any) -> Message | None:
    for kind in _KNOWN_DETAILS:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    return None
