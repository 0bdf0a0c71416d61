"""The same done to many tasks: bulk operations, which go on whatever happens, and pruning by hand.

An operation is worked on in batches, each a transaction that moves it on. After each the database belongs to the others
for as long as the batch has taken: whatever is done to a million tasks, the flow of the others goes on.
"""

from __future__ import annotations

import asyncio

import structlog

from taskq_server.clock import FAR_FUTURE_US, SECOND_US, Alarm, Clock, pause
from taskq_server.core.bulk_operation import NewOperation, Operation, OperationState
from taskq_server.core.errors import CountMismatch, OperationConflict, OperationNotFound, TaskqError
from taskq_server.core.filter import FilterRefused, parse
from taskq_server.sessions import Sessions
from taskq_server.store.shared import SharedStore
from taskq_server.store.store import Store
from taskq_server.store.transaction import Again
from taskq_server.store.verbs.bulk import LOOKED_AT, Advanced, Step, Turn
from taskq_server.store.verbs.listing import Page
from taskq_server.store.verbs.looking import END, Look
from taskq_server.store.verbs.pruning import MOST_TASKS_PER_PRUNE
from taskq_server.task_id import to_text

log = structlog.get_logger("taskq.bulk")

LOOK_US = 5 * SECOND_US
"""How often a server looks for what another has left unfinished."""
AGAIN_US = SECOND_US
SPARE_US = 15 * SECOND_US
"""How long an operation that this server cannot go on with is left to the others."""
MOST_PAUSE_SECONDS = 1.0
COUNT_SECONDS = 5.0
"""A count that takes longer is broken off: there are as many, or more."""


class Bulk:
    """What may be done to many tasks at once, and the loop that does it."""

    def __init__(self, store: Store, sessions: Sessions, clock: Clock, alarm: Alarm) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._alarm = alarm
        self._spared: dict[int, int] = {}
        """Operations that have failed here, by number, and until when they are left alone."""
        self._look_us = LOOK_US if isinstance(store, SharedStore) else FAR_FUTURE_US

    # ── the use cases ────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, new: NewOperation, *, expected: int = 0, dry_run: bool = False) -> Operation:
        """Counts what is matched, and stores the operation, of which this returns before it is done. The same again
        is fine; OperationConflict when the id is another's, CountMismatch when other than `expected` are matched. It is
        done to no more than `expected` either, whatever comes to match meanwhile."""
        if not dry_run and (known := await self._store.get_operation(new.operation_id)) is not None:
            if known.content_hash != new.content_hash:
                raise OperationConflict(to_text(new.operation_id))
            return known
        await self._count(new)
        if expected and (new.matched != expected or new.matched_is_partial):
            raise CountMismatch(expected, new.matched, new.matched_is_partial)
        if expected:
            new.max_tasks = min(new.max_tasks or expected, expected)
        if dry_run:
            return self._as_it_would_be(new)
        started = await self._store.start_operation(new)
        log.info("bulk operation started", operation=to_text(new.operation_id), matched=started.matched)
        self._alarm.ring()
        return started

    async def _count(self, new: NewOperation) -> None:
        """How many tasks there are of those that are meant, as far as there is time to count; what comes later is none
        of them."""
        if not new.filter:
            new.place, new.matched = len(new.task_ids), await self._store.count_tasks(new.task_ids)
            return
        loop = asyncio.get_running_loop()
        ends = loop.time() + COUNT_SECONDS
        new.place = await self._store.last_number() + 1
        look = Look(parse(new.filter), new.place, END, LOOKED_AT, only_count=True)
        while True:
            began = loop.time()
            looked = await self._store.look_at_tasks(look)
            new.matched += looked.many
            if looked.before is None:
                return
            await pause(min(loop.time() - began, MOST_PAUSE_SECONDS))
            if loop.time() > ends:
                new.matched_is_partial = True
                return
            look = look._replace(before=looked.before)

    def _as_it_would_be(self, new: NewOperation) -> Operation:
        asked = new.filter, new.task_ids, new.reason, "", new.max_tasks, self._clock.now_us(), None
        counted = new.matched, new.matched_is_partial
        state = OperationState.RUNNING
        return Operation(0, new.operation_id, new.content_hash, state, new.action, *asked, *counted)

    async def get(self, operation_id: bytes) -> Operation:
        """The operation as it stands, or OperationNotFound."""
        found = await self._store.get_operation(operation_id)
        if found is None:
            raise OperationNotFound(to_text(operation_id))
        return found

    async def find(self, page: Page) -> list[Operation]:
        """Operations, those started last first."""
        return await self._store.list_operations(page)

    async def cancel(self, operation_id: bytes) -> Operation:
        """Ends an operation after the batch at which it is; OperationEnded when it has come to its end."""
        cancelled = await self._store.cancel_operation(operation_id)
        log.info("bulk operation cancelled", operation=to_text(operation_id), done=cancelled.done)
        return cancelled

    async def prune(self, at_most: int) -> tuple[int, bool]:
        """Deletes finished tasks past their retention; answers how many, and whether there are more."""
        tasks, has_more = 0, True
        while has_more and tasks < at_most:
            pruned = await self._store.prune_asked(min(at_most - tasks, MOST_TASKS_PER_PRUNE))
            tasks += pruned.tasks
            has_more = pruned.next_us is not None and pruned.next_us <= self._clock.now_us()
            if not pruned.tasks:  # what is left is in the hands of another server
                break
        return tasks, has_more

    # ── the work ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        while True:
            await self._alarm.wait(await self._tick_safely())

    async def _tick_safely(self) -> int:
        try:
            return await self.tick()
        except (TaskqError, Again) as error:
            log.error("bulk operations have to wait", error=str(error) or type(error).__name__)
        except Exception as error:
            log.error("bulk operations fail", exc_info=error)
        return self._clock.now_us() + AGAIN_US

    async def tick(self) -> int:
        """Does the next batches of those operations that have waited longest, and answers when to come back. One that
        fails keeps no other from going on."""
        others_wait = False
        now_us = self._clock.now_us()
        self._spared = {seq: until_us for seq, until_us in self._spared.items() if until_us > now_us}
        for turn in await self._store.turns(frozenset(self._spared)):
            try:
                others_wait |= await self._go_on(turn)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                await self._spare(turn, error)
                others_wait = True  # for the turn that it had
        now_us = self._clock.now_us()
        return now_us if others_wait else min([now_us + self._look_us, *self._spared.values()])

    async def _go_on(self, turn: Turn) -> bool:
        """Whether it has moved. After a batch the others are let go on for as long as it has taken, with its part of
        the look that has found it."""
        loop, has_moved = asyncio.get_running_loop(), False
        began = loop.time()
        steps = await self._store.next_steps(turn.operation_seq)
        share = (loop.time() - began) / max(1, len(steps))
        for step in steps:
            began = loop.time()
            advanced = await asyncio.shield(self._advance(step))
            has_moved |= advanced.moved
            await pause(min(loop.time() - began + share, MOST_PAUSE_SECONDS))
        return has_moved

    async def _spare(self, turn: Turn, error: Exception) -> None:
        """Leaves it alone for a while, in which another server may take it over, and says why: in the log, and to those
        who look at the operation."""
        operation = to_text(turn.operation_id)
        if isinstance(error, TaskqError | Again | FilterRefused):
            spare_us = SPARE_US if isinstance(error, FilterRefused) else AGAIN_US
            why = str(error) or "others came between"
            log.error("a bulk operation has to wait", operation=operation, error=why)
        else:
            spare_us, why = SPARE_US, f"an unexpected error ({type(error).__name__}), which the server's log has"
            log.error("a bulk operation fails", operation=operation, exc_info=error)
        self._spared[turn.operation_seq] = self._clock.now_us() + spare_us
        try:
            await self._store.note_trouble(turn.operation_seq, why)
        except Exception as second:  # noqa: BLE001 - the log has it
            log.info("why a bulk operation waits is not noted", operation=operation, error=type(second).__name__)

    async def _advance(self, step: Step) -> Advanced:
        """Shielded: whoever asked may go away during the commit, and processors must be told all the same."""
        advanced = await self._store.advance(step)
        self._sessions.stop(advanced.stopped)
        if advanced.ended:
            log.info("bulk operation ended", operation_seq=step.operation_seq)
        return advanced
