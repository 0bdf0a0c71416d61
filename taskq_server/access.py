"""Who calls, and what they may do.

A caller shows an API token, or a certificate. The tokens that may be used are all in memory, read again within a second
after one of them has changed: so one that is not known needs no look at the database, however many come.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import structlog

from taskq_server.clock import SECOND_US, Clock, pause
from taskq_server.core import token as api_token
from taskq_server.core.errors import (
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    TaskNotFound,
    TooManyDenials,
    TooManyFailures,
    TooManyStreams,
    Unauthenticated,
)
from taskq_server.core.recurring import Schedule
from taskq_server.core.rights import EVERY_RIGHT, MET_BY, Need, Rights
from taskq_server.core.task import NewTask, Task
from taskq_server.store.store import Store
from taskq_server.store.verbs.tokens import USE_US, Token, Use
from taskq_server.task_id import to_text

log = structlog.get_logger("taskq.access")

LOOK_SECONDS = 1.0
MOST_FAILURES = 60
"""That many a minute from one address are told why; further ones only that they are too many."""
MOST_DENIALS = 600
"""That many a minute of one principal are told what they lack; further ones only that they may not."""
MOST_LOGGED = 100
"""A minute, from all addresses together, and of all principals."""
MOST_PEERS = 10_000
NOBODYS_SESSION = bytes(16)
"""No session has this id: what is another's is as if it did not exist."""

Peer = Callable[[], str]
"""Answers the address of whoever calls, without a port. Only failures ask."""


@dataclass(eq=False, slots=True)
class Caller:
    """Somebody whose credential holds, or held when they called."""

    principal: str
    rights: Rights
    token: Token | None = None
    denials: Failures | None = None
    used_us: int = 0
    """When the token was used last, and `written_us` of that what the database knows."""
    written_us: int = 0

    def is_in_time(self, now_us: int) -> bool:
        """Whether its credential has not expired by then."""
        return self.token is None or self.token.expire_time_us is None or now_us < self.token.expire_time_us

    def must_meet(self, need: Need) -> None:
        """Raises what `denied` says unless a right meets the need."""
        if need not in self.rights.meets:
            raise self.denied((MET_BY[need],))

    def denied(self, needs: tuple[str, ...], fields: tuple[str, ...] = ()) -> PermissionDenied | TooManyDenials:
        """The error of a call that lacks these rights, for these fields of its request."""
        error = PermissionDenied(self.principal, needs, fields)
        if self.denials is None:
            return error
        many = self.denials.add(self.principal)
        if self.denials.is_logged(many):
            log.warning("a caller was denied", principal=self.principal, why=str(error))
        return error if many <= MOST_DENIALS else TooManyDenials(self.principal, MOST_DENIALS)

    def must_enqueue(self, tasks: Collection[NewTask]) -> None:
        """Whoever names another scope for a key may change the task that holds it: that is enqueueing, too."""
        may = self.rights.enqueue
        names = {task.route.name for task in tasks}
        names.update(task.dedup.scope for task in tasks if task.dedup is not None)
        if denied := {name for name in names if name not in may}:
            fields: list[str] = []
            for i, task in enumerate(tasks):
                if task.route.name in denied:
                    fields.append(f"tasks[{i}].name")
                elif task.dedup is not None and task.dedup.scope in denied:
                    fields.append(f"tasks[{i}].dedup.scope")
            raise self._denied("enqueue", denied, fields)

    def may_process(self, names: Iterable[str]) -> bool:
        return all(name in self.rights.process for name in names)

    def must_process(self, names: Iterable[str], fields: bool = True) -> None:
        """Raises what `denied` says unless all of these may be run; they are in the order of the request."""
        denied = {name: i for i, name in enumerate(names) if name not in self.rights.process}
        if denied:
            raise self._denied(
                "process", denied, [f"capabilities[{i}].name" for i in denied.values()] if fields else []
            )

    def _denied(self, right: str, names: Iterable[str], fields: Iterable[str]) -> PermissionDenied | TooManyDenials:
        return self.denied(tuple(f"{right}:{name}" for name in sorted(names)), tuple(fields))

    def must_see(self, task: Task) -> None:
        """What may not be seen is as if it did not exist."""
        if not self.rights.see(task.route.name):
            raise TaskNotFound(to_text(task.task_id))

    def sees_payloads(self, task: Task) -> bool:
        return self.rights.see_payloads(task.route.name)

    @property
    def cancels_all(self) -> bool:
        """Whether no task needs to be looked at before it is cancelled."""
        return "" in self.rights.enqueue

    def must_cancel(self, task: Task) -> None:
        """Whoever may see a task but not enqueue it is told so; to others it does not exist."""
        self.must_see(task)
        if task.route.name not in self.rights.enqueue:
            raise self._denied("enqueue", [task.route.name], ["task_id"])

    def sees_schedule(self, schedule: Schedule) -> bool:
        """As a task of the name that it enqueues."""
        return self.rights.see(schedule.definition.task.route.name)

    def sees_payload_of(self, schedule: Schedule) -> bool:
        return self.rights.see_payloads(schedule.definition.task.route.name)

    def must_keep(self, name: str, field: str) -> None:
        """Who keeps a schedule enqueues its tasks, at every firing."""
        if name not in self.rights.enqueue:
            raise self._denied("enqueue", [name], [field])


ANYBODY = Caller("", EVERY_RIGHT)
"""Who calls where nobody is asked who they are."""
_caller: ContextVar[Caller] = ContextVar("taskq_caller")


class Failures:
    """How often somebody was refused within a minute, by address or by principal; bounded, whoever calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_us = 0
        self._counts: Counter[str] = Counter()

    def add(self, whose: str) -> int:
        """One more; answers how many it has been."""
        now_us = self._clock.now_us()
        if not 0 <= now_us - self._since_us < 60 * SECOND_US or len(self._counts) > MOST_PEERS:
            self._since_us = now_us
            self._counts.clear()
        self._counts[whose] += 1
        return self._counts[whose]

    def is_logged(self, many: int) -> bool:
        """Whether one is logged that is the so-manieth of an address or a principal. One that fails again and again
        takes no more than its part of what is logged of all."""
        return many <= MOST_FAILURES and self.add("") <= MOST_LOGGED


@dataclass(eq=False, slots=True)
class _Stream:
    caller: Caller
    limit: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))


class Access:
    """Lets in who may come in. `required` False lets in everybody, with every right."""

    def __init__(
        self, store: Store, clock: Clock, *, required: bool, certificates: Mapping[str, Rights], most_streams: int
    ) -> None:
        self._store = store
        self._clock = clock
        self.required = required
        self._denials = Failures(clock)
        self._by_certificate = {
            name: Caller(name, rights, denials=self._denials) for name, rights in certificates.items()
        }
        self._by_hash: dict[bytes, Caller] = {}
        """Of their tokens."""
        self._mark: str | None = None
        self._looking = asyncio.Lock()
        self._is_blind = False
        """The database has not answered when it was asked last."""
        self._most_streams = most_streams
        self._streams: set[_Stream] = set()
        self._many: Counter[str] = Counter()
        """Open streams, by principal."""
        self._failures = Failures(clock)

    # ── who calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def by_token(self, text: str, peer: Peer) -> Caller:
        """Whose token this is; Unauthenticated when it is nobody's."""
        # By its hash, of which nobody can choose even a beginning: how long that takes says nothing about a secret.
        caller = self._by_hash.get(api_token.hash_of(text))
        now_us = self._clock.now_us()
        if caller is None or not caller.is_in_time(now_us):
            raise self._unknown(text, peer)
        caller.used_us = now_us
        return caller

    def _unknown(self, text: str, peer: Peer) -> Unauthenticated | TooManyFailures:
        if (token_id := api_token.id_of(text)) is None:
            return self._failed(peer, "what was shown as a token is none, or is not whole: its checksum is wrong")
        why = f"the token {token_id} is not known here; it was revoked, has expired, or never was"
        return self._failed(peer, why, token_id)

    def by_certificate(self, names: Iterable[str], peer: Peer) -> Caller:
        """Whose certificate this is, by the first of its subject alternative names that has rights."""
        names = list(names)
        for name in names:
            if (caller := self._by_certificate.get(name)) is not None:
                return caller
        shown = ", ".join(names[:5]) or "none"
        why = f"no rights are given to the certificate; its subject alternative names: {shown}"
        raise self._failed(peer, why[:500])

    def by_nothing(self, peer: Peer) -> Unauthenticated | TooManyFailures:
        """The error of somebody who shows nothing."""
        return self._failed(peer, "no credential was shown; send the metadata 'authorization: Bearer <token>'")

    def _failed(self, ask_peer: Peer, why: str, token_id: str = "") -> Unauthenticated | TooManyFailures:
        peer = ask_peer()
        many = self._failures.add(peer)
        if self._failures.is_logged(many):
            log.warning("a caller was refused", peer=peer, why=why)
        return Unauthenticated(why, token_id) if many <= MOST_FAILURES else TooManyFailures(MOST_FAILURES)

    def holds(self, caller: Caller) -> bool:
        """Whether a caller's credential still holds."""
        is_known = caller.token is None or self._by_hash.get(caller.token.hash) is caller
        return is_known and caller.is_in_time(self._clock.now_us())

    @staticmethod
    def enter(caller: Caller) -> None:
        """From now on, in this call, that is who calls."""
        _caller.set(caller)

    def caller(self) -> Caller:
        """Who makes this call. Whoever has not been asked is nobody, and not anybody."""
        if not self.required:
            return ANYBODY
        try:
            return _caller.get()
        except LookupError:
            raise Unauthenticated("nobody has looked who makes this call") from None

    @contextmanager
    def streaming(self, caller: Caller) -> Iterator[asyncio.Timeout]:
        """A stream of a caller, to be written under the limit that this gives: it ends when the credential does.
        TooManyStreams when there are too many."""
        if self._many[caller.principal] >= self._most_streams:
            raise TooManyStreams(caller.principal, self._most_streams)
        stream = _Stream(caller)
        self._streams.add(stream)
        self._many[caller.principal] += 1
        try:
            yield stream.limit
        finally:
            self._streams.discard(stream)
            self._many[caller.principal] -= 1
            if not self._many[caller.principal]:
                del self._many[caller.principal]

    # ── what changes ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Reads the tokens for the first time, and says what is worth knowing."""
        await self._look()
        if self.required and not self._by_hash and not self._by_certificate:
            log.warning("nobody may call yet; `taskq token create` makes the first token")

    async def run(self) -> None:
        while True:
            await pause(LOOK_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Learns what has changed about tokens, and ends the streams of those that do not hold any more."""
        self._sweep()  # what has expired waits for no database
        try:
            async with self._looking:
                await self._look()
            self._is_blind = False
        except (StorageUnavailable, StorageFull) as error:
            if not self._is_blind:
                log.warning("whether tokens have changed is not known", why=error.in_full)
            self._is_blind = True
        self._sweep()

    def _sweep(self) -> None:
        if self.required:
            for stream in [stream for stream in self._streams if not self.holds(stream.caller)]:
                self._streams.discard(stream)
                stream.limit.reschedule(asyncio.get_running_loop().time())

    async def _look(self) -> None:
        tell: Callable[[], None] = await self._store.take_requests()
        if self.required:
            if (tokens := await self._store.tokens(self._mark)) is not None:
                self._mark = tokens.mark
                self._learn(tokens.found)
            await self._write_uses()
        tell()

    def _learn(self, tokens: list[Token]) -> None:
        """Those that were known stay the same callers, as long as they may do the same: else their streams end."""
        callers: dict[bytes, Caller] = {}
        for token in tokens:
            known = self._by_hash.get(token.hash)
            if known is not None and known.token is not None and known.token.grants == token.grants:
                callers[token.hash] = known
                continue
            try:
                callers[token.hash] = Caller(token.principal, Rights.parse(token.rights), token, self._denials)
            except ValueError as error:
                log.error(
                    "a token has rights that cannot be read, and is of no use", token=token.token_id, why=str(error)
                )
        self._by_hash = callers

    async def _write_uses(self) -> None:
        """Once a minute of each, so that tokens that nobody uses can be found."""
        used = [one for one in self._by_hash.values() if one.used_us >= one.written_us + USE_US]
        if used:
            for one in used:
                one.written_us = one.used_us
            await self._store.use_tokens([Use(one.token.token_seq, one.used_us) for one in used if one.token])
