"""A store beside its model: what is called, with lost answers and crashes, and what must hold after each call."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant

from taskq_server.clock import ManualClock
from taskq_server.core.errors import TaskqError
from taskq_server.core.task import IllegalTransition, TaskState
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.servers import LONGEST_SERVER_LEASE_US
from tests.store.given import living_sessions, replace_verb, rows, seconds, until_idle
from tests.store.model import REACHABLE, Model
from tests.store.mortal import Home

RULES = Rules(retention_us=seconds(20), max_lost_leases=2)
TABLE = (
    "SELECT task_id, state, due_time_us, attempt, failed_attempts, lost_leases, "
    "CASE state WHEN 2 THEN session_seq END, run_deadline_us, finish_time_us, prune_time_us, payload, seq FROM task"
)


class Worlds(RuleBasedStateMachine):
    """Keeps as many worlds as may be the true one; whatever is seen must fit into one of them."""

    make_home: Callable[[], Home]

    def __init__(self) -> None:
        super().__init__()
        self.home = type(self).make_home()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.worlds = [Model(RULES)]
        self.last_seen: dict[bytes, tuple[int, int]] = {}
        self.arrive(self.home.open(self.clock))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def arrive(self, opening: Coroutine[Any, Any, Store]) -> None:
        self.store = self.run(opening)
        until = self.now + LONGEST_SERVER_LEASE_US
        self.fits(lambda world: world.arrive(self.store.server_seq, until))

    def go_on(self) -> None:
        self.arrive(self.home.go_on(self.clock))

    @property
    def now(self) -> int:
        return self.clock.now_us()

    def fits(self, change: Callable[[Model], None], *, also_unchanged: bool = False) -> None:
        """Keeps the worlds that `change` fits; with `also_unchanged`, as they are and as they would be."""
        fitting: list[Model] = []
        misfit: Exception | None = None
        for world in self.worlds:
            changed = copy.deepcopy(world)
            try:
                change(changed)
            except (AssertionError, LookupError, IllegalTransition) as error:
                misfit = error
            else:
                fitting.append(changed)
            if also_unchanged:
                fitting.append(world)
        if not fitting:
            assert misfit is not None
            raise misfit
        self.worlds = fitting[:16]

    def call(
        self,
        verb: str,
        items: list[Any],
        fault: str | None,
        fit: Callable[[Model, Any], None],
    ) -> Any:
        """Calls a method of the store with a fault; answers what the caller got, None when that was nothing."""
        method = getattr(self.store, verb)
        if fault == "caller leaves" and verb != "lease":
            self.run(self._leave(verb, method(items)))
            self.fits(lambda world: fit(world, None), also_unchanged=True)
            return None
        if fault == "dies before":
            self.run(self._die_in(verb, items))
            self.go_on()
            return None
        argument = items[0] if verb == "lease" else items
        if fault == "neighbour fails":
            answer = self.run(self._beside_a_failure(verb, method(argument)))
        else:
            answer = self.run(method(argument))
        self.fits(lambda world: fit(world, answer))
        if fault == "dies after":
            self.home.die()
            self.go_on()
            return None
        return answer

    async def _leave(self, verb: str, work: Coroutine[Any, Any, Any]) -> None:
        caller = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await until_idle(self.store, f"_{verb}")

    async def _die_in(self, verb: str, items: list[Any]) -> None:
        """In the midst of a transaction."""
        work = getattr(self.store, f"_{verb}")

        def work_and_die(tx: Transaction, given: list[Any]) -> list[Any]:
            work(tx, given)
            self.home.die()
            raise ZeroDivisionError

        replace_verb(self.store, f"_{verb}", work_and_die)
        with pytest.raises(ZeroDivisionError):
            await self.store.write(work_and_die, items)

    async def _beside_a_failure(self, verb: str, work: Coroutine[Any, Any, Any]) -> Any:
        """Somebody shares its transaction whose item cannot be."""
        impossible = self.store.write(getattr(self.store, f"_{verb}"), [object()])
        answer, error = await asyncio.gather(work, impossible, return_exceptions=True)
        assert isinstance(error, Exception) and not isinstance(error, TaskqError)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    # ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_laws_hold(self) -> None:
        assert self.home.fatal == []
        if len(self.worlds) == 1:  # looking would tell which world is the true one
            self.look()

    def look(self) -> None:
        found = self.run(rows(self.store, TABLE))
        kept: dict[int, list[tuple[int, int, int]]] = {}
        for row in self.run(rows(self.store, "SELECT * FROM attempt ORDER BY task_seq, attempt")):
            kept.setdefault(row["task_seq"], []).append((row["attempt"], row["session_seq"], row["outcome"]))
        alive = {
            stored.session_seq: (stored.alive_until_us, {(held.task_id, held.attempt) for held in stored.held})
            for stored in self.run(living_sessions(self.store))
        }
        self.check_history(found)
        seen = {row["task_id"]: (*list(row.values())[1:-1], tuple(kept.pop(row["seq"], []))) for row in found}
        assert kept == {}, "attempts without their task"
        hint = self.store.next_due_us(self.store.routes)

        def fit(world: Model) -> None:
            assert seen == world.table()
            holds = {
                seq: (
                    one.alive_until,
                    {(task_id, task.attempt) for task_id, task in world.tasks.items() if task.holder == seq},
                )
                for seq, one in world.sessions.items()
                if one.end_time is None
            }
            assert alive == holds
            waiting = [task.due for task in world.tasks.values() if world.is_open(task)]
            assert not waiting or (hint is not None and hint <= min(waiting)), "no waiting task is forgotten"
            world.check(self.now)

        self.fits(fit)

    def check_history(self, found: list[dict[str, Any]]) -> None:
        """Whatever changed since the last look, it changed by legal steps, and nothing is gone."""
        now = {row["task_id"]: (row["state"], row["attempt"]) for row in found}
        for task_id, (state, attempt) in self.last_seen.items():
            assert TaskState(now[task_id][0]) in REACHABLE[TaskState(state)]
            assert now[task_id][1] >= attempt
        self.last_seen = now
