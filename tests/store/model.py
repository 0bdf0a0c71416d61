"""What a store should do, said a second time and as simply as possible: dictionaries, and one thing after the other.

Each method takes what was asked and what was answered, checks the answer, and changes as the store must have changed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from taskq_server.core.bulk_operation import POSSIBLE, Action, ActionKind
from taskq_server.core.matching import Route
from taskq_server.core.task import (
    TRANSITIONS,
    Assignment,
    DedupConflict,
    DedupHold,
    Ended,
    Ending,
    EndStatus,
    Enqueued,
    EnqueueOutcome,
    Event,
    NewTask,
    Outcome,
    Payload,
    TaskState,
    next_state,
)
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import Cancelled
from taskq_server.store.verbs.leasing import Leased
from taskq_server.store.verbs.pausing import Pause
from taskq_server.store.verbs.reclaiming import MOST_SESSIONS_PER_RECLAIM, Reclaimed

EXISTING, CONFLICT = EnqueueOutcome.EXISTING, EnqueueOutcome.CONFLICT
SCHEDULED, RUNNING = TaskState.SCHEDULED, TaskState.RUNNING

REACHABLE = {state: {state} for state in TaskState}
for _ in TaskState:
    for (_before, _event), _after in TRANSITIONS.items():
        for _found in REACHABLE.values():
            if _before in _found:
                _found.add(_after)
"""What a state may have become when it is looked at again."""


@dataclass
class ModelTask:
    seq: int
    new: NewTask
    due: int
    enqueue_time: int
    payload: Payload | None
    state: TaskState = SCHEDULED
    attempt: int = 0
    failed: int = 0
    lost: int = 0
    holder: int | None = None
    deadline: int | None = None
    finish_time: int | None = None
    prune_time: int | None = None
    history: dict[int, tuple[int, Outcome]] = field(default_factory=dict)
    """How each attempt ended, and whose it was."""
    kept: set[int] = field(default_factory=set)
    """The attempts after which the task went on."""

    @property
    def urgency(self) -> tuple[int, int, int]:
        return -self.new.priority, self.due, self.seq

    def change(self, event: Event) -> None:
        self.state = next_state(self.state, event)


@dataclass
class ModelSession:
    alive_until: int
    capabilities: dict[str, int]
    labels: dict[str, str]
    slots: int
    server: int
    end_time: int | None = None


@dataclass
class Hold:
    task_id: bytes
    hold: DedupHold
    until: int | None


@dataclass
class Model:
    rules: Rules
    tasks: dict[bytes, ModelTask] = field(default_factory=dict)
    sessions: dict[int, ModelSession] = field(default_factory=dict)
    servers: dict[int, int] = field(default_factory=dict)
    """Until when each is taken for living."""
    keys: dict[tuple[str, str], Hold] = field(default_factory=dict)
    paused: dict[str, int] = field(default_factory=dict)
    """Names, and since when."""
    seq: int = 0
    created: int = 0
    pruned: int = 0
    successes: Counter[bytes] = field(default_factory=Counter)

    # ── enqueue ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, now: int, tasks: list[NewTask], answers: list[Enqueued] | None) -> None:
        """`answers` is None when they were lost."""
        expected = [self._add(now, task) for task in tasks]
        if answers is not None:
            assert [(one.task_id, one.outcome) for one in answers] == [(one.task_id, one.outcome) for one in expected]
            for answer, wanted in zip(answers, expected, strict=True):
                moved = any(one.outcome is EnqueueOutcome.REPLACED for one in expected)
                assert answer.due_time_us == wanted.due_time_us or moved

    def _add(self, now: int, new: NewTask) -> Enqueued:
        due = now + new.delay_us if new.due_time_us is None else new.due_time_us
        if (known := self.tasks.get(new.task_id)) is not None:
            same = known.new.content_hash == new.content_hash
            return Enqueued(new.task_id, EXISTING if same else CONFLICT, known.due)
        if new.dedup is not None:
            place = new.dedup.scope, new.dedup.key
            if (hold := self.holder(now, place)) is not None:
                return self._held(now, new, hold, due)
            until = None if new.dedup.ttl_us is None else now + new.dedup.ttl_us
            self.keys[place] = Hold(new.task_id, new.dedup.hold, until)
        self.seq += 1
        self.created += 1
        self.tasks[new.task_id] = ModelTask(self.seq, new, due, now, new.payload)
        return Enqueued(new.task_id, EnqueueOutcome.CREATED, due)

    def _held(self, now: int, new: NewTask, hold: Hold, due: int) -> Enqueued:
        assert new.dedup is not None
        holder = self.tasks.get(hold.task_id)
        held_due = now if holder is None else holder.due
        if new.dedup.on_conflict is DedupConflict.REJECT:
            return Enqueued(hold.task_id, EnqueueOutcome.REJECTED, held_due)
        if new.dedup.on_conflict is DedupConflict.RETURN_EXISTING or holder is None or holder.state is not SCHEDULED:
            return Enqueued(hold.task_id, EXISTING, held_due)
        holder.due = due
        if new.dedup.on_conflict is DedupConflict.REPLACE:
            holder.payload = new.payload
        return Enqueued(hold.task_id, EnqueueOutcome.REPLACED, due)

    def holder(self, now: int, place: tuple[str, str]) -> Hold | None:
        if (hold := self.keys.get(place)) is None:
            return None
        task = self.tasks.get(hold.task_id)
        unfinished = task is not None and not task.state.finished
        in_time = hold.until is not None and hold.until > now
        return hold if in_time or (unfinished and hold.hold is not DedupHold.TTL) else None

    # ── lease ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def lease(self, now: int, slots: dict[int, int], leased: Leased, ahead: int = 0) -> None:
        """`slots` says how many each session asked for; what it may not have is not in the answer."""
        self.expire(now)
        total = {seq: many for seq, many in slots.items() if self.sessions[seq].end_time is None}
        by_name = {
            (seq, name): min(limit or many, many)
            for seq, many in total.items()
            for name, limit in self.sessions[seq].capabilities.items()
        }
        due = {task_id: task for task_id, task in self.tasks.items() if self.is_open(task) and task.due <= now + ahead}

        def free(seq: int, route: Route) -> bool:
            session = self.sessions[seq]
            may = route.open_to(session.capabilities, session.labels)
            return may and total[seq] > 0 and by_name[seq, route.name] > 0

        order = []
        for one in leased.assignments:
            assert one.task_id in due, "only what waits and is due"
            task = due.pop(one.task_id)
            assert free(one.session_seq, task.new.route), "a capability, labels and credits"
            total[one.session_seq] -= 1
            by_name[one.session_seq, task.new.route.name] -= 1
            order.append((task.due > now, *task.urgency))
            begin = max(now, task.due)
            self._check_assignment(one, task, begin)
            task.change(Event.LEASE)
            task.attempt, task.holder = one.attempt, one.session_seq
            task.deadline = None if task.new.run_timeout_us is None else begin + task.new.run_timeout_us
        assert order == sorted(order), "what is due, then what will be; priority, due time, enqueue order"
        for task in due.values():
            assert not any(free(seq, task.new.route) for seq in total), "a due task and a free seat"
        self._check_hint(now, leased.next_due_us, lambda task: any(free(seq, task.new.route) for seq in total))

    def _check_assignment(self, one: Assignment, task: ModelTask, begin: int) -> None:
        assert one.attempt == task.attempt + 1, "attempts are 1, 2, 3"
        assert (one.due_time_us, one.lease_time_us, one.enqueue_time_us) == (task.due, begin, task.enqueue_time)
        assert (one.route, one.priority, one.payload) == (task.new.route, task.new.priority, task.payload)
        assert (one.failed_attempts, one.max_attempts) == (task.failed, task.new.retry_policy.max_attempts)
        assert task.failed < task.new.retry_policy.max_attempts
        assert task.lost < self.rules.max_lost_leases

    def _check_hint(self, now: int, hint: int | None, matters) -> None:  # type: ignore[no-untyped-def]
        waiting = [task.due for task in self.tasks.values() if self.is_open(task) and matters(task)]
        assert hint is None or hint > now, "no busy loop"
        assert not waiting or (hint is not None and hint <= min(waiting)), "no task is forgotten"

    def is_open(self, task: ModelTask) -> bool:
        """Whether it waits for nothing but its due time and a seat."""
        return task.state is SCHEDULED and task.new.route.name not in self.paused

    def expire(self, now: int) -> None:
        for task in self.tasks.values():
            limit = task.new.expire_time_us
            if task.state is SCHEDULED and task.failed == 0 and limit is not None and limit <= now:
                task.change(Event.EXPIRE)
                self._finish(task, now)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, now: int, endings: list[Ending], answers: list[Ended] | None) -> None:
        expected = [self._end(now, ending) for ending in endings]
        if answers is not None:
            assert [(one.task_id, one.attempt, one.status) for one in answers] == [
                (ending.task_id, ending.attempt, status) for ending, status in zip(endings, expected, strict=True)
            ]
            last = {one.task_id: one for one in answers}
            for task_id, answer in last.items():
                if answer.status is not EndStatus.NOT_FOUND:
                    task = self.tasks[task_id]
                    assert answer.state is task.state
                    assert answer.due_time_us == (None if task.state.finished else task.due)

    def _end(self, now: int, ending: Ending) -> EndStatus:
        task = self.tasks.get(ending.task_id)
        if task is None:
            return EndStatus.NOT_FOUND
        current = task.state is RUNNING and (task.attempt, task.holder) == (ending.attempt, ending.session_seq)
        if not current:
            same = task.history.get(ending.attempt) == (ending.session_seq, ending.outcome)
            return EndStatus.ALREADY_ACCEPTED if same else EndStatus.LEASE_LOST
        self.end_attempt(now, task, ending)
        return EndStatus.ACCEPTED

    def end_attempt(self, now: int, task: ModelTask, ending: Ending) -> None:
        outcome = ending.outcome
        assert task.holder is not None and task.attempt not in task.history
        task.history[task.attempt] = task.holder, outcome
        task.holder = task.deadline = None
        if outcome is Outcome.SUCCEEDED:
            self.successes[task.new.task_id] += 1
            task.change(Event.SUCCEED)
        elif outcome is Outcome.CANCELLED:
            task.change(Event.CANCEL)
        elif outcome in (Outcome.RELEASED, Outcome.NOT_RECEIVED):
            task.change(Event.RELEASE)
            task.due = task.due if ending.due_time_us is None else ending.due_time_us
        else:
            self._fail(now, task, ending)
        if task.state.finished:
            self._finish(task, now)
        else:
            task.kept.add(task.attempt)

    def _fail(self, now: int, task: ModelTask, ending: Ending) -> None:
        policy, first_loss = task.new.retry_policy, ending.outcome is Outcome.LOST and task.lost == 0
        task.failed += 1
        task.lost += ending.outcome is Outcome.LOST
        named = ending.failure is not None and ending.failure.error_type in policy.non_retryable_errors
        over = task.failed >= policy.max_attempts or task.lost >= self.rules.max_lost_leases
        if over or named or not ending.retryable:
            task.change(Event.GIVE_UP)
            return
        task.change(Event.RETRY)
        if ending.retry_delay_us is not None:
            task.due = now + ending.retry_delay_us
        elif not first_loss:
            wait = policy.initial_delay_us * policy.multiplier ** (task.failed - 1)
            task.due = now + int(min(policy.max_delay_us, wait))

    def _finish(self, task: ModelTask, now: int) -> None:
        task.finish_time = now
        for place, hold in list(self.keys.items()):
            over = hold.hold is DedupHold.UNFINISHED or (hold.until is not None and hold.until <= now)
            if hold.task_id == task.new.task_id and over:
                del self.keys[place]
        retention = task.new.retention_us
        task.prune_time = now + (self.rules.retention_us if retention is None else retention)

    def cancel(self, now: int, task_ids: list[bytes], answers: list[Cancelled] | None) -> None:
        expected = []
        for task_id in task_ids:
            task = self.tasks.get(task_id)
            expected.append(None if task is None else task.state)
            if task is not None and task.state is RUNNING:
                assert task.holder is not None
                self.end_attempt(now, task, Ending(task_id, task.attempt, task.holder, Outcome.CANCELLED))
            elif task is not None and task.state is SCHEDULED:
                task.change(Event.CANCEL)
                self._finish(task, now)
        if answers is not None:
            assert [one.state_before for one in answers] == expected

    # ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────

    def operate(self, now: int, action: Action, task_ids: list[bytes]) -> None:
        for task_id in task_ids:
            task = self.tasks.get(task_id)
            if task is None or task.state not in POSSIBLE[action.kind]:
                continue
            match action.kind:
                case ActionKind.CANCEL:
                    self.cancel(now, [task_id], None)
                case ActionKind.RERUN:
                    self._rerun(now, task)
                case ActionKind.RESCHEDULE:
                    assert action.due_time_us is not None
                    task.due = max(now, action.due_time_us)
                case ActionKind.REPRIORITISE:
                    assert action.priority is not None
                    task.new = replace(task.new, priority=action.priority)
                case ActionKind.DELETE:
                    del self.tasks[task_id]
                    self.successes.pop(task_id, None)
                    self.pruned += 1

    def _rerun(self, now: int, task: ModelTask) -> None:
        """All that is left of what was is its attempts, and a key that is still held for its time."""
        task.change(Event.RERUN)
        task.due, task.failed, task.lost = now, 0, 0
        task.finish_time = task.prune_time = None
        if task.attempt:
            task.kept.add(task.attempt)
        self.successes.pop(task.new.task_id, None)
        mine = {place: hold for place, hold in self.keys.items() if hold.task_id == task.new.task_id}
        for place, hold in mine.items():
            if hold.until is None or hold.until <= now:
                del self.keys[place]
        held = task.new.dedup is not None and (task.new.dedup.scope, task.new.dedup.key) in self.keys
        still = held and self.keys[task.new.dedup.scope, task.new.dedup.key].task_id == task.new.task_id  # type: ignore[union-attr]
        task.new = replace(task.new, expire_time_us=None, dedup=task.new.dedup if still else None)

    # ── pauses ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def pause(self, now: int, name: str, answer: Pause) -> None:
        assert (answer.name, answer.pause_time_us) == (name, self.paused.setdefault(name, now))

    def resume(self, name: str, answer: Pause | None) -> None:
        since = self.paused.pop(name, None)
        assert (None if answer is None else answer.pause_time_us) == since

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def keep_alive(self, seq: int, until: int, answer: bool) -> None:
        session = self.sessions[seq]
        assert answer is (session.end_time is None)
        if session.end_time is None:
            session.alive_until = max(session.alive_until, until)

    def arrive(self, server: int, until: int) -> None:
        self.servers[server] = until

    def leave(self, server: int) -> None:
        del self.servers[server]

    def spare(self, now: int, server: int, until: int) -> None:
        for session in self.sessions.values():
            other_lives = session.server != server and self.servers.get(session.server, now) > now
            if session.end_time is None and not other_lives:
                session.alive_until = max(session.alive_until, until)

    def end_session(self, now: int, seq: int, outcome: Outcome) -> None:
        self.sessions[seq].end_time = now
        for task in self.tasks.values():
            if task.state is RUNNING and task.holder == seq:
                self.end_attempt(now, task, Ending(task.new.task_id, task.attempt, seq, outcome))

    def unregister(self, now: int, seq: int) -> None:
        if self.sessions[seq].end_time is None:
            self.end_session(now, seq, Outcome.RELEASED)

    def reclaim(self, now: int, answer: Reclaimed) -> None:
        late = {seq for seq, one in self.sessions.items() if one.end_time is None and one.alive_until <= now}
        more, late = len(late) > MOST_SESSIONS_PER_RECLAIM, set(sorted(late)[:MOST_SESSIONS_PER_RECLAIM])
        assert set(answer.dead) == late and len(answer.dead) == len(late)
        for seq in late:
            self.end_session(now, seq, Outcome.LOST)
        timed_out = {
            task_id: task
            for task_id, task in self.tasks.items()
            if task.state is RUNNING and task.deadline is not None and task.deadline <= now
        }
        assert {(held.task_id, held.attempt, held.session_seq) for held in answer.timed_out} == {
            (task_id, task.attempt, task.holder) for task_id, task in timed_out.items()
        }
        for task_id, task in timed_out.items():
            assert task.holder is not None
            self.end_attempt(now, task, Ending(task_id, task.attempt, task.holder, Outcome.TIMED_OUT))
        self.expire(now)
        nexts = self.next_reclaims()
        assert (answer.next_us is not None and answer.next_us <= now) is more, "at once when there are more"
        assert not nexts or (answer.next_us is not None and answer.next_us <= min(nexts))

    def next_reclaims(self) -> list[int]:
        nexts = [one.alive_until for one in self.sessions.values() if one.end_time is None]
        nexts += [task.deadline for task in self.tasks.values() if task.state is RUNNING and task.deadline is not None]
        return nexts + [
            task.new.expire_time_us
            for task in self.tasks.values()
            if task.state is SCHEDULED and task.failed == 0 and task.new.expire_time_us is not None
        ]

    def prune(self, now: int, tasks: int, next_us: int | None) -> None:
        gone = [
            task_id for task_id, task in self.tasks.items() if task.prune_time is not None and task.prune_time <= now
        ]
        assert tasks == len(gone)
        for task_id in gone:
            del self.tasks[task_id]
            self.successes.pop(task_id, None)  # the id may be used again, for another task
        self.pruned += len(gone)
        assert next_us == min(
            (task.prune_time for task in self.tasks.values() if task.prune_time is not None), default=None
        )

    def boundaries(self) -> list[int]:
        """The instants at which something changes."""
        tasks = self.tasks.values()
        found = [*self.next_reclaims(), *(task.due for task in tasks if task.state is SCHEDULED)]
        found += [task.prune_time for task in tasks if task.prune_time is not None]
        return sorted(found + [hold.until for hold in self.keys.values() if hold.until is not None])

    # ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────────

    def table(self) -> dict[bytes, tuple[object, ...]]:
        return {
            task_id: (
                int(task.state),
                task.due,
                task.attempt,
                task.failed,
                task.lost,
                task.holder,
                task.deadline,
                task.finish_time,
                task.prune_time,
                None if task.payload is None else task.payload.data,
                tuple((number, *task.history[number]) for number in sorted(task.kept)),
            )
            for task_id, task in self.tasks.items()
        }

    def check(self, now: int) -> None:
        """Laws that hold at every instant (trust.md, 5.2)."""
        assert self.created == len(self.tasks) + self.pruned, "conservation"
        assert max(self.successes.values(), default=0) <= 1, "one success per task"
        for task in self.tasks.values():
            assert len(task.history) == task.attempt - (task.state is RUNNING), "one end per attempt"
            assert task.failed <= task.new.retry_policy.max_attempts
            assert task.lost <= self.rules.max_lost_leases
            if task.state is RUNNING:
                assert task.holder is not None and self.sessions[task.holder].end_time is None, "a lease has a holder"
        held = Counter(
            (task.new.dedup.scope, task.new.dedup.key)
            for task in self.tasks.values()
            if task.new.dedup is not None and task.new.dedup.hold is not DedupHold.TTL and not task.state.finished
        )
        assert max(held.values(), default=0) <= 1, "one unfinished task a key"
