"""In which states what can be done to many tasks is possible: those that the table of transitions allows."""

from __future__ import annotations

from taskq_server.core.bulk_operation import POSSIBLE, ActionKind
from taskq_server.core.task import TaskState

SCHEDULED, RUNNING = TaskState.SCHEDULED, TaskState.RUNNING
FINISHED = {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}


def test_each_action_is_possible_in_the_states_that_people_are_told_and_in_no_other() -> None:
    assert {
        ActionKind.CANCEL: {SCHEDULED, RUNNING},
        ActionKind.RERUN: FINISHED,
        ActionKind.RESCHEDULE: {SCHEDULED},
        ActionKind.REPRIORITISE: {SCHEDULED},
        ActionKind.DELETE: FINISHED,
    } == POSSIBLE
