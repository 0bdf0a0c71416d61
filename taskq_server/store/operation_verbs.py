"""What storage can do with bulk operations."""

from __future__ import annotations

from functools import partial

from taskq_server.clock import Clock
from taskq_server.core.bulk_operation import NewOperation, Operation
from taskq_server.store.running import Running, unless_refused
from taskq_server.store.verbs import bulk
from taskq_server.store.verbs.bulk import Advanced, Step, Trouble, Turn
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.listing import Page


class OperationVerbs(Running):
    """Bulk operations begin, go on batch by batch, and end."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        super().__init__(rules, clock)
        self._next_steps = partial(bulk.next_steps, self.memory)
        self._advance = partial(bulk.advance, self.memory, rules)

    async def start_operation(self, new: NewOperation) -> Operation:
        """Stores a bulk operation; answers how it stands, also when it is there already with the same content."""
        return unless_refused((await self.write(bulk.start, [new]))[0])

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
        return unless_refused((await self.write(bulk.cancel, [operation_id]))[0])

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
