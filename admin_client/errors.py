"""How the command ends when something went wrong: its exit code, what is said, and what is to be done.

0     done
1     a fault of ours; or you were asked and said no; or what was to be checked is not as it must be
2     wrong use: a flag, an argument, a file
3     a task that was waited for has failed
4     a task that was waited for was cancelled, or was not finished in time
64+n  the call ended with the gRPC status n, as in grpcurl: 67 INVALID_ARGUMENT, 69 NOT_FOUND, 73 FAILED_PRECONDITION,
      78 UNAVAILABLE, 80 UNAUTHENTICATED
130   Ctrl-C
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from client_core.errors import TaskqError

DECLINED: Final = 1
UNFIT: Final = 1
USAGE: Final = 2
TASK_FAILED: Final = 3
NOT_FINISHED: Final = 4
RPC: Final = 64
INTERRUPTED: Final = 130
FAILED_PRECONDITION: Final = RPC + 9

_FIXES: Final = {
    "TASK_NOT_FOUND": "`taskq task list` shows those that are kept",
    "SCHEDULE_NOT_FOUND": "`taskq schedule list` shows their names",
    "SCHEDULE_EXISTS": "`taskq schedule update` changes it",
    "SCHEDULE_CHANGED": "somebody else has changed it meanwhile: look at it, then do it again",
    "SESSION_NOT_FOUND": "`taskq processor list` shows the sessions that live",
    "OPERATION_NOT_FOUND": "`taskq op list` shows them",
    "FAILURE_GROUP_NOT_FOUND": "`taskq failure list --all` shows them",
    "COUNT_MISMATCH": "other tasks match than were counted: look again with --dry-run",
    "WRONG_STATE": "`taskq task explain` says what became of it",
    "STORAGE_FULL": "make room on the server's disk",
}
"""By the reason that the server gives."""


class Ended(click.ClickException):
    """Ends the command with a code, and a sentence if there is something to say."""

    def __init__(self, exit_code: int, message: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click's own subclasses have one of their own, too
        self.fix = fix


def code_of(error: TaskqError) -> int:
    """The exit code of a call's error."""
    return RPC + int(error.code.value[0])


def fix_of(error: TaskqError, address: str) -> str:
    """What is to be done about it; empty when that is said already, or nobody knows."""
    from client_core import errors

    if error.reason in _FIXES:
        return _FIXES[error.reason]
    match error:
        case errors.HandshakeFailed():
            return ""
        case errors.Unavailable(reason=""):
            return f"is there a server at {address}? start one with `taskq dev`, or say where with --address"
        case errors.Unauthenticated():
            return "give --token-file or TASKQ_TOKEN_FILE; `taskq token create`, on the server, makes a token"
        case errors.PermissionDenied():
            return "a token with that right is made by `taskq token create`, on the server"
        case errors.Unimplemented():
            return "the server is older than this command: `taskq server-info` tells its version"
        case errors.DeadlineExceeded():
            return "it may have been done, or not: look, then try again, or give it longer with --timeout"
        case errors.Unavailable() | errors.ResourceExhausted():
            after = f" in {error.retry_delay:g} s" if error.retry_delay else ""
            return f"try again{after}"
        case errors.Internal():
            return "the server's log has more of it"
    return ""


def sentence(error: TaskqError, address: str) -> str:
    """What happened, for people."""
    from client_core import errors

    if isinstance(error, errors.Unavailable) and not error.reason and not isinstance(error, errors.HandshakeFailed):
        return f"no server answers at {address}"
    faults = [f"{field}: {fault}" for field, fault in error.fields if fault not in error.message]
    return "; ".join([error.message or error.code.name, *faults])


def report(error: TaskqError | click.ClickException, address: str, as_json: bool, request_id: str = "") -> int:
    """Says on stderr what went wrong and what is to be done; answers the exit code."""
    from client_core.errors import TaskqError

    if isinstance(error, TaskqError):
        code, name, said, fix = code_of(error), error.code.name, sentence(error, address), fix_of(error, address)
        details = _details(error)
    elif isinstance(error, Ended):
        code, name, said, fix, details = error.exit_code, "ENDED", error.message, error.fix, []
    else:
        code, name, said, fix, details = error.exit_code, "USAGE", error.format_message(), _help(error), []
    if as_json:
        facts = {"code": name, "message": said, "fix": fix, "requestId": request_id, "details": details}
        click.echo(json.dumps({key: value for key, value in facts.items() if value or key == "details"}), err=True)
    elif said:
        from admin_client.words import clean

        head = name if isinstance(error, TaskqError) else ""
        click.echo(f"taskq: {': '.join(part for part in (head, clean(said)) if part)}", err=True)
        if fix:
            click.echo(f"  {clean(fix)}", err=True)
    return code


def _help(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    return f"`{ctx.command_path} --help` says how" if ctx is not None else ""


def _details(error: TaskqError) -> list[dict[str, Any]]:
    """The google.rpc details, as protobuf writes them in JSON."""
    details: list[dict[str, Any]] = []
    kind = "type.googleapis.com/google.rpc."
    if error.reason:
        info = {"@type": f"{kind}ErrorInfo", "reason": error.reason, "domain": "taskq.v1", "metadata": error.metadata}
        details.append(info)
    if error.fields:
        violations = [{"field": field, "description": fault} for field, fault in error.fields]
        details.append({"@type": f"{kind}BadRequest", "fieldViolations": violations})
    if error.retry_delay is not None:
        details.append({"@type": f"{kind}RetryInfo", "retryDelay": f"{error.retry_delay:g}s"})
    return details
