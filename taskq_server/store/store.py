"""What storage can do, in batches, and what every database does alike.

A verb is a plain function over an open transaction: it takes items and gives one answer an item, in order. The methods
here hand items to `write`, which runs them together with everybody else's and answers after the commit.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from taskq_server.clock import Clock
from taskq_server.core.bulk_operation import NewOperation, Operation
from taskq_server.core.errors import TaskqError
from taskq_server.core.event import Event
from taskq_server.core.explaining import Facts
from taskq_server.core.history import History
from taskq_server.core.matching import Demand, Route
from taskq_server.core.recurring import Key, Schedule
from taskq_server.core.sums import Sums
from taskq_server.core.task import Ended, Ending, Enqueued, NewTask, Outcome, Task
from taskq_server.store.memory import Memory
from taskq_server.store.offer import Offer
from taskq_server.store.transaction import THE_ONLY_SERVER, Transaction, Verb, name_of
from taskq_server.store.verbs import (
    audit_log,
    auditing,
    backlog,
    bulk,
    counting,
    describing,
    draining,
    events,
    failures,
    figures,
    firing,
    firing_by_hand,
    inspecting,
    listing,
    living,
    looking,
    pausing,
    pruning,
    reading,
    reclaiming,
    schedules,
    scheduling,
    tokens,
)
from taskq_server.store.verbs.audit_log import Audited, Wanted
from taskq_server.store.verbs.backlog import Backlog
from taskq_server.store.verbs.bulk import Advanced, Step, Trouble, Turn
from taskq_server.store.verbs.describing import Description
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import Cancelled, cancel, end
from taskq_server.store.verbs.firing import Fired, Followed
from taskq_server.store.verbs.firing_by_hand import Backfill, Backfilled, Trigger, Triggered
from taskq_server.store.verbs.leasing import Leased, add_and_lease, lease
from taskq_server.store.verbs.listing import Page, Registered, Supply
from taskq_server.store.verbs.living import Advance, Grace, Held, NewSession, Sign, StoredSession
from taskq_server.store.verbs.looking import Look, Looked
from taskq_server.store.verbs.pausing import NewPause, Pause
from taskq_server.store.verbs.pruning import Pruned
from taskq_server.store.verbs.reading import Fate
from taskq_server.store.verbs.reclaiming import Reclaimed
from taskq_server.store.verbs.schedules import Listed, ToFire
from taskq_server.store.verbs.scheduling import Change, Deletion, NewSchedule, SchedulePause
from taskq_server.store.verbs.tokens import Tokens, Use

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Store(ABC):
    """Tasks and sessions, durable. A method returns once what it did is safe from power loss.

    Every method raises StorageFull when the disk is full and StorageUnavailable when the database does not answer; then
    nothing was stored.
    """

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._clock = clock
        self.on_change: Callable[[list[bytes]], None] = lambda task_ids: None
        """Told, after each commit, which tasks have changed."""
        self.on_scheduled: Callable[[], None] = lambda: None
        """Told, after a commit, that tasks were scheduled, or may be leased again."""
        self.on_commit: Callable[[Transaction], None] = lambda transaction: None
        """Told of each commit of what may have changed something: for whoever counts, like the next."""
        self.on_answer: Callable[[str, float | None], None] = lambda verb, seconds: None
        """Told how long a verb's answer took; None when there was none."""
        self.memory = Memory()
        self.server_seq = THE_ONLY_SERVER
        """Which of the servers on this database this one is."""
        self._add = partial(add_and_lease, self.memory, rules)
        self._lease = partial(lease, self.memory, rules)
        self._end = partial(end, self.memory, rules)
        self._cancel = partial(cancel, self.memory, rules)
        self._unregister = partial(reclaiming.unregister, self.memory, rules)
        self._disconnect = partial(reclaiming.disconnect, self.memory, rules)
        self._reclaim = partial(reclaiming.reclaim, self.memory, rules)
        self._list_sessions = partial(listing.sessions, self.memory)
        self._list_capabilities = partial(listing.capabilities, self.memory)
        self._look_at_tasks = partial(looking.look, self.memory)
        self._histories = partial(inspecting.histories, self.memory)
        self._facts = partial(inspecting.facts, self.memory)
        self._get = partial(reading.get, self.memory)
        self._find = partial(living.find, self.memory)
        self._take_over = partial(living.take_over, self.memory)
        self._held_here = partial(living.held_here, self.memory)
        self._backlog = partial(backlog.backlog, self.memory)
        self._pause = partial(pausing.pause, self.memory)
        self._resume = partial(pausing.resume, self.memory)
        self._next_steps = partial(bulk.next_steps, self.memory)
        self._advance = partial(bulk.advance, self.memory, rules)
        self._fire = partial(firing.fire, self.memory, rules)
        self._trigger = partial(firing_by_hand.trigger, self.memory, rules)
        self._backfill = partial(firing_by_hand.backfill, self.memory, rules)

    def _after_commit(self, transaction: Transaction) -> None:
        self.on_commit(transaction)
        if transaction.changed:
            self.on_change(transaction.changed)
        if transaction.wakes:
            self.on_scheduled()

    async def _timed(self, verb: Verb[Any, Any], answers: Awaitable[list[Answer]]) -> list[Answer]:
        """Says how long it took to be answered, waiting included."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            found = await answers
        except TaskqError:
            self.on_answer(name_of(verb), None)
            raise
        self.on_answer(name_of(verb), loop.time() - began)
        return found

    @abstractmethod
    async def write(self, verb: Verb[Item, Answer], items: list[Item], size_bytes: int = 0) -> list[Answer]:
        """Runs `verb` over `items` in a transaction, perhaps shared, and returns after its commit.

        `size_bytes` is about what they hold, of those that may hold much.
        """

    @abstractmethod
    async def read(self, verb: Verb[Item, Answer], items: list[Item]) -> list[Answer]:
        """Runs `verb`, which changes nothing, over `items` on a connection that sees all that was committed before."""

    @abstractmethod
    async def close(self) -> None:
        """Commits what waits and lets go of the database."""

    async def add(self, tasks: list[NewTask]) -> list[Enqueued]:
        """Stores tasks, one answer each, in order. A known id or a held key makes no second task."""
        return await self.write(self._add, tasks, sum(len(one.payload.data) for one in tasks if one.payload))

    async def lease(self, demand: Demand) -> Leased:
        """Leases due tasks to the sessions that can take them, most urgent first."""
        leased = (await self.write(self._lease, [demand]))[0]
        leased.next_due_us = self.next_due_us(leased.free_routes)
        return leased

    def offer(self, demand: Demand, on_settled: Callable[[Leased | None], None]) -> Offer:
        """Leaves seats for what is due as soon as it is stored. They are given to nobody else before the offer is
        settled or withdrawn."""
        self.memory.offer = Offer(demand, on_settled)
        return self.memory.offer

    async def end(self, endings: list[Ending]) -> list[Ended]:
        """Ends attempts, one answer each, in order; one whose lease has ended changes nothing."""
        return await self.write(self._end, endings, sum(len(one.result.data) for one in endings if one.result))

    async def cancel(self, task_ids: list[bytes]) -> list[Cancelled]:
        """Cancels tasks that wait or run; answers what each was before."""
        return await self.write(self._cancel, task_ids)

    async def register(self, session: NewSession) -> int:
        """Opens a session, to which this server may push; answers its number."""
        return (await self.write(living.register, [session]))[0]

    async def find_session(self, session_id: bytes) -> StoredSession | None:
        """A session that lives, whichever server may push to it, and what it holds."""
        return (await self.read(self._find, [session_id]))[0]

    async def take_over(self, session_id: bytes) -> StoredSession | None:
        """Lets this server push to a session, and no other; answers it and what it holds, None when it has ended."""
        return (await self.write(self._take_over, [session_id]))[0]

    async def held_here(self) -> list[Held]:
        """All that is leased to sessions to which this server pushes; waits for leases whose end is not known yet."""
        return (await self.write(self._held_here, [None]))[0]

    async def keep_alive(self, sign: Sign) -> int | None:
        """Lets a session live on; answers the server that may push to it, None when it has ended."""
        return (await self.keep_all_alive([sign]))[0]

    async def keep_all_alive(self, signs: list[Sign]) -> list[int | None]:
        """The same of several sessions."""
        return await self.write(living.keep_alive, signs)

    async def save_progress(self, advances: list[Advance]) -> None:
        """Keeps progress and checkpoints of attempts that are still held."""
        await self.write(living.save_progress, advances)

    async def drain(self, session_seq: int) -> None:
        """Lets the server that pushes to a session know that it takes nothing more."""
        await self.write(living.drain, [session_seq])

    async def drain_processor(self, new: NewDrain) -> bool:
        """Keeps a session from being leased anything, whichever server pushes to it; False when it has ended."""
        return (await self.write(draining.drain, [new]))[0]

    async def disconnect(self, session_seq: int) -> int:
        """Ends a session and releases what it holds; answers how many tasks that was."""
        return (await self.write(self._disconnect, [session_seq]))[0]

    async def unregister(self, session_seq: int) -> None:
        """Ends a session and releases what it holds."""
        await self.write(self._unregister, [session_seq])

    async def pause(self, new: NewPause) -> Pause:
        """Keeps tasks of a name from being leased, on every server; answers since when that is so."""
        return (await self.write(self._pause, [new]))[0]

    async def resume(self, name: str) -> Pause | None:
        """Lets tasks of a name be leased again; answers the pause that has ended, None when there was none."""
        return (await self.write(self._resume, [name]))[0]

    async def spare(self, grace: Grace) -> None:
        """Lets no session end before this server could have heard it."""
        await self.write(living.spare, [grace])

    async def reclaim(self) -> Reclaimed:
        """Takes back what sessions hold that were not heard by now, and what ran too long."""
        return (await self.write(self._reclaim, [self._clock.now_us()]))[0]

    async def prune(self, keep_sessions_us: int) -> Pruned:
        """Deletes one small batch of what is finished and old; sessions, `keep_sessions_us` after their end."""
        return (await self.write(pruning.prune, [keep_sessions_us]))[0]

    async def create_schedule(self, new: NewSchedule) -> Schedule:
        """Stores a schedule; answers how it stands, also when it is there already with the same content."""
        return _unless_refused((await self.write(scheduling.create, [new]))[0])

    async def change_schedule(self, change: Change) -> Schedule:
        """Replaces what a schedule says, if it still has that etag."""
        return _unless_refused((await self.write(scheduling.change, [change]))[0])

    async def delete_schedule(self, deletion: Deletion) -> int:
        """Deletes a schedule; answers how many of its tasks were taken back."""
        return _unless_refused((await self.write(scheduling.remove, [deletion]))[0])

    async def pause_schedule(self, pause: SchedulePause) -> Schedule:
        """Lets a schedule fire no more, on any server."""
        return _unless_refused((await self.write(scheduling.pause, [pause]))[0])

    async def resume_schedule(self, key: Key) -> Schedule:
        """Lets a schedule fire again."""
        return _unless_refused((await self.write(scheduling.resume, [key]))[0])

    async def trigger_schedule(self, trigger: Trigger) -> Triggered:
        """Fires a schedule now, once for each task id."""
        return _unless_refused((await self.write(self._trigger, [trigger]))[0])

    async def backfill_schedule(self, backfill: Backfill) -> Backfilled:
        """Fires a schedule at those nominal times of a range at which it has not."""
        return _unless_refused((await self.write(self._backfill, [backfill]))[0])

    async def get_schedule(self, key: Key) -> Schedule | None:
        return (await self.read(schedules.get, [key]))[0]

    async def list_schedules(self, listed: Listed) -> list[Schedule]:
        """Schedules in the order of the characters of their names."""
        return (await self.read(schedules.find, [listed]))[0]

    async def to_fire(self) -> ToFire:
        """When there is something to fire, without firing it."""
        return (await self.read(schedules.to_fire, [None]))[0]

    async def fire(self, ahead_us: int) -> Fired:
        """Makes tasks of one batch of what is due, or will be within `ahead_us`."""
        return (await self.write(self._fire, [ahead_us]))[0]

    async def follow_zones(self, after_seq: int = 0) -> Followed:
        """Computes anew when one page of schedules fires that another time zone database has computed."""
        return (await self.write(firing.follow_zones, [after_seq]))[0]

    async def get(self, task_ids: list[bytes]) -> dict[bytes, Task]:
        """The tasks that exist, by id."""
        found = await self.read(self._get, task_ids)
        return {task.task_id: task for task in found if task is not None}

    async def list_sessions(self, page: Page) -> list[Registered]:
        """Living sessions and what they hold, in the order of their numbers."""
        return (await self.read(self._list_sessions, [page]))[0]

    async def list_capabilities(self, page: Page) -> list[Supply]:
        """Names, and what there is of each, in the order of their characters."""
        return (await self.read(self._list_capabilities, [page]))[0]

    async def look_at_tasks(self, look: Look) -> Looked:
        """The tasks that match, of the next ones in the order of enqueueing, the last first."""
        return (await self.read(self._look_at_tasks, [look]))[0]

    async def history(self, task_id: bytes) -> History | None:
        """A task with its past; None for one that does not exist."""
        return (await self.read(self._histories, [task_id]))[0]

    async def facts(self, task_id: bytes) -> Facts | None:
        """What keeps a task from running, as far as the database knows; None for one that does not exist."""
        return (await self.read(self._facts, [task_id]))[0]

    async def describe(self) -> Description:
        """What the database is, and which servers live on it."""
        return (await self.read(describing.describe, [None]))[0]

    async def keep_figures(self, round: figures.Round) -> None:
        """Writes down what this server has done, seen to fail, and changed, since it wrote last."""
        await self.write(figures.keep, [round])

    async def sums(self, asked: figures.Asked) -> list[tuple[figures.Span, Sums]]:
        """What was done, in the order of time and then of names."""
        return (await self.read(figures.history, [asked]))[0]

    async def count(self, kind: counting.Kind) -> int:
        """How many tasks there are of a kind; MOST_COUNTED are as many or more."""
        return (await self.read(counting.tasks, [kind]))[0]

    async def fleet(self) -> counting.Fleet:
        """The processors of all servers."""
        return (await self.read(counting.fleet, [None]))[0]

    async def failure_groups(self, page: failures.GroupPage) -> list[failures.FailureGroup]:
        """Failures that are alike, the ones seen last first."""
        return (await self.read(failures.find, [page]))[0]

    async def resolve_failures(self, resolution: failures.Resolution) -> failures.FailureGroup | None:
        """Notes a group as resolved, until it is seen again; None when it is not kept."""
        return (await self.write(failures.resolve, [resolution]))[0]

    async def last_event(self) -> Event | None:
        """The last hint of a change that is kept."""
        return (await self.read(events.last, [None]))[0]

    async def events_after(self, since: events.Since) -> events.Found:
        """The hints of changes that came after one, as many as are read at once."""
        return (await self.read(events.after, [since]))[0]

    async def watch_until(self, until_us: int) -> None:
        """Lets every server keep hints of what it changes until then."""
        await self.write(events.watch, [until_us])

    async def ping(self) -> None:
        """Returns when the database has answered."""
        await self.read(reading.ping, [None])

    async def backlog(self) -> list[Backlog]:
        """The names of which tasks are due and wait, and how many, up to a limit."""
        return (await self.read(self._backlog, [None]))[0]

    async def session_seq(self, session_id: bytes) -> int | None:
        """The number of a session, also of one that has ended; None for one that never was, or is long gone."""
        return (await self.read(reading.session_seqs, [session_id]))[0]

    async def list_audit(self, wanted: Wanted) -> list[Audited]:
        """What was changed by whom, the last first."""
        return (await self.read(audit_log.find, [wanted]))[0]

    async def forget_history(self, keep_us: int) -> int:
        """Deletes some of what administrators did longer ago than that; answers how much."""
        entries = (await self.write(auditing.forget, [keep_us]))[0]
        return entries + (await self.write(bulk.forget, [keep_us]))[0]

    async def prune_asked(self, at_most: int) -> Pruned:
        """Deletes finished tasks past their retention, no more than a small batch, since somebody asks for it."""
        return (await self.write(pruning.prune_asked, [pruning.Asked(at_most)]))[0]

    async def start_operation(self, new: NewOperation) -> Operation:
        """Stores a bulk operation; answers how it stands, also when it is there already with the same content."""
        return _unless_refused((await self.write(bulk.start, [new]))[0])

    async def last_number(self) -> int:
        """The number of the task that was enqueued last; 0 when there is none."""
        return (await self.read(bulk.last_number, [None]))[0]

    async def count_tasks(self, task_ids: tuple[bytes, ...]) -> int:
        """How many of these there are."""
        return (await self.read(bulk.count_ids, [task_ids]))[0]

    async def get_operation(self, operation_id: bytes) -> Operation | None:
        return (await self.read(bulk.get, [operation_id]))[0]

    async def list_operations(self, page: Page) -> list[Operation]:
        """Bulk operations, those started last first."""
        return (await self.read(bulk.find, [page]))[0]

    async def cancel_operation(self, operation_id: bytes) -> Operation:
        """Ends a bulk operation after the batch at which it is."""
        return _unless_refused((await self.write(bulk.cancel, [operation_id]))[0])

    async def turns(self, spared: frozenset[int] = frozenset()) -> list[Turn]:
        """Some of the bulk operations at which this server is to work, but for the `spared`; the one that has waited
        longest first."""
        return (await self.read(bulk.turns, [spared]))[0]

    async def next_steps(self, operation_seq: int) -> list[Step]:
        """What comes next in a bulk operation, in its order; nothing when it has ended."""
        return (await self.read(self._next_steps, [operation_seq]))[0]

    async def note_trouble(self, operation_seq: int, why: str) -> None:
        """Shows those who look at a bulk operation what keeps it from going on."""
        await self.write(bulk.note_troubles, [Trouble(operation_seq, why)])

    async def advance(self, step: Step) -> Advanced:
        """Does one batch of a bulk operation."""
        return (await self.write(self._advance, [step]))[0]

    async def owner(self, session_id: bytes) -> reading.Owned | None:
        """Whose a session is, also one that has ended; None for one that never was, or is long gone."""
        return (await self.read(reading.owners, [session_id]))[0]

    async def take_requests(self) -> Callable[[], None]:
        """Does what operators ask, where the server alone may write; answers what tells them that it is done."""
        return lambda: None

    async def tokens(self, known: str | None) -> Tokens | None:
        """The API tokens that may be used; None when nothing has changed since those with the mark `known`."""
        return (await self.read(tokens.current, [known]))[0]

    async def use_tokens(self, uses: list[Use]) -> None:
        """Writes down that tokens were used."""
        await self.write(tokens.use, uses)

    async def fates(self, asked: list[Fate]) -> list[Outcome | None]:
        """How attempts of sessions have ended; None for one that is still held, or never was that session's."""
        return await self.read(reading.fates, asked)

    @property
    def routes(self) -> dict[int, Route]:
        """Every route by its number. A snapshot: a new route makes a new one."""
        return self.memory.routes

    def next_due_us(self, route_ids: Iterable[int]) -> int | None:
        """When the first task of any of these routes falls due that is not paused, as far as is known without asking
        the database."""
        return self.memory.next_due_us(route_ids)


def _unless_refused(answer: Answer | TaskqError) -> Answer:
    if isinstance(answer, TaskqError):
        raise answer
    return answer
