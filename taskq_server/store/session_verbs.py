"""What storage can do with sessions, and with what they can run."""

from __future__ import annotations

from functools import partial

from taskq_server.clock import Clock
from taskq_server.store.running import Running
from taskq_server.store.verbs import draining, listing, living, pausing, reading, reclaiming
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.listing import Page, Registered, Supply
from taskq_server.store.verbs.living import Advance, Grace, Held, NewSession, Sign, StoredSession
from taskq_server.store.verbs.pausing import NewPause, Pause
from taskq_server.store.verbs.reading import Owned
from taskq_server.store.verbs.reclaiming import Reclaimed


class SessionVerbs(Running):
    """Sessions begin, live and end; names are paused."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        super().__init__(rules, clock)
        self._find = partial(living.find, self.memory)
        self._take_over = partial(living.take_over, self.memory)
        self._held_here = partial(living.held_here, self.memory)
        self._disconnect = partial(reclaiming.disconnect, self.memory, rules)
        self._unregister = partial(reclaiming.unregister, self.memory, rules)
        self._reclaim = partial(reclaiming.reclaim, self.memory, rules)
        self._list_sessions = partial(listing.sessions, self.memory)
        self._list_capabilities = partial(listing.capabilities, self.memory)
        self._pause = partial(pausing.pause, self.memory)
        self._resume = partial(pausing.resume, self.memory)

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

    async def spare(self, grace: Grace) -> None:
        """Lets no session end before this server could have heard it."""
        await self.write(living.spare, [grace])

    async def reclaim(self) -> Reclaimed:
        """Takes back what sessions hold that were not heard by now, and what ran too long."""
        return (await self.write(self._reclaim, [self._clock.now_us()]))[0]

    async def session_seq(self, session_id: bytes) -> int | None:
        """The number of a session, also of one that has ended; None for one that never was, or is long gone."""
        return (await self.read(reading.session_seqs, [session_id]))[0]

    async def owner(self, session_id: bytes) -> Owned | None:
        """Whose a session is, also one that has ended; None for one that never was, or is long gone."""
        return (await self.read(reading.owners, [session_id]))[0]

    async def list_sessions(self, page: Page) -> list[Registered]:
        """Living sessions and what they hold, in the order of their numbers."""
        return (await self.read(self._list_sessions, [page]))[0]

    async def list_capabilities(self, page: Page) -> list[Supply]:
        """Names, and what there is of each, in the order of their characters."""
        return (await self.read(self._list_capabilities, [page]))[0]

    async def pause(self, new: NewPause) -> Pause:
        """Keeps tasks of a name from being leased, on every server; answers since when that is so."""
        return (await self.write(self._pause, [new]))[0]

    async def resume(self, name: str) -> Pause | None:
        """Lets tasks of a name be leased again; answers the pause that has ended, None when there was none."""
        return (await self.write(self._resume, [name]))[0]
