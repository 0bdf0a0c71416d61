"""What storage can do, in batches: what its bases say, one a subject, and what is said here of the whole database.

A verb is a plain function over an open transaction: it takes items and gives one answer an item, in order. The methods
here hand items to `write`, which runs them together with everybody else's and answers after the commit.
"""

from __future__ import annotations

from collections.abc import Callable

from taskq_server.store.figure_verbs import FigureVerbs
from taskq_server.store.operation_verbs import OperationVerbs
from taskq_server.store.schedule_verbs import ScheduleVerbs
from taskq_server.store.session_verbs import SessionVerbs
from taskq_server.store.task_verbs import TaskVerbs
from taskq_server.store.verbs import audit_log, auditing, bulk, describing, reading, tokens
from taskq_server.store.verbs.audit_log import Audited, Wanted
from taskq_server.store.verbs.describing import Description
from taskq_server.store.verbs.tokens import Tokens, Use


class Store(TaskVerbs, SessionVerbs, ScheduleVerbs, OperationVerbs, FigureVerbs):
    """Tasks and sessions, durable. A method returns once what it did is safe from power loss.

    Every method raises StorageFull when the disk is full and StorageUnavailable when the database does not answer; then
    nothing was stored.
    """

    async def describe(self) -> Description:
        """What the database is, and which servers live on it."""
        return (await self.read(describing.describe, [None]))[0]

    async def ping(self) -> None:
        """Returns when the database has answered."""
        await self.read(reading.ping, [None])

    async def list_audit(self, wanted: Wanted) -> list[Audited]:
        """What was changed by whom, the last first."""
        return (await self.read(audit_log.find, [wanted]))[0]

    async def forget_history(self, keep_us: int) -> int:
        """Deletes some of what administrators did longer ago than that; answers how much."""
        entries = (await self.write(auditing.forget, [keep_us]))[0]
        return entries + (await self.write(bulk.forget, [keep_us]))[0]

    async def take_requests(self) -> Callable[[], None]:
        """Does what operators ask, where the server alone may write; answers what tells them that it is done."""
        return lambda: None

    async def tokens(self, known: str | None) -> Tokens | None:
        """The API tokens that may be used; None when nothing has changed since those with the mark `known`."""
        return (await self.read(tokens.current, [known]))[0]

    async def use_tokens(self, uses: list[Use]) -> None:
        """Writes down that tokens were used."""
        await self.write(tokens.use, uses)
