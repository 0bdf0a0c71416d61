"""What each error is on the wire: a canonical code, a reason, and google.rpc details."""

from __future__ import annotations

import uuid
from urllib.parse import quote

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from taskq_server.core import errors

log = structlog.get_logger("taskq.rpc")

DOMAIN = "taskq.v1"
RETRY_SECONDS = 1
MOST_DETAIL_BYTES = 3_072
"""Details travel in a trailer after base64 together with the message, which peers cut off at 8 KiB."""
MOST_MESSAGE_BYTES = 1_000
"""As it travels, which is percent-encoded; the first fault is always named."""

CODES: dict[type[errors.TaskqError], tuple[int, str]] = {
    errors.InvalidFields: (code_pb2.INVALID_ARGUMENT, "INVALID_FIELDS"),
    errors.MalformedRequest: (code_pb2.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
    errors.Unauthenticated: (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.TooManyFailures: (code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_FAILURES"),
    errors.PermissionDenied: (code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.TooManyDenials: (code_pb2.PERMISSION_DENIED, "TOO_MANY_DENIALS"),
    errors.ReadOnly: (code_pb2.PERMISSION_DENIED, "READ_ONLY"),
    errors.TooManyStreams: (code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"),
    errors.TaskNotFound: (code_pb2.NOT_FOUND, "TASK_NOT_FOUND"),
    errors.TaskExists: (code_pb2.ALREADY_EXISTS, "TASK_EXISTS"),
    errors.ScheduleNotFound: (code_pb2.NOT_FOUND, "SCHEDULE_NOT_FOUND"),
    errors.ScheduleExists: (code_pb2.ALREADY_EXISTS, "SCHEDULE_EXISTS"),
    errors.ScheduleChanged: (code_pb2.ABORTED, "SCHEDULE_CHANGED"),
    errors.FailureGroupNotFound: (code_pb2.NOT_FOUND, "FAILURE_GROUP_NOT_FOUND"),
    errors.SessionNotFound: (code_pb2.NOT_FOUND, "SESSION_NOT_FOUND"),
    errors.SessionDisconnected: (code_pb2.NOT_FOUND, "SESSION_DISCONNECTED"),
    errors.WrongState: (code_pb2.FAILED_PRECONDITION, "WRONG_STATE"),
    errors.OperationNotFound: (code_pb2.NOT_FOUND, "OPERATION_NOT_FOUND"),
    errors.OperationConflict: (code_pb2.ALREADY_EXISTS, "OPERATION_CONFLICT"),
    errors.OperationEnded: (code_pb2.FAILED_PRECONDITION, "WRONG_STATE"),
    errors.CountMismatch: (code_pb2.FAILED_PRECONDITION, "COUNT_MISMATCH"),
    errors.Stopping: (code_pb2.UNAVAILABLE, "STOPPING"),
    errors.StorageUnavailable: (code_pb2.UNAVAILABLE, "STORAGE_UNAVAILABLE"),
    errors.StorageFull: (code_pb2.RESOURCE_EXHAUSTED, "STORAGE_FULL"),
}


def to_status(error: Exception) -> grpc.Status:
    """The status of any error, for gRPC."""
    return rpc_status.to_status(to_message(error))


def to_message(error: Exception) -> status_pb2.Status:
    """The status of any error; of one that was not raised on purpose, an id that stands in the log too."""
    if not isinstance(error, errors.TaskqError):
        return _internal(error)
    code, reason = CODES[type(error)]
    facts = {key: _fact(value) for key, value in vars(error).items() if key not in ("faults", "detail") and value}
    details = [_pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts))]
    message = str(error)
    if isinstance(error, errors.InvalidFields):
        violations, message = _violations(error)
        details.append(_pack(violations))
    if code in (code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED):
        delay = duration_pb2.Duration(seconds=RETRY_SECONDS)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code, message=message, details=details)


def _fact(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _internal(error: Exception) -> status_pb2.Status:
    error_id = uuid.uuid4().hex
    log.error("unexpected error", error_id=error_id, exc_info=error)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"error_id": error_id})
    message = f"an unexpected error, which the server's log has as {error_id}"
    return status_pb2.Status(code=code_pb2.INTERNAL, message=message, details=[_pack(info)])


def _violations(error: errors.InvalidFields) -> tuple[error_details_pb2.BadRequest, str]:
    """As many faults as fit into a trailer, and a sentence that says how many there are."""
    request = error_details_pb2.BadRequest()
    sentences = []
    for fault in error.faults:
        request.field_violations.add(field=fault.field, description=fault.rule)
        if request.ByteSize() > MOST_DETAIL_BYTES:
            del request.field_violations[-1]
            break
        sentences.append(f"{fault.field} {fault.rule}")
    shown = sentences[:5]
    while len(shown) > 1 and len(quote("; ".join(shown))) > MOST_MESSAGE_BYTES:
        shown.pop()
    more = len(error.faults) - len(shown)
    return request, "; ".join(shown) + (f"; and {more} more" if more else "")


def _pack(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
