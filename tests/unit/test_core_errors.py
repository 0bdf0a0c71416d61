"""An error carries its facts and says what is and what must be."""

from __future__ import annotations

from taskq_server.core import errors
from taskq_server.core.errors import Fault, InvalidFields, StoreRefused, TaskNotFound, WrongState


def test_every_fault_of_a_request_is_named() -> None:
    error = InvalidFields([Fault("tasks[3].priority", "must be 0 to 9; is 12"), Fault("tasks[4].name", "is empty")])

    assert str(error) == "tasks[3].priority must be 0 to 9; is 12; tasks[4].name is empty"
    assert [fault.field for fault in error.faults] == ["tasks[3].priority", "tasks[4].name"]


def test_a_wrong_state_says_what_is_and_what_must_be() -> None:
    error = WrongState("t1", "succeeded", ("scheduled", "running"))

    assert str(error) == "task 't1' is succeeded; must be scheduled or running"


def test_a_missing_task_is_named() -> None:
    assert "'t1'" in str(TaskNotFound("t1"))


def test_a_refusal_says_why_and_what_to_do_and_is_no_error_of_a_call() -> None:
    error = StoreRefused("it is corrupt", "restore it")

    assert (str(error), error.exit_code) == ("it is corrupt; restore it", 78)
    assert not isinstance(error, errors.TaskqError)
