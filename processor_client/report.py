"""What is reported of an attempt: its outcome in the words of the contract, within the contract's bounds."""

import traceback
from datetime import timedelta

from client_core.payload import MAX_PAYLOAD_BYTES, encode
from client_core.times import Moment, Span, from_duration, to_duration, to_timestamp
from processor_client.arguments import PayloadUndecodable
from processor_client.server_clock import ServerClock
from processor_client.verdicts import Fail, ProcessLost, Retry, Snooze
from processor_client.wording import clean
from taskq.v1.processor_service_pb2 import AssignedTask, TaskResult
from taskq.v1.task_pb2 import Payload

MAX_TYPE_CHARACTERS = 256
MAX_MESSAGE_CHARACTERS = 4_096
MAX_STACK_CHARACTERS = 32_768
MAX_RETRY_DELAY = timedelta(days=30)


class Reported(Exception):
    """Carries an outcome that was worked out elsewhere, in a child process."""

    def __init__(self, result: TaskResult) -> None:
        super().__init__(f"{result.failed.error_type}: {result.failed.message}" if result.HasField("failed") else "")
        self.result = result


def of_value(task: AssignedTask, value: object) -> TaskResult:
    """What the handler returned: success, unless it cannot be kept, which ends the task because its work is done."""
    result = TaskResult(task_id=task.task_id, attempt=task.attempt)
    result.succeeded.SetInParent()
    if value is None:
        return result
    try:
        payload = value if isinstance(value, Payload) else encode(value)
    except Exception as error:  # noqa: BLE001 - user types take part in the encoding
        return failed(task, "RESULT_NOT_ENCODABLE", f"{type(error).__name__}: {error}", retryable=False)
    if payload is not None:
        if len(payload.data) > MAX_PAYLOAD_BYTES:
            what = f"the result is {len(payload.data)} bytes; must be at most {MAX_PAYLOAD_BYTES}"
            return failed(task, "RESULT_TOO_LARGE", what, retryable=False)
        result.succeeded.result.CopyFrom(payload)
    return result


def of_error(task: AssignedTask, error: BaseException, clock: ServerClock) -> TaskResult:
    """What the handler raised: what it asked for, or a failure."""
    try:
        return _of_error(task, error, clock)
    # Such as Retry(after="soon").
    except (TypeError, ValueError) as mistake:
        return failed(task, _type_name(mistake), str(mistake), _stack(mistake))


def _of_error(task: AssignedTask, error: BaseException, clock: ServerClock) -> TaskResult:
    match error:
        case Reported():
            return error.result
        case Snooze():
            until = error.until if error.delay is None else clock.now() + from_duration(to_duration(error.delay))
            return released(task, until)
        case Retry():
            return failed(task, "Retry", error.reason, retryable=True, retry_delay=error.after)
        case Fail():
            return failed(task, error.error_type or "Fail", error.reason, _stack(error), retryable=False)
        case PayloadUndecodable():
            return failed(task, "PAYLOAD_UNDECODABLE", str(error))
        case ProcessLost():
            return failed(task, "PROCESS_LOST", str(error))
    return failed(task, _type_name(error), _text_of(error), _stack(error))


def failed(
    task: AssignedTask,
    error_type: str,
    message: str,
    stack: str = "",
    *,
    retryable: bool | None = None,
    retry_delay: Span | None = None,
) -> TaskResult:
    """A failed attempt."""
    result = TaskResult(task_id=task.task_id, attempt=task.attempt)
    result.failed.error_type = clean(error_type)[:MAX_TYPE_CHARACTERS]
    result.failed.message = clean(message)[:MAX_MESSAGE_CHARACTERS]
    result.failed.stack = clean(stack)[-MAX_STACK_CHARACTERS:]
    if retryable is not None:
        result.failed.retryable = retryable
    if retry_delay is not None:
        span = min(max(from_duration(to_duration(retry_delay)), timedelta(0)), MAX_RETRY_DELAY)
        result.failed.retry_delay.CopyFrom(to_duration(span))
    return result


def released(task: AssignedTask, due_time: Moment | None = None) -> TaskResult:
    """A task given back unrun."""
    result = TaskResult(task_id=task.task_id, attempt=task.attempt)
    result.released.SetInParent()
    if due_time is not None:
        result.released.due_time.CopyFrom(to_timestamp(due_time))
    return result


def cancelled(task: AssignedTask) -> TaskResult:
    """An attempt that stopped because it was told to."""
    result = TaskResult(task_id=task.task_id, attempt=task.attempt)
    result.cancelled.SetInParent()
    return result


def _type_name(error: BaseException) -> str:
    kind = type(error)
    own = kind.__module__ in ("builtins", "__main__", "__mp_main__")
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - a user's __str__
        return f"its message cannot be shown: {type(fault).__name__}"


def _stack(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - a user's __str__ again, or a chain too deep to print
        return ""
