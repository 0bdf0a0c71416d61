"""The store against its model: any sequence of calls, with lost answers, crashes, restarts and steps of the clock.

TASKQ_MODEL_EXAMPLES sets how many sequences are tried on each database, TASKQ_MODEL_STEPS how long they may grow.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, multiple, rule

from taskq_server.clock import ManualClock
from taskq_server.core.bulk_operation import Action, ActionKind, NewOperation
from taskq_server.core.matching import Demand
from taskq_server.core.task import Assignment, DedupConflict, DedupHold, Ending, EndStatus, Failure, NewTask, Outcome
from taskq_server.store.verbs import bulk
from taskq_server.store.verbs.living import Grace, NewSession, Sign
from taskq_server.store.verbs.pausing import NewPause
from taskq_server.task_id import new as new_id
from tests.store.given import LEASE, NO_RETRY, Processor, a_retry, a_task, an_id, rows, seconds
from tests.store.model import Model, ModelSession
from tests.store.mortal import PostgresHome, SQLiteHome
from tests.store.worlds import RULES, Worlds

IDS = [an_id(number) for number in range(1, 5)]
POLICIES = [
    NO_RETRY,
    a_retry(max_attempts=2, initial_delay_us=0),
    a_retry(max_attempts=4, initial_delay_us=seconds(4), multiplier=2.0, max_delay_us=seconds(7)),
    a_retry(max_attempts=9, initial_delay_us=0, non_retryable_errors=("Raw",)),
]
FAULTS = st.sampled_from(
    [None] * 12 + ["neighbour fails", "neighbour fails", "caller leaves", "dies before", "dies after"]
)
OUTCOMES = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.RELEASED, Outcome.CANCELLED, Outcome.NOT_RECEIVED]
WAITS = [1, seconds(1), seconds(3), seconds(7), LEASE - 1, LEASE, LEASE + 1, 120 * LEASE]


@st.composite
def new_tasks(draw: st.DrawFn) -> dict[str, Any]:
    """A task but for the times that depend on now."""
    pick = st.sampled_from
    ttl = draw(pick([None, None, seconds(3), LEASE]))
    return {
        "name": draw(pick(["cook", "cook", "bake"])),
        "task_id": draw(pick([None, None, *IDS])),
        "requires": draw(pick([(), (), ("zone = eu",)])),
        "due_in": draw(pick([0, 0, 0, 0, 0, 1, seconds(3), LEASE])),
        "payload": draw(pick([None, b"", b"pasta", b"pizza"])),
        "content": draw(pick(["x", "x", "x", "y"])),
        "priority": draw(pick([0, 0, 5, 9])),
        "key": draw(pick([None, None, None, "a", "b"])),
        "on_conflict": draw(pick(DedupConflict)),
        "ttl": ttl,
        "hold": DedupHold.UNFINISHED if ttl is None else draw(pick([DedupHold.TTL, DedupHold.BOTH])),
        "retry": draw(pick(POLICIES)),
        "run_timeout": draw(pick([None, None, seconds(5)])),
        "expires_in": draw(pick([None] * 8 + [0, seconds(4)])),
        "retention": draw(pick([None, 0, seconds(3)])),
    }


class StoreMachine(Worlds):
    """What may be done to a store, in any order."""

    leases: Bundle[Assignment] = Bundle("leases")
    sessions: Bundle[Processor] = Bundle("sessions")

    @initialize(target=leases, specs=st.lists(new_tasks(), min_size=2, max_size=5))
    def begin(self, specs: list[dict[str, Any]]) -> Any:
        """So that every sequence has something to report on."""
        self.enqueue(specs, None)
        self.first = self.register(("cook", "bake"), 0, {"zone": "eu"}, 5, 10 * LEASE)
        return self.lease([self.first], None, None)

    @initialize(target=sessions)
    def first_processor(self) -> Processor:
        return self.register(("cook", "bake"), 0, {"zone": "eu"}, 5, LEASE)

    @rule(
        target=sessions,
        names=st.sampled_from([("cook",), ("bake",), ("cook", "bake")]),
        limit=st.sampled_from([0, 0, 1]),
        labels=st.sampled_from([{}, {"zone": "eu"}, {"zone": "us"}]),
        slots=st.sampled_from([1, 2, 5]),
        alive=st.sampled_from([1, LEASE, 10 * LEASE, 10 * LEASE]),
    )
    def register(self, names: tuple[str, ...], limit: int, labels: dict[str, str], slots: int, alive: int) -> Processor:
        until = self.now + alive
        session_id, capabilities = an_id(), dict.fromkeys(names, limit)
        new = NewSession(session_id, "p", capabilities, labels, slots, "", "", alive)
        seq = self.run(self.store.register(new))

        def fit(world: Model) -> None:
            assert seq not in world.sessions, "a session's number is never used again"
            world.sessions[seq] = ModelSession(until, capabilities, labels, slots, self.store.server_seq)

        self.fits(fit)
        return Processor(seq, "p", session_id, capabilities, labels, slots)

    @rule(specs=st.lists(new_tasks(), min_size=1, max_size=3), fault=FAULTS)
    def enqueue(self, specs: list[dict[str, Any]], fault: str | None) -> None:
        tasks = [self._task(**spec) for spec in specs]
        now = self.now
        answers = self.call("add", tasks, fault, lambda world, answers: world.add(now, tasks, answers))
        if answers is None:  # a scheduler that got no answer sends the same again
            again = self.run(self.store.add(tasks))
            self.fits(lambda world: world.add(now, tasks, again))

    def _task(self, expires_in: int | None, **spec: Any) -> NewTask:
        return a_task(**spec, expires_at=None if expires_in is None else self.now + expires_in)

    @rule(
        target=leases,
        who=st.lists(sessions, min_size=1, max_size=3, unique_by=lambda processor: processor.seq),
        slots=st.sampled_from([None, None, 1]),
        fault=FAULTS,
        ahead=st.sampled_from([0, 0, 1, seconds(3)]),
    )
    def lease(self, who: list[Processor], slots: int | None, fault: str | None, ahead: int = 0) -> Any:
        self.connect(who)
        asked = {one.seq: one.slots if slots is None else slots for one in who}
        demand = Demand([one.seats(self.store, slots) for one in who], ahead)
        for seats in demand.seats:
            held = [task for task in self.worlds[0].tasks.values() if task.holder == seats.session_seq]
            assert not held or seats.total >= 0
        now = self.now
        leased = self.call("lease", [demand], fault, lambda world, answer: world.lease(now, asked, answer, ahead))
        return multiple() if leased is None else multiple(*leased.assignments)

    def connect(self, who: list[Processor]) -> None:
        """After a restart they open their streams at the new server."""
        for one in who:
            stored = self.run(self.store.take_over(one.session_id))
            assert (stored is None) is (self.worlds[0].sessions[one.seq].end_time is not None)
            for world in self.worlds:
                world.sessions[one.seq].server = self.store.server_seq

    @rule(
        target=leases,
        processor=sessions,
        outcomes=st.lists(st.sampled_from([None, *OUTCOMES]), max_size=5),
        faults=st.tuples(FAULTS, FAULTS),
    )
    def work(self, processor: Processor, outcomes: list[Outcome | None], faults: tuple[str | None, str | None]) -> Any:
        """A processor, or its successor when it has ended, takes tasks and reports on some."""
        if self.worlds[0].sessions[processor.seq].end_time is not None:
            processor = self.register(("cook", "bake"), 0, {"zone": "eu"}, 5, 10 * LEASE)
        leased = self.lease([processor], None, faults[0])
        endings = [
            self._ending(one, outcome)
            for one, outcome in zip(leased.values, outcomes, strict=False)
            if outcome is not None
        ]
        if endings:
            self._report(endings, faults[1])
        return leased

    @rule(
        lease=leases,
        outcome=st.sampled_from(OUTCOMES),
        error=st.sampled_from(["Burnt", "Burnt", "Raw"]),
        retryable=st.sampled_from([True, True, True, False]),
        delay=st.sampled_from([None, None, 0, seconds(2)]),
        again=st.sampled_from([None, None, None, Outcome.SUCCEEDED, Outcome.FAILED]),
        forged=st.sampled_from([(0, 0)] * 4 + [(1, 0), (-1, 0), (0, 1)]),
        known=st.booleans(),
        fault=FAULTS,
    )
    def report(
        self,
        lease: Assignment,
        outcome: Outcome,
        error: str,
        retryable: bool,
        delay: int | None,
        again: Outcome | None,
        forged: tuple[int, int],
        known: bool,
        fault: str | None,
    ) -> None:
        outcomes = [outcome] + ([] if again is None else [again])
        endings = [self._ending(lease, one, error, retryable, delay, forged, known) for one in outcomes]
        self._report(endings, fault)

    def _ending(
        self,
        lease: Assignment,
        outcome: Outcome,
        error: str = "Burnt",
        retryable: bool = True,
        delay: int | None = None,
        forged: tuple[int, int] = (0, 0),
        known: bool = True,
    ) -> Ending:
        failed = outcome is Outcome.FAILED
        return Ending(
            lease.task_id,
            lease.attempt + forged[0],
            lease.session_seq + forged[1],
            outcome,
            failure=Failure(error) if failed else None,
            retryable=retryable,
            retry_delay_us=delay if failed else None,
            due_time_us=None if delay is None or outcome is not Outcome.RELEASED else self.now + delay,
            seq=lease.seq if known else None,
        )

    def _report(self, endings: list[Ending], fault: str | None) -> None:
        now = self.now
        answers = self.call("end", endings, fault, lambda world, answers: world.end(now, endings, answers))
        if answers is None:  # a processor that got no answer sends the same again
            resent = self.run(self.store.end(endings))
            self.fits(lambda world: world.end(now, endings, resent))
            if fault == "dies after":
                assert EndStatus.ACCEPTED not in {one.status for one in resent}

    @rule(target_task=st.one_of(st.sampled_from(IDS), leases), fault=FAULTS)
    def cancel(self, target_task: bytes | Assignment, fault: str | None) -> None:
        now, ids = self.now, [target_task if isinstance(target_task, bytes) else target_task.task_id]
        self.call("cancel", ids, fault, lambda world, answers: world.cancel(now, ids, answers))

    @rule(
        kind=st.sampled_from([*ActionKind, ActionKind.RERUN]),
        ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True),
        number=st.integers(0, 9),
        stops=st.booleans(),
    )
    def operate(self, kind: ActionKind, ids: list[bytes], number: int, stops: bool) -> None:
        """In batches of two; between them a store may die that has its time to itself: others wait before they go on
        with what a server has left."""
        now = self.now
        action = Action(kind, due_time_us=now + seconds(number - 1), priority=number)
        new = NewOperation(new_id(), bytes(16), action, task_ids=tuple(ids), place=len(ids))
        started = self.run(self.store.start_operation(new))
        while steps := self.run(self.store.next_steps(started.operation_seq)):
            assert self.run(self.store.advance(steps[0])).moved
            if stops and self.home.own_clock:
                stops = False
                self.home.die()
                self.go_on()
        if kind is ActionKind.DELETE:
            self.last_seen = {}
        self.fits(lambda world: world.operate(now, action, ids))

    @rule(session=sessions, more=st.sampled_from([-5, 1, LEASE, LEASE]))
    def keep_alive(self, session: Processor, more: int) -> None:
        until = self.now + more
        answer = self.run(self.store.keep_alive(Sign(session.seq, more)))
        self.fits(lambda world: world.keep_alive(session.seq, until, answer is not None))

    @rule(session=sessions, spare=st.booleans())
    def unregister(self, session: Processor, spare: bool = False) -> None:
        if spare:
            now, until = self.now, self.now + LEASE // 2
            self.run(self.store.spare(Grace(LEASE // 2)))
            self.fits(lambda world: world.spare(now, self.store.server_seq, until))
        self.run(self.store.unregister(session.seq))
        self.fits(lambda world: world.unregister(self.now, session.seq))

    @rule(name=st.sampled_from(["cook", "bake", "else"]), pauses=st.booleans())
    def pause(self, name: str, pauses: bool) -> None:
        now = self.now
        if pauses:
            paused = self.run(self.store.pause(NewPause(name, "")))
            self.fits(lambda world: world.pause(now, name, paused))
        else:
            resumed = self.run(self.store.resume(name))
            self.fits(lambda world: world.resume(name, resumed))

    @rule(us=st.sampled_from([0, 0, seconds(5), LEASE]))
    def reclaim(self, us: int = 0) -> None:
        self.clock.advance(us=us)
        answer = self.run(self.store.reclaim())
        self.fits(lambda world: world.reclaim(self.now, answer))

    @rule()
    def prune(self) -> None:
        pruned = self.run(self.store.prune(seconds(10)))
        self.fits(lambda world: world.prune(self.now, pruned.tasks, pruned.next_us))
        if pruned.tasks:
            self.last_seen = {}  # the ids of what is gone, and after a restart its numbers too, may be used again

    @rule(us=st.sampled_from(WAITS))
    def time_goes_on(self, us: int) -> None:
        self.clock.advance(us=us)

    @rule(number=st.integers(0, 5), off=st.sampled_from([-1, 0, 0, 1]))
    def time_goes_on_to_where_something_changes(self, number: int, off: int) -> None:
        ahead = [at for at in self.worlds[0].boundaries() if at + off > self.now]
        if ahead:
            self.clock.advance(us=ahead[min(number, len(ahead) - 1)] + off - self.now)

    @rule(back=st.sampled_from([0, 0, seconds(1), seconds(50)]), how=st.sampled_from(["killed", "closed"]))
    def restart(self, back: int, how: str) -> None:
        self.run(self.store.write(lambda tx, items: items, [None]))  # only a time at which something happened is known
        if how == "closed":
            self.run(self.store.close())
            self.fits(lambda world: world.leave(self.store.server_seq))
        self.home.die()
        was = self.now
        if self.home.own_clock:
            self.clock = ManualClock(was - back)
        self.go_on()
        assert self.now > was - seconds(1.1), "time does not go back over a restart"
        if self.now < was:
            self.clock.advance(us=was - self.now)

    def teardown(self) -> None:
        try:
            self.look()
            self.drain()
        finally:
            self.run(self.home.leave())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()

    def drain(self) -> None:
        """Faults are over: everything becomes terminal, and goes."""
        for name in ("cook", "bake"):
            self.pause(name, False)
        for _ in range(100):
            self.time_goes_on_to_where_something_changes(0, 0)
            self.reclaim()
            able = self.register(("cook", "bake"), 0, {"zone": "eu"}, 100, LEASE)
            for lease in self.run_lease(able):
                self.report(lease, Outcome.SUCCEEDED, "", True, None, None, (0, 0), True, None)
            self.unregister(able)
            if all(task.state.finished for task in self.worlds[0].tasks.values()):
                break
        else:
            raise AssertionError("something never ends")
        self.look()
        self.clock.advance(us=seconds(21))
        self.prune()
        self.look()
        assert self.worlds[0].tasks == {}
        assert self.run(rows(self.store, "SELECT * FROM attempt")) == []

    def run_lease(self, processor: Processor) -> list[Assignment]:
        leased = self.run(self.store.lease(Demand([processor.seats(self.store)])))
        self.fits(lambda world: world.lease(self.now, {processor.seq: processor.slots}, leased))
        return leased.assignments  # type: ignore[no-any-return]


EXAMPLES = {"sqlite": 100, "postgres": 30}


@pytest.mark.timeout(7_200)  # to find the smallest sequence that fails takes longer than to find one
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_store_does_what_its_model_does(
    request: pytest.FixtureRequest, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST_A_BATCH", 2)
    if database == "sqlite":
        empty = request.getfixturevalue("empty_sqlite")
        StoreMachine.make_home = lambda: SQLiteHome(RULES, empty)
    else:
        databases = request.getfixturevalue("databases")
        StoreMachine.make_home = lambda: PostgresHome(RULES, databases)
    machine = StoreMachine.TestCase
    machine.settings = settings(
        max_examples=int(os.environ.get("TASKQ_MODEL_EXAMPLES", EXAMPLES[database])),
        stateful_step_count=int(os.environ.get("TASKQ_MODEL_STEPS", "40")),
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    machine("runTest").runTest()
