"""What must hold of a run, whatever was killed in it: the safety rules of a task queue, each a function over all that
was seen. They are checked after the drain, so that nothing is excused as being still on its way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from taskq_server.core.task import Outcome, TaskState
from tests.support.history import Event
from tests.support.ledger import Run
from tests.support.truth import Task

CLOCK_SLACK_SECONDS = 0.11
"""The server's clock may be this far from the wall clock that processors read: see STEP_US in taskq_server/clock.py."""

EXPLAINS_A_SECOND_RUN = frozenset(
    {Outcome.FAILED, Outcome.RELEASED, Outcome.LOST, Outcome.TIMED_OUT, Outcome.NOT_RECEIVED}
)


@dataclass(slots=True)
class Seen:
    """All that was seen of a run: by the schedulers and processors, by the handlers, by the server's database."""

    history: list[Event]
    runs: dict[str, list[Run]]
    tasks: dict[str, Task]
    max_lost_leases: int = 3
    by_op: dict[tuple[str, str], list[Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        grouped: dict[tuple[str, str], list[Event]] = defaultdict(list)
        for event in self.history:
            grouped[event.op, event.phase].append(event)
        self.by_op = grouped

    def ids(self, op: str, phase: str) -> set[str]:
        return {event.task for event in self.by_op.get((op, phase), ())}


Rule = Callable[[Seen], Iterator[str]]


def no_loss(seen: Seen) -> Iterator[str]:
    """What was answered is there."""
    for task_id in seen.ids("enqueue", "ok") - seen.tasks.keys():
        yield f"lost: {task_id} was acknowledged and is gone"


def no_phantom(seen: Seen) -> Iterator[str]:
    """What is there was asked for, as it was asked for; what was refused is not there."""
    asked = {event.task: event for event in seen.by_op.get(("enqueue", "invoke"), ())}
    refused = seen.ids("enqueue", "fail") - seen.ids("enqueue", "ok") - seen.ids("enqueue", "info")
    for task in seen.tasks.values():
        if (invoke := asked.get(task.task_id)) is None:
            yield f"phantom: nobody enqueued {task.task_id}"
            continue
        wanted = (invoke.facts["name"], invoke.facts["priority"], invoke.facts["payload"])
        if (task.name, task.priority, task.payload_digest) != wanted:
            yield f"phantom: {task.task_id} is not what was enqueued"
        if task.task_id in refused:
            yield f"phantom: {task.task_id} was refused and is there"
    for task_id in seen.runs.keys() - asked.keys():
        yield f"phantom: {task_id} ran, and nobody enqueued it"


def one_success(seen: Seen) -> Iterator[str]:
    """At most one report of success is accepted for a task, and it is that of its last attempt."""
    accepted = seen.by_op.get(("report", "ok"), [])
    for task_id, times in Counter(event.task for event in accepted).items():
        if times > 1:
            yield f"two successes: {task_id} was accepted {times} times"
    for event in accepted:
        task = seen.tasks.get(event.task)
        if task is None or task.state is not TaskState.SUCCEEDED or task.attempt != event.attempt:
            yield f"two successes: attempt {event.attempt} of {event.task} was accepted, and the task says otherwise"


def success_was_run(seen: Seen) -> Iterator[str]:
    """A task that succeeded has run to its end under that attempt."""
    for task in seen.tasks.values():
        if task.state is not TaskState.SUCCEEDED:
            continue
        if not any(run.attempt == task.attempt and run.ended for run in seen.runs.get(task.task_id, ())):
            yield f"never ran: {task.task_id} succeeded by attempt {task.attempt}, which no handler finished"


def leases_exclude(seen: Seen) -> Iterator[str]:
    """Leases of a task follow each other; none begins before the one before has ended."""
    for task in seen.tasks.values():
        for earlier, later in pairwise(task.attempts):
            if earlier.end_us is None or later.lease_us < earlier.end_us:
                yield f"two leases: attempts {earlier.number} and {later.number} of {task.task_id} overlap"


def attempts_count_up(seen: Seen) -> Iterator[str]:
    """Attempts are 1, 2, 3, without gaps; each runs once at most, and only those that were leased."""
    for task in seen.tasks.values():
        numbers = [attempt.number for attempt in task.attempts]
        if numbers != list(range(1, task.attempt + 1)):
            yield f"attempts: {task.task_id} has {numbers}, and says {task.attempt}"
        begun = [run.attempt for run in seen.runs.get(task.task_id, ())]
        if len(set(begun)) < len(begun):
            yield f"attempts: {task.task_id} ran {begun}: the same attempt twice"
        if begun and max(begun) > task.attempt:
            yield f"attempts: {task.task_id} ran {begun}, and the server knows {task.attempt}"


def never_early(seen: Seen) -> Iterator[str]:
    """No lease by the server's clock, and no run by the processor's, before the due time."""
    asked = {event.task: event.facts["due"] for event in seen.by_op.get(("enqueue", "invoke"), ())}
    for task in seen.tasks.values():
        due = asked.get(task.task_id)
        if due is None:
            continue
        if task.attempts and task.attempts[0].lease_us < round(due * 1e6):
            yield f"early: {task.task_id} was leased {due - task.attempts[0].lease_us / 1e6:.6f} s before it was due"
        for run in seen.runs.get(task.task_id, ()):
            if run.began < max(due, run.due) - CLOCK_SLACK_SECONDS:
                yield f"early: {task.task_id} ran {max(due, run.due) - run.began:.6f} s before it was due"


def poison_is_stopped(seen: Seen) -> Iterator[str]:
    """No task outlives more processors than it may."""
    for task in seen.tasks.values():
        if task.lost_leases > seen.max_lost_leases:
            yield f"poison: {task.task_id} has cost {task.lost_leases} leases"


def duplicates_are_explained(seen: Seen) -> Iterator[str]:
    """Each run after the first follows an attempt that the server ended for a reason."""
    for task_id, runs in seen.runs.items():
        task = seen.tasks.get(task_id)
        if task is None or len(runs) < 2:
            continue
        reasons = {attempt.number: attempt.outcome for attempt in task.attempts}
        for run in sorted(runs, key=lambda run: run.attempt)[:-1]:
            if reasons.get(run.attempt) not in EXPLAINS_A_SECOND_RUN:
                yield f"duplicate: {task_id} ran attempt {run.attempt} and others, and nothing says why"


def all_is_finished(seen: Seen) -> Iterator[str]:
    """After the drain nothing waits and nothing runs."""
    for task in seen.tasks.values():
        if not task.state.finished:
            yield f"stuck: {task.task_id} is {task.state.name} after the drain"


RULES: tuple[Rule, ...] = (
    no_loss,
    no_phantom,
    one_success,
    success_was_run,
    leases_exclude,
    attempts_count_up,
    never_early,
    poison_is_stopped,
    duplicates_are_explained,
    all_is_finished,
)
