"""Every change of state that is legal, and none besides."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_server.core.retry import Jitter, RetryPolicy
from taskq_server.core.task import (
    TRANSITIONS,
    Ending,
    Event,
    Failure,
    IllegalTransition,
    Outcome,
    TaskState,
    after_attempt,
    next_state,
)

SCHEDULED, RUNNING = TaskState.SCHEDULED, TaskState.RUNNING
SUCCEEDED, FAILED, CANCELLED = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED

LEGAL = {
    (SCHEDULED, Event.LEASE): RUNNING,
    (SCHEDULED, Event.CANCEL): CANCELLED,
    (SCHEDULED, Event.EXPIRE): FAILED,
    (RUNNING, Event.SUCCEED): SUCCEEDED,
    (RUNNING, Event.RETRY): SCHEDULED,
    (RUNNING, Event.RELEASE): SCHEDULED,
    (RUNNING, Event.GIVE_UP): FAILED,
    (RUNNING, Event.CANCEL): CANCELLED,
    (SUCCEEDED, Event.RERUN): SCHEDULED,
    (FAILED, Event.RERUN): SCHEDULED,
    (CANCELLED, Event.RERUN): SCHEDULED,
}
EVERY_CHANGE = [(state, event) for state in TaskState for event in Event]


@pytest.mark.parametrize(("state", "event"), EVERY_CHANGE)
def test_a_change_is_legal_or_impossible(state: TaskState, event: Event) -> None:
    if (state, event) in LEGAL:
        assert next_state(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.name} of a task that is {state.name}"):
            next_state(state, event)


def test_the_table_holds_what_is_legal_and_nothing_else() -> None:
    assert TRANSITIONS == LEGAL


def test_what_is_finished_changes_no_more_unless_somebody_lets_it_run_again() -> None:
    finished = {state for state in TaskState if state.finished}

    assert finished == {SUCCEEDED, FAILED, CANCELLED}
    assert {event for state, event in TRANSITIONS if state in finished} == {Event.RERUN}


def test_every_state_is_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) == set(TaskState)
    assert {state for state, _ in TRANSITIONS} == set(TaskState)


def test_the_numbers_of_states_and_outcomes_are_those_on_the_wire_and_in_the_tables() -> None:
    assert [int(state) for state in (SCHEDULED, RUNNING, SUCCEEDED, FAILED, CANCELLED)] == [1, 2, 3, 4, 5]
    assert {outcome.name: int(outcome) for outcome in Outcome} == {
        "SUCCEEDED": 1,
        "FAILED": 2,
        "RELEASED": 3,
        "CANCELLED": 4,
        "LOST": 5,
        "TIMED_OUT": 6,
        "NOT_RECEIVED": 7,
    }


# ── what a task becomes when an attempt ends ─────────────────────────────────────────────────────────────────────────


THREE_ATTEMPTS = RetryPolicy(max_attempts=3, initial_delay_us=10, jitter=Jitter.NONE)


@dataclass
class ARunningTask:
    due_time_us: int = 100
    failed_attempts: int = 0
    lost_leases: int = 0
    retry_policy: RetryPolicy = THREE_ATTEMPTS


def an_ending(outcome: Outcome, **facts: object) -> Ending:
    failure = Failure("Burnt") if outcome in (Outcome.FAILED, Outcome.LOST, Outcome.TIMED_OUT) else None
    return Ending(b"t", 1, 1, outcome, failure=failure, **facts)  # type: ignore[arg-type]


def after(task: ARunningTask, ending: Ending, now: int = 1_000, *, most: int = 3, dice: float = 0.5):  # type: ignore[no-untyped-def]
    return after_attempt(task, ending, now, max_lost_leases=most, random=lambda: dice)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.SUCCEEDED, SUCCEEDED),
        (Outcome.CANCELLED, CANCELLED),
        (Outcome.RELEASED, SCHEDULED),
        (Outcome.NOT_RECEIVED, SCHEDULED),
        (Outcome.FAILED, SCHEDULED),
        (Outcome.LOST, SCHEDULED),
        (Outcome.TIMED_OUT, SCHEDULED),
    ],
)
def test_each_outcome_leads_to_its_state_while_attempts_are_left(outcome: Outcome, state: TaskState) -> None:
    assert after(ARunningTask(), an_ending(outcome)).state is state


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST, Outcome.TIMED_OUT])
def test_the_last_attempt_that_fails_is_the_end(outcome: Outcome) -> None:
    result = after(ARunningTask(failed_attempts=2), an_ending(outcome))

    assert (result.state, result.failed_attempts) == (FAILED, 3)
    assert result.failure == Failure("Burnt")


@pytest.mark.parametrize("outcome", [Outcome.RELEASED, Outcome.NOT_RECEIVED])
def test_what_is_given_back_counts_nothing_and_keeps_its_due_time(outcome: Outcome) -> None:
    result = after(ARunningTask(failed_attempts=2, lost_leases=2), an_ending(outcome))

    assert (result.due_time_us, result.failed_attempts, result.lost_leases, result.failure) == (100, 2, 2, None)


def test_a_release_may_name_a_due_time() -> None:
    assert after(ARunningTask(), an_ending(Outcome.RELEASED, due_time_us=7)).due_time_us == 7


def test_only_a_release_may_name_a_due_time() -> None:
    assert after(ARunningTask(), an_ending(Outcome.SUCCEEDED, due_time_us=7)).due_time_us == 100


def test_a_failure_waits_for_as_long_as_its_policy_says() -> None:
    assert after(ARunningTask(), an_ending(Outcome.FAILED)).due_time_us == 1_010
    assert after(ARunningTask(failed_attempts=1), an_ending(Outcome.FAILED)).due_time_us == 1_020


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.LOST])
def test_a_delay_that_is_named_wins_over_the_policy(outcome: Outcome) -> None:
    assert after(ARunningTask(lost_leases=1), an_ending(outcome, retry_delay_us=3)).due_time_us == 1_003


def test_what_is_not_retryable_is_not_retried() -> None:
    assert after(ARunningTask(), an_ending(Outcome.FAILED, retryable=False)).state is FAILED


def test_a_first_lost_lease_keeps_the_place_and_a_second_waits() -> None:
    first = after(ARunningTask(), an_ending(Outcome.LOST))
    second = after(ARunningTask(failed_attempts=1, lost_leases=1), an_ending(Outcome.LOST))

    assert (first.due_time_us, first.lost_leases) == (100, 1)
    assert (second.due_time_us, second.lost_leases) == (1_020, 2)


def test_a_timeout_is_not_a_lost_lease() -> None:
    result = after(ARunningTask(), an_ending(Outcome.TIMED_OUT))

    assert (result.lost_leases, result.failed_attempts, result.due_time_us) == (0, 1, 1_010)


@given(
    task=st.builds(
        ARunningTask,
        due_time_us=st.integers(0, 1 << 50),
        failed_attempts=st.integers(0, 9),
        lost_leases=st.integers(0, 9),
        retry_policy=st.builds(
            RetryPolicy,
            max_attempts=st.integers(1, 10),
            initial_delay_us=st.integers(0, 1 << 40),
            multiplier=st.floats(1, 1e9),
            max_delay_us=st.integers(0, 1 << 40),
            jitter=st.sampled_from(Jitter),
        ),
    ),
    outcome=st.sampled_from(Outcome),
    retryable=st.booleans(),
    most=st.integers(1, 5),
    dice=st.floats(0, 1, exclude_max=True),
)
def test_whatever_happens_the_change_is_legal_and_counts_never_go_back(
    task: ARunningTask, outcome: Outcome, retryable: bool, most: int, dice: float
) -> None:
    result = after(task, an_ending(outcome, retryable=retryable), most=most, dice=dice)

    assert any(state is RUNNING and becomes is result.state for (state, _), becomes in TRANSITIONS.items())
    assert result.failed_attempts - task.failed_attempts in (0, 1)
    assert result.lost_leases - task.lost_leases == (outcome is Outcome.LOST)
    if result.state is SCHEDULED:
        assert result.lost_leases < most or outcome in (
            Outcome.RELEASED,
            Outcome.NOT_RECEIVED,
            Outcome.FAILED,
            Outcome.TIMED_OUT,
        )
        assert result.failed_attempts < task.retry_policy.max_attempts or result.failed_attempts == task.failed_attempts
