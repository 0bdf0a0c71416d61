"""What storage can do with what is counted, and with hints of what has changed."""

from __future__ import annotations

from taskq_server.core.event import Event
from taskq_server.core.sums import Sums
from taskq_server.store.running import Running
from taskq_server.store.verbs import counting, events, failures, figures


class FigureVerbs(Running):
    """What was done is counted; who watches is told of what changes."""

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
