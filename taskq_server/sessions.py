"""Who is connected: the sessions to which this server pushes.

A session belongs to the server at which its stream is opened. Its heartbeats and reports may come to any server: those
to which another server pushes are answered from the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from taskq_server.clock import SECOND_US, Clock
from taskq_server.core.errors import SessionDisconnected, SessionNotFound
from taskq_server.core.matching import Demand
from taskq_server.core.task import Ending, Outcome
from taskq_server.elsewhere import Elsewhere
from taskq_server.rounds import Rounds
from taskq_server.session import AttemptKey, Pulse, Session, Sighting
from taskq_server.store.sql import SignalKind
from taskq_server.store.store import Store
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.firing_round import Stopped
from taskq_server.store.verbs.listing import Registered
from taskq_server.store.verbs.living import Advance, Held, NewSession, Sign
from taskq_server.store.verbs.reading import Fate, Owned
from taskq_server.store.verbs.servers import Signal
from taskq_server.task_id import to_text

log = structlog.get_logger("taskq.sessions")

_KNOWN_TO_THE_PROCESSOR = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.RELEASED, Outcome.CANCELLED)
"""It has said so itself, though its heartbeat may be older than that; or is told otherwise."""


class Sessions:
    """All registered processors of this server."""

    def __init__(
        self, store: Store, clock: Clock, lease_duration_us: int, round_seconds: float = 0, *, alone: bool = False
    ) -> None:
        """Heartbeats are written in rounds of `round_seconds`. `alone`: no other server knows better, so those of
        processors that hold nothing are answered at once, and written before somebody is taken for dead."""
        self._store = store
        self._signs = Rounds(self._keep_alive, round_seconds)
        self._is_alone = alone
        self._clock = clock
        self._lease_duration_us = lease_duration_us
        self._by_id: dict[bytes, Session] = {}
        self._by_seq: dict[int, Session] = {}
        self._elsewhere: dict[bytes, Elsewhere] = {}
        self.on_keep: Callable[[Session], None] = lambda session: None
        """Told of each session to which this server begins to push."""

    async def register(self, new: NewSession) -> Session:
        """Opens a session; under the same name too, it is another."""
        new.lease_duration_us = self._lease_duration_us
        session = self._keep(await self._store.register(new), new)
        whose = {"principal": new.principal} if new.principal else {}
        log.info("processor registered", processor=new.processor_name, session=new.session_id.hex(), **whose)
        return session

    def _keep(
        self, session_seq: int, new: NewSession, held: Iterable[Held] = (), drain_reason: str | None = None
    ) -> Session:
        session = Session(session_seq, new)
        session.drain_reason = drain_reason
        session.heard_us = session.kept_us = self._clock.now_us()
        for one in held:
            session.hold(one)
        self._by_id[session.session_id] = self._by_seq[session_seq] = session
        self.on_keep(session)
        return session

    async def take(self, session_id: bytes) -> Session:
        """The session, to which this server pushes from now on; SessionNotFound when it has ended."""
        if (session := self._by_id.get(session_id)) is not None and await self._is_still_here(session):
            return session
        if (stored := await self._store.take_over(session_id)) is None:
            raise SessionNotFound(to_text(session_id))
        if (session := self._by_id.get(session_id)) is not None:
            return session  # another call was there first
        self._elsewhere.pop(session_id, None)
        log.info("session taken over", processor=stored.session.processor_name, session=session_id.hex())
        return self._keep(stored.session_seq, stored.session, stored.held, stored.drain_reason)

    async def _is_still_here(self, session: Session) -> bool:
        """Asks the database, and lets go of a session that has ended or moved. What other servers say of that may not
        have been heard yet; or it was overtaken, and the session has come back meanwhile."""
        stored = await self._store.find_session(session.session_id)
        if stored is not None and stored.server_seq == self._store.server_seq:
            return True
        if self._by_seq.get(session.seq) is session:  # nobody else was faster
            if stored is None:
                self.drop(session.seq, "it had ended in the database")
            else:
                self._move(session)
        return False

    async def owner(self, session_id: bytes) -> Session | Owned | None:
        """Whose a session is, and what it runs, also one that has ended; None for one that never was."""
        return self._by_id.get(session_id) or await self._store.owner(session_id)

    def find(self, session_id: bytes) -> Session | None:
        return self._by_id.get(session_id)

    def by_seq(self, session_seq: int) -> Session | None:
        return self._by_seq.get(session_seq)

    def all(self) -> list[Session]:
        return list(self._by_seq.values())

    def demand(self) -> Demand:
        """What all of them can take now."""
        routes = self._store.routes
        return Demand([seats for session in self._by_seq.values() if (seats := session.seats(routes)) is not None])

    async def heartbeat(self, session_id: bytes, sightings: list[Sighting], *, draining: bool) -> Pulse:
        """Keeps a session and its leases alive and compares what each side thinks it holds."""
        if (session_seq := await self._seq_of(session_id)) is None:
            return _ended(sightings)
        heard_us = self._clock.now_us()
        if (session := self._by_seq.get(session_seq)) is not None and self._may_lie(session, sightings, draining):
            self._leave_sign(session, heard_us)
            return await self._compare(session, sightings, draining, heard_us)
        server_seq = await self._write_sign(session_seq, sightings, draining, heard_us)
        if server_seq is None:
            self.drop(session_seq, "it had ended in the database")
            return _ended(sightings)
        await self._save_progress(session_seq, sightings)
        if server_seq != self._store.server_seq:
            if (session := self._by_seq.get(session_seq)) is not None:
                await self._is_still_here(session)
            if draining:
                await self._store.drain(session_seq)
            return await self._heartbeat_elsewhere(session_id, sightings)
        if (session := self._by_id.get(session_id)) is None:
            session = await self.take(session_id)
        return await self._compare(session, sightings, draining, heard_us)

    def _may_lie(self, session: Session, sightings: list[Sighting], draining: bool) -> bool:
        """Whether what is known here is all that its heartbeat asks for."""
        return self._is_alone and not (sightings or session.in_flight or draining or session.draining)

    def _is_late(self, session: Session) -> bool:
        """Whether its lease cannot wait for a round."""
        return self._clock.now_us() - session.kept_us > self._lease_duration_us * 2 // 3

    def _leave_sign(self, session: Session, heard_us: int) -> None:
        def written(server_seq: int | None) -> None:
            if server_seq is None:
                self.drop(session.seq, "it had ended in the database")
            else:
                session.kept_us = max(session.kept_us, heard_us)

        self._signs.leave(session.seq, (session.seq, asyncio.get_running_loop().time()), written)

    async def _write_sign(
        self, session_seq: int, sightings: list[Sighting], draining: bool, heard_us: int
    ) -> int | None:
        """In the next round, unless somebody waits for what it says, or its lease may not wait."""
        heard = session_seq, asyncio.get_running_loop().time()
        session = self._by_seq.get(session_seq)
        if session is not None and draining:
            session.draining = True  # from when it says so
        is_late = session is not None and self._is_late(session)
        if draining or is_late or any(one.checkpoint is not None for one in sightings):
            server_seq = (await self._keep_alive([heard]))[0]
        else:
            server_seq = await self._signs.join(heard)
        if session is not None:
            session.kept_us = max(session.kept_us, heard_us)
        return server_seq

    async def _keep_alive(self, heard: list[tuple[int, float]]) -> list[int | None]:
        """Sessions, and when each was heard, to a hundredth of a second: their leases run from then."""
        now, lease_us = asyncio.get_running_loop().time(), self._lease_duration_us
        return await self._store.keep_all_alive(
            [Sign(session_seq, lease_us - int((now - at) * 100) * 10_000) for session_seq, at in heard]
        )

    async def keep_all_heard(self) -> None:
        """Writes the heartbeats that were answered and lie here still: call it before those are looked for who were
        not heard. They need not be written for who opens the database next, who spares all."""
        await self._signs.flush()

    def as_heard(self, stored: Registered) -> Registered:
        """What the database says of a session, with the heartbeat that is not there yet."""
        if self._is_alone and (session := self._by_seq.get(stored.session_seq)) is not None:
            until_us = session.heard_us + self._lease_duration_us
            return replace(stored, alive_until_us=max(stored.alive_until_us, until_us))
        return stored

    async def _seq_of(self, session_id: bytes) -> int | None:
        if (session := self._by_id.get(session_id)) is not None:
            return session.seq
        return await self._store.session_seq(session_id)

    async def _save_progress(self, session_seq: int, sightings: list[Sighting]) -> None:
        advances = [
            Advance(session_seq, one.task_id, one.attempt, one.progress, one.checkpoint)
            for one in sightings
            if one.progress is not None or one.checkpoint is not None
        ]
        await self._store.save_progress(advances)

    async def _compare(self, session: Session, sightings: list[Sighting], draining: bool, heard_us: int) -> Pulse:
        session.heard_us = heard_us
        was_draining, session.draining = session.draining, draining
        held = len(session.in_flight)
        lost, cancelled, never_received = session.compare(sightings, heard_us, self._sent_before_us())
        roomier = len(session.in_flight) < held or (was_draining and not session.draining) or bool(never_received)
        if never_received:
            session.distrust_stream(never_received)
            log.warning("pushed tasks were never received", processor=session.processor_name, tasks=len(never_received))
            await self.give_back(session.seq, never_received)
        resting = not session.in_flight and not sightings
        return Pulse(True, session.streaming, lost, cancelled, roomier, session.drain_reason is not None, resting)

    async def _heartbeat_elsewhere(self, session_id: bytes, sightings: list[Sighting]) -> Pulse:
        """Another server pushes to it: what it should hold, the database knows."""
        if (stored := await self._store.find_session(session_id)) is None:
            return _ended(sightings)
        elsewhere = self._elsewhere.setdefault(session_id, Elsewhere())
        elsewhere.heard_us = self._clock.now_us()
        seen = {(one.task_id, one.attempt) for one in sightings}
        never_received = elsewhere.never_received(stored.held, seen, self._sent_before_us())
        await self.give_back(stored.session_seq, never_received)
        not_held = sorted(seen - {(one.task_id, one.attempt) for one in stored.held})
        fates = await self._store.fates([Fate(stored.session_seq, *key) for key in not_held])
        by_fate = list(zip(not_held, fates, strict=True))
        cancelled = [key for key, fate in by_fate if fate is Outcome.CANCELLED]
        lost = [key for key, fate in by_fate if fate not in _KNOWN_TO_THE_PROCESSOR]
        return Pulse(True, stored.server_lives, lost, cancelled, drained=stored.drain_reason is not None)

    def _sent_before_us(self) -> int:
        """What was sent since then may still be on its way: the ack_timeout."""
        return self._clock.now_us() - self._lease_duration_us // 2

    async def give_back(self, session_seq: int, keys: list[AttemptKey]) -> None:
        """Releases what was leased to a session, perhaps another server's by now, and did not reach it, at no cost in
        attempts."""
        await self._store.end([Ending(*key, session_seq, Outcome.NOT_RECEIVED) for key in keys])
        if (session := self._by_seq.get(session_seq)) is not None:
            for key in keys:
                session.let_go(key)

    async def take_stock(self) -> None:
        """Gives back what is leased to sessions here without this server having heard that it is. Nothing may be on
        its way to them from a lease meanwhile."""
        unheard: dict[int, list[AttemptKey]] = {}
        for one in await self._store.held_here():
            session, key = self._by_seq.get(one.session_seq), (one.task_id, one.attempt)
            if session is not None and key not in session.in_flight:
                unheard.setdefault(one.session_seq, []).append(key)
        for session_seq, keys in unheard.items():
            log.warning("tasks were leased, and nobody heard of it", session=session_seq, tasks=len(keys))
            await self.give_back(session_seq, keys)

    async def unregister(self, session_id: bytes) -> None:
        """Ends a session; one that has ended already is fine. Call it shielded: half done, it would stay in memory."""
        if (session_seq := await self._seq_of(session_id)) is not None:
            await self._store.unregister(session_seq)
            self.drop(session_seq, "unregistered")

    async def drain(self, session_id: bytes, reason: str) -> None:
        """Gives a session nothing more, whichever server pushes to it; SessionNotFound when it has ended."""
        if not await self._store.drain_processor(NewDrain(session_id, reason)):
            raise SessionNotFound(to_text(session_id))
        log.info("processor drained", session=session_id.hex(), reason=reason)
        if (session := self._by_id.get(session_id)) is not None:
            await self._drain(session, reason)

    async def _drain(self, session: Session, reason: str) -> None:
        if unsent := session.drain(reason):
            await self.give_back(session.seq, [(one.task_id, one.attempt) for one in unsent])

    async def disconnect(self, session_id: bytes) -> int:
        """Ends a session by the will of an administrator; answers how many tasks go to others. One that has ended
        already is fine; SessionNotFound for one that never was, or is long gone. Call it shielded."""
        if (session_seq := await self._seq_of(session_id)) is None:
            raise SessionNotFound(to_text(session_id))
        released = await self._store.disconnect(session_seq)
        self._disconnect(session_seq)
        return released

    def _disconnect(self, session_seq: int) -> None:
        if (session := self._by_seq.get(session_seq)) is not None:
            if session.stream is not None:
                session.stream.error = SessionDisconnected(to_text(session.session_id))
            self.drop(session_seq, "disconnected by an administrator")

    def stop(self, stopped: Iterable[Stopped]) -> None:
        """Tells processors that are connected here of attempts that were cancelled; others hear it from the store."""
        for one in stopped:
            if (session := self._by_seq.get(one.session_seq)) is not None:
                session.revoke((one.task_id, one.attempt), cancelled=True)

    def drop(self, session_seq: int, why: str) -> None:
        """The session has ended, or another server pushes to it."""
        if (session := self._by_seq.pop(session_seq, None)) is not None:
            del self._by_id[session.session_id]
            log.info("session ended", processor=session.processor_name, session=session.session_id.hex(), why=why)
            if session.stream is not None:
                session.stream.drain = why
                session.stream.wake.set()

    async def hear(self, signal: Signal) -> None:
        """Another server has changed something about a session."""
        session = self._by_seq.get(signal.session_seq)
        if session is None:
            return
        if signal.kind is SignalKind.ENDED:
            self.drop(session.seq, "another server has ended it")
        elif signal.kind is SignalKind.DISCONNECTED:
            self._disconnect(session.seq)
        elif signal.kind is SignalKind.DRAINED:
            await self._hear_of_drain(session)
        elif signal.kind is SignalKind.MOVED:
            await self._is_still_here(session)
        elif signal.kind is SignalKind.DRAINING:
            session.draining = True
        elif signal.task_id is not None and signal.attempt is not None:
            key = signal.task_id, signal.attempt
            if signal.kind is SignalKind.SETTLED:
                session.settle(key)
            else:
                session.revoke(key, cancelled=signal.kind is SignalKind.CANCELLED)

    async def _hear_of_drain(self, session: Session) -> None:
        """Its processor is told even if the session has ended meanwhile, before it registers again."""
        stored = await self._store.find_session(session.session_id)
        await self._drain(session, "" if stored is None else stored.drain_reason or "")

    def _move(self, session: Session) -> None:
        """Another server pushes to it now: its stream here is superseded."""
        stream = session.stream
        self.drop(session.seq, "another server pushes to it")
        if stream is not None:
            stream.superseded = True

    async def review(self) -> None:
        """Compares all sessions with the database, after signals or the answer to a lease may have been lost."""
        for session in list(self._by_seq.values()):
            pushed = set(session.in_flight)  # what comes meanwhile is none of this
            stored = await self._store.find_session(session.session_id)
            if stored is None:
                self.drop(session.seq, "it had ended in the database")
            elif stored.server_seq != self._store.server_seq:
                self._move(session)
            else:
                if stored.drain_reason is not None:
                    await self._drain(session, stored.drain_reason)
                held = {(one.task_id, one.attempt) for one in stored.held}
                for key in pushed - held:
                    session.revoke(key, cancelled=False)
                for one in stored.held:  # heartbeats find that it never arrived
                    if not session.knows((one.task_id, one.attempt)):
                        session.hold(one)

    def forget_elsewhere(self) -> bool:
        """Those that were not heard here for a lease are heard elsewhere, or not at all: when such a processor has
        stopped what it was told to stop, nobody says so here. Answers whether that brought credits back."""
        since_us = self._clock.now_us() - self._lease_duration_us
        self._elsewhere = {key: one for key, one in self._elsewhere.items() if one.heard_us >= since_us}
        forgiven = [session.forgive() for session in self._by_seq.values() if session.heard_us < since_us]
        return any(forgiven)

    def drain_streams(self, why: str) -> None:
        """No stream brings anything more."""
        for session in self._by_seq.values():
            session.draining = True
            if session.stream is not None:
                session.stream.drain = why
                session.stream.wake.set()


def _ended(sightings: list[Sighting]) -> Pulse:
    return Pulse(False, False, [(one.task_id, one.attempt) for one in sightings], [])


def microseconds(seconds: float) -> int:
    return round(seconds * SECOND_US)
