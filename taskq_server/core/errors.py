"""Every error that the server raises on purpose, so that one table can say what each is on the wire.

    TaskqError
     ├── InvalidFields         what the caller sent breaks a rule
     ├── MalformedRequest      what the caller sent is not the message it should be
     ├── Unauthenticated       who calls is not known
     ├── TooManyFailures       the same, and often
     ├── PermissionDenied      who calls may not
     ├── TooManyDenials        the same, and often
     ├── ReadOnly              nobody may, where it is asked
     ├── TooManyStreams        who calls has opened too many
     ├── TaskNotFound
     ├── TaskExists            a task has this id, and is another
     ├── ScheduleNotFound
     ├── ScheduleExists        a schedule has this id or name, and is another
     ├── ScheduleChanged       since it was read
     ├── FailureGroupNotFound
     ├── SessionNotFound
     ├── SessionDisconnected   by an administrator
     ├── WrongState            the task is in a state that does not allow it
     ├── OperationNotFound
     ├── OperationConflict     an operation has this id, and is another
     ├── OperationEnded        so it cannot be cancelled
     ├── CountMismatch         other than so many tasks are matched
     ├── Stopping              the server goes away
     ├── StorageUnavailable    the database does not answer
     └── StorageFull           the disk is full

    StoreRefused               the server must not start on this database
    CannotListen               the server cannot have this address
    CertificateRefused         the server cannot show or check certificates with this file

An error carries its facts as fields; its class writes the sentence.
"""

from __future__ import annotations

from typing import NamedTuple


class TaskqError(Exception):
    """Raised on purpose."""

    @property
    def in_full(self) -> str:
        """What the log says: perhaps more than callers are told."""
        return str(self)


class Fault(NamedTuple):
    """One field that breaks one rule: `tasks[3].priority`, `must be 0 to 9; is 12`."""

    field: str
    rule: str


class InvalidFields(TaskqError):
    """What the caller sent breaks rules; every one of them is named."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{fault.field} {fault.rule}" for fault in faults))


class MalformedRequest(TaskqError):
    """What the caller sent cannot be read as the message that the call takes."""

    def __init__(self, message: str, rule: str = "must be a well-formed protobuf message") -> None:
        self.message = message
        super().__init__(f"the request is not a {message}; {rule}")


class Unauthenticated(TaskqError):
    """Who calls is not known: no credential, none that holds, or none any more."""

    def __init__(self, why: str, token_id: str = "") -> None:
        self.token_id = token_id
        """The part of a token that is no secret; empty without one."""
        super().__init__(why)


class TooManyFailures(TaskqError):
    """Calls without a credential that holds keep coming from one address."""

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(f"more than {most} calls a minute came from this address without a credential that holds")


class PermissionDenied(TaskqError):
    """Who calls lacks a right; `fields` are those of the request that need it, none when the call itself does."""

    MOST_SHOWN = 10

    def __init__(self, principal: str, needs: tuple[str, ...], fields: tuple[str, ...] = ()) -> None:
        self.principal = principal
        self.needs = needs[: self.MOST_SHOWN]
        self.fields = fields[: self.MOST_SHOWN]
        more = len(fields) - len(self.fields)
        what = f"{', '.join(self.fields)}{f' and {more} more' if more else ''}" if fields else "the call"
        super().__init__(f"{principal!r} may not; {what} must be covered by the right: {', '.join(self.needs[:3])}")


class TooManyDenials(TaskqError):
    """Of one principal more calls have been denied in a minute than it is told about. Trying again does not help."""

    def __init__(self, principal: str, most: int) -> None:
        self.principal = principal
        self.most = most
        super().__init__(f"{principal!r} may not; after {most} such calls in a minute it is not said what is lacking")


class ReadOnly(TaskqError):
    """Whoever asks: the dashboard changes nothing, by the server's settings."""

    def __init__(self) -> None:
        super().__init__("these pages are read-only: TASKQ_DASHBOARD_READ_ONLY is set")


class TooManyStreams(TaskqError):
    """Who calls has as many streams open on this server as is allowed."""

    def __init__(self, principal: str, most: int) -> None:
        self.principal = principal
        self.most = most
        super().__init__(f"{principal!r} has {most} streams open on this server; must be no more")


class TaskNotFound(TaskqError):
    """No such task: never enqueued, or pruned."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"task {task_id!r} does not exist; it was never enqueued, or is pruned")


class TaskExists(TaskqError):
    """A task has this id, and is not what was asked for."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"task {task_id!r} exists, and is no firing of this schedule; must be a new id")


class ScheduleNotFound(TaskqError):
    """No such schedule: never created, or deleted."""

    def __init__(self, schedule: str) -> None:
        self.schedule = schedule
        super().__init__(f"schedule {schedule!r} does not exist; it was never created, or is deleted")


class ScheduleExists(TaskqError):
    """Another schedule has this id or name."""

    def __init__(self, field: str, value: str) -> None:
        self.field = field
        self.value = value
        what = "with other content" if field == "schedule_id" else "as another schedule"
        super().__init__(f"{field} {value!r} exists {what}; must be a new one")


class ScheduleChanged(TaskqError):
    """Somebody has changed the schedule since it was read."""

    def __init__(self, schedule: str, etag: str, current: str) -> None:
        self.schedule = schedule
        self.etag = etag
        self.current = current
        super().__init__(f"schedule {schedule!r} has etag {current!r} by now, not {etag!r}; read it again")


class FailureGroupNotFound(TaskqError):
    """No failures are kept under this fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        super().__init__(f"failure group {fingerprint!r} does not exist, or was not seen for so long that it is gone")


class SessionNotFound(TaskqError):
    """No such session: it ended."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(f"session {session_id!r} does not exist; it has ended, register again")


class SessionDisconnected(TaskqError):
    """An administrator has ended the session."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(f"session {session_id!r} was disconnected by an administrator; register again")


class WrongState(TaskqError):
    """The task's state does not allow the change."""

    def __init__(self, task_id: str, state: str, allowed: tuple[str, ...]) -> None:
        self.task_id = task_id
        self.state = state
        self.allowed = allowed
        super().__init__(f"task {task_id!r} is {state}; must be {' or '.join(allowed)}")


class OperationNotFound(TaskqError):
    """No such bulk operation: never started, or long ago."""

    def __init__(self, operation_id: str) -> None:
        self.operation_id = operation_id
        super().__init__(f"operation {operation_id!r} does not exist; it was never started, or long ago")


class OperationConflict(TaskqError):
    """A bulk operation has this id, and is not what was asked for."""

    def __init__(self, operation_id: str) -> None:
        self.operation_id = operation_id
        super().__init__(f"operation {operation_id!r} exists, and does something else; must be a new id")


class OperationEnded(TaskqError):
    """The bulk operation has come to its end."""

    def __init__(self, operation_id: str, state: str) -> None:
        self.operation_id = operation_id
        self.state = state
        super().__init__(f"operation {operation_id!r} is {state}; must be running")


class CountMismatch(TaskqError):
    """Other than the expected number of tasks are matched."""

    def __init__(self, expected_count: int, matched_tasks: int, is_partial: bool) -> None:
        self.expected_count = expected_count
        self.matched_tasks = matched_tasks
        matched = f"{matched_tasks:,} or more" if is_partial else f"{matched_tasks:,}"
        super().__init__(f"{matched} tasks are matched; must be {expected_count:,}, as expected; nothing was changed")


class Stopping(TaskqError):
    """The server stops and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; try again")


class StorageUnavailable(TaskqError):
    """The database cannot be reached or does not answer in time."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__("the database is unavailable; try again")

    @property
    def in_full(self) -> str:
        return f"the database is unavailable: {self.detail}"


class StorageFull(TaskqError):
    """The disk is full; nothing was stored."""

    def __init__(self) -> None:
        super().__init__("the disk of the server is full; nothing was stored, try again later")


class CannotListen(Exception):
    """The address cannot be bound, most often since another program has it."""

    exit_code = 75

    def __init__(self, address: str, setting: str) -> None:
        self.address = address
        self.setting = setting
        super().__init__(f"{address} cannot be listened on; stop the program that has it, or set {setting} to another")


class StoreRefused(Exception):
    """The server must not start on this database; `exit_code` follows sysexits."""

    def __init__(self, why: str, hint: str, exit_code: int = 78) -> None:
        self.why = why
        self.hint = hint
        self.exit_code = exit_code
        super().__init__(f"{why}; {hint}")


class CertificateRefused(Exception):
    """A file of the TLS settings cannot be used, or not be handed to what shows it."""

    exit_code = 2

    def __init__(self, setting: str, rule: str, found: str) -> None:
        self.setting = setting
        self.rule = rule
        self.found = found
        super().__init__(f"{setting} {rule}; {found}")
