"""What storage can do with tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from taskq_server.clock import Clock
from taskq_server.core.explaining import Facts
from taskq_server.core.history import History
from taskq_server.core.matching import Demand
from taskq_server.core.task import Ended, Ending, Enqueued, NewTask, Outcome, Task
from taskq_server.store.offer import Offer
from taskq_server.store.running import Running
from taskq_server.store.verbs import backlog, inspecting, looking, pruning, reading
from taskq_server.store.verbs.backlog import Backlog
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.ending import Cancelled, cancel, end
from taskq_server.store.verbs.leasing import Leased, add_and_lease, lease
from taskq_server.store.verbs.looking import Look, Looked
from taskq_server.store.verbs.pruning import Pruned
from taskq_server.store.verbs.reading import Fate


class TaskVerbs(Running):
    """Tasks are added, leased, ended and looked at."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        super().__init__(rules, clock)
        self._add = partial(add_and_lease, self.memory, rules)
        self._lease = partial(lease, self.memory, rules)
        self._end = partial(end, self.memory, rules)
        self._cancel = partial(cancel, self.memory, rules)
        self._get = partial(reading.get, self.memory)
        self._look_at_tasks = partial(looking.look, self.memory)
        self._histories = partial(inspecting.histories, self.memory)
        self._facts = partial(inspecting.facts, self.memory)
        self._backlog = partial(backlog.backlog, self.memory)

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

    async def get(self, task_ids: list[bytes]) -> dict[bytes, Task]:
        """The tasks that exist, by id."""
        found = await self.read(self._get, task_ids)
        return {task.task_id: task for task in found if task is not None}

    async def look_at_tasks(self, look: Look) -> Looked:
        """The tasks that match, of the next ones in the order of enqueueing, the last first."""
        return (await self.read(self._look_at_tasks, [look]))[0]

    async def history(self, task_id: bytes) -> History | None:
        """A task with its past; None for one that does not exist."""
        return (await self.read(self._histories, [task_id]))[0]

    async def facts(self, task_id: bytes) -> Facts | None:
        """What keeps a task from running, as far as the database knows; None for one that does not exist."""
        return (await self.read(self._facts, [task_id]))[0]

    async def fates(self, asked: list[Fate]) -> list[Outcome | None]:
        """How attempts of sessions have ended; None for one that is still held, or never was that session's."""
        return await self.read(reading.fates, asked)

    async def backlog(self) -> list[Backlog]:
        """The names of which tasks are due and wait, and how many, up to a limit."""
        return (await self.read(self._backlog, [None]))[0]

    async def prune(self, keep_sessions_us: int) -> Pruned:
        """Deletes one small batch of what is finished and old; sessions, `keep_sessions_us` after their end."""
        return (await self.write(pruning.prune, [keep_sessions_us]))[0]

    async def prune_asked(self, at_most: int) -> Pruned:
        """Deletes finished tasks past their retention, no more than a small batch, since somebody asks for it."""
        return (await self.write(pruning.prune_asked, [pruning.Asked(at_most)]))[0]
