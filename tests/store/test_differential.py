"""The same calls to both databases at once: each answer is the same, and in the end every row is.

TASKQ_MODEL_EXAMPLES sets how many sequences are tried.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from taskq_server.clock import ManualClock
from taskq_server.core.matching import Demand
from taskq_server.core.retry import RetryPolicy
from taskq_server.core.task import (
    Assignment,
    Dedup,
    DedupConflict,
    DedupHold,
    Ending,
    Failure,
    NewTask,
    Outcome,
    Payload,
    Progress,
)
from taskq_server.store.store import Store
from taskq_server.store.verbs.draining import NewDrain
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.listing import Page, Registered
from taskq_server.store.verbs.living import Advance, Grace, NewSession, Sign
from taskq_server.store.verbs.pausing import NewPause
from tests.store.given import LEASE, Processor, a_retry, a_task, an_id, days, rows, seconds
from tests.store.mortal import Home, PostgresHome, SQLiteHome

NAMES = ["cook", "bake", "a'\"\\%$1:x?", "🌶"]
RULES = Rules(retention_us=seconds(20), max_lost_leases=2)
LAST_US = 253_402_300_799_999_999
"""The end of the year 9999, the last that the wire knows."""
LONGEST_US = days(3_650)
TABLES = {
    "task": "seq",
    "attempt": "task_seq, attempt",
    "session": "session_seq",
    "dedup": "scope, key",
    "route": "route_id",
    "pause": "pause_time_us, length(name)",
}

# ── what is nasty ────────────────────────────────────────────────────────────────────────────────────────────────────

NASTY = [
    "", "'", '"', "\\", "\\'; DROP TABLE task; --", "%", "%s %(x)s", "$1", ":x", "?", "{seq}", "{from rows}", "NULL",
    "null", "[]", "{", "\x01\x1f\x7f", "\x85\u2028\u2029\ufeff", "\ufffe\uffff", "e\u0301 \u00e9", "\U0010ffff 🌶",
    " \t\r\n ", "1e999", "0x00", "\\000", "\\x00",
]  # fmt: skip


class Nasty:
    """What is hard to keep, by chance: one seed makes all of it, so that sequences may be long."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.pick = random.choice

    def character(self) -> str:
        """The wire knows no lone surrogates, and U+0000 is refused there."""
        code = self._random.choice([self._random.randint(1, 0xD7FF), self._random.randint(0xE000, 0x10FFFF), 0x7F])
        return chr(code)

    def short(self) -> str:
        return self.pick([self.pick(NASTY), "".join(self.character() for _ in range(self._random.randrange(5)))])

    def text(self) -> str:
        return self.pick([self.short(), self.short(), self.short(), self.character() * 4_096])

    def map(self) -> dict[str, str] | None:
        return self.pick([None, {self.short(): self.text() for _ in range(self._random.randrange(4))}])

    def payload(self) -> Payload | None:
        return self.pick([None, Payload(self.data(), self.short(), self.map())])

    def data(self) -> bytes:
        many = self.pick([0, 1, 2, 16, 300, 300, 300, 256 << 10])
        return self.pick([self._random.randbytes(many), b"\0" * many, b"\\x00", b"\xff\xfe"])

    def time(self) -> int:
        return self.pick([0, 1, LAST_US, LAST_US - 1])

    def span(self) -> int:
        return self.pick([0, 1, 1_000, seconds(3), LEASE, LONGEST_US])

    def failure(self) -> Failure:
        return Failure(self.short(), self.text(), self.text(), 1, self.time())

    def retry(self) -> RetryPolicy:
        longest = {"initial_delay_us": LONGEST_US, "max_delay_us": LONGEST_US, "multiplier": 100.0}
        return self.pick(
            [
                a_retry(),
                a_retry(initial_delay_us=0, multiplier=1 / 3 + 1),
                a_retry(max_attempts=2, initial_delay_us=0, non_retryable_errors=(self.short(), self.short())),
                a_retry(max_attempts=1000, **longest),
            ]
        )

    def dedup(self) -> Dedup:
        hold = self.pick(list(DedupHold))
        ttl = None if hold is DedupHold.UNFINISHED else self.pick([1_000, seconds(3), days(365)])
        key, scope = self.pick(["k", "'", "\\", "%s"]), self.pick(["cook", "$1"])
        return Dedup(key, scope, self.pick(list(DedupConflict)), hold, ttl)

    def task(self) -> NewTask:
        pick, often = self.pick, [None, None, None]
        requires = pick([(), (), (), ("zone = eu",), ("zone in (eu, us)", "!slow"), ("gpu exists",)])
        return replace(
            a_task(pick(NAMES), task_id=pick([*often, an_id(1), an_id(2)]), requires=requires),
            content_hash=pick([b"", b"\0" * 16, b"\xff" * 16]),
            payload=self.payload(),
            due_time_us=pick([*often, self.time()]),
            delay_us=pick([0, 0, 0, 1, seconds(3), LONGEST_US]),
            priority=self._random.randrange(10),
            dedup=pick([None, self.dedup()]),
            retry_policy=self.retry(),
            run_timeout_us=pick([None, None, 1_000, seconds(5), days(365)]),
            expire_time_us=pick([*often, *often, self.time()]),
            headers=self.map(),
            tags=tuple(self.short() for _ in range(self._random.randrange(3))),
            retention_us=pick([None, self.span()]),
        )

    def ending(self, one: Assignment) -> Ending:
        """What a processor says of an attempt."""
        outcome = self.pick([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.FAILED, Outcome.RELEASED, Outcome.NOT_RECEIVED])
        facts: dict[str, Any] = {}
        if outcome is Outcome.SUCCEEDED:
            facts = {"result": self.payload()}
        elif outcome is Outcome.FAILED:
            delay = self.pick([None, self.span()])
            facts = {"failure": self.failure(), "retryable": self.pick([True, True, False]), "retry_delay_us": delay}
        elif outcome is Outcome.RELEASED:
            facts = {"due_time_us": self.pick([None, self.time()])}
        return Ending(one.task_id, one.attempt, one.session_seq, outcome, **facts)


NASTILY = st.randoms(use_true_random=True).map(Nasty)


class Twins(RuleBasedStateMachine):
    """Two stores that are asked the same."""

    leases: Bundle[Assignment] = Bundle("leases")
    sessions: Bundle[Processor] = Bundle("sessions")
    make_homes: Callable[[], list[Home]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.homes = type(self).make_homes()
        self.clocks = [ManualClock() for _ in self.homes]
        self.stores = [self.run(home.open(clock)) for home, clock in zip(self.homes, self.clocks, strict=True)]
        self.ids: list[bytes] = [an_id(1), an_id(2), an_id(3)]
        self.able = self.an_able_processor()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def both(self, call: Callable[[Store], Coroutine[Any, Any, Any]]) -> Any:
        """What each answers, which must be the same."""
        one, other = [self.run(call(store)) for store in self.stores]
        assert one == other
        return one

    # ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @initialize(target=sessions)
    def first_session(self) -> Processor:
        return self.able

    @initialize(target=leases, nasty=NASTILY)
    def first_tasks(self, nasty: Nasty) -> Any:
        """So that there is something to report on."""
        self.keep([replace(nasty.task(), due_time_us=None, delay_us=0, expire_time_us=None) for _ in range(4)])
        return self.work([], nasty)

    def an_able_processor(self) -> Processor:
        return self.open(Processor(0, "able", an_id(), dict.fromkeys(NAMES, 0), {"zone": "eu", "gpu": ""}, 200), LEASE)

    def open(self, one: Processor, alive_us: int, client: str = "") -> Processor:
        new = NewSession(one.session_id, one.name, one.capabilities, one.labels, one.slots, client, client, alive_us)
        return replace(one, seq=self.both(lambda store: store.register(new)))

    def keep(self, tasks: list[NewTask]) -> None:
        answers = self.both(lambda store: store.add(tasks))
        self.ids += [answer.task_id for answer in answers][:5]
        self.look()

    @rule(nasty=NASTILY, many=st.integers(1, 5))
    def add(self, nasty: Nasty, many: int) -> None:
        self.keep([nasty.task() for _ in range(many)])

    @rule(nasty=NASTILY)
    def add_many(self, nasty: Nasty) -> None:
        tasks = [replace(nasty.task(), payload=Payload(b"small", "\\")) for _ in range(3)]
        self.keep([replace(tasks[i % 3], task_id=an_id(), priority=i % 10) for i in range(150)])

    @rule(target=sessions, nasty=NASTILY, alive_us=st.sampled_from([seconds(1), LEASE, LEASE]))
    def register(self, nasty: Nasty, alive_us: int) -> Processor:
        capabilities = {nasty.pick(NAMES): nasty.pick([0, 0, 1]) for _ in range(3)}
        labels = nasty.pick([{}, {"zone": "eu"}, {"zone": "us", "gpu": nasty.short()}])
        one = Processor(0, nasty.short(), an_id(), capabilities, labels, nasty.pick([1, 5, 200]))
        return self.open(one, alive_us, nasty.text())

    @rule(target=leases, who=st.lists(sessions, max_size=2, unique_by=lambda one: one.seq), nasty=NASTILY)
    def work(self, who: list[Processor], nasty: Nasty) -> Any:
        """Processors take tasks and report on some; the able one is replaced when it has ended."""
        if self.both(lambda store: store.keep_alive(Sign(self.able.seq, LEASE))) is None:
            self.able = self.an_able_processor()

        async def lease(store: Store) -> tuple[list[Assignment], list[int]]:
            leased = await store.lease(Demand([one.seats(store) for one in (*who, self.able)]))
            return leased.assignments, sorted(leased.free_routes)

        leased = self.both(lease)[0]
        self.ids += [one.task_id for one in leased[:3]]
        endings = [nasty.ending(one) for one in leased if nasty.pick([True, False])]
        self.both(lambda store: store.end(endings))
        self.look()
        return multiple(*leased[:8])

    @rule(
        leases=st.lists(leases, min_size=1, max_size=5),
        nasty=NASTILY,
        off=st.sampled_from([(0, 0)] * 5 + [(1, 0), (0, 1), (2**31 - 9, 2**62)]),
    )
    def report(self, leases: list[Assignment], nasty: Nasty, off: tuple[int, int]) -> None:
        """Late, or twice, or on attempts that never were."""
        forged = [replace(one, attempt=one.attempt + off[0], session_seq=one.session_seq + off[1]) for one in leases]
        endings = [nasty.ending(one) for one in forged]
        self.both(lambda store: store.end(endings))
        self.look()

    @rule(lease=leases, nasty=NASTILY)
    def advance(self, lease: Assignment, nasty: Nasty) -> None:
        progress = Progress(nasty.pick([0.0, 0.1, 1 / 3, 1.0, 5e-324]), nasty.text())
        said = Advance(lease.session_seq, lease.task_id, lease.attempt, progress, nasty.payload())
        self.both(lambda store: store.save_progress([said]))

    @rule(numbers=st.lists(st.integers(0, 60), min_size=1, max_size=4))
    def cancel(self, numbers: list[int]) -> None:
        ids = [self.ids[number % len(self.ids)] for number in numbers]
        self.both(lambda store: store.cancel(ids))
        self.look()

    @rule(session=sessions, does=st.sampled_from(["lives", "lives", "moves", "looks", "leaves"]))
    def hear_of(self, session: Processor, does: str) -> None:
        async def look(store: Store) -> list[Any]:
            found = await store.find_session(session.session_id)
            if found is not None:
                found.held.sort(key=lambda held: held.task_id)
                found.server_lives = True  # SQLite has no row of its server
            return [found, await store.session_seq(session.session_id), await store.session_seq(an_id(9))]

        async def move(store: Store) -> bool:
            return await store.take_over(session.session_id) is not None

        if does == "lives":
            self.both(lambda store: store.keep_alive(Sign(session.seq, 2 * LEASE)))
        elif does == "moves":
            self.both(move)
        elif does == "leaves":
            self.both(lambda store: store.unregister(session.seq))
        self.both(look)

    @rule(
        nasty=NASTILY,
        session=sessions,
        does=st.sampled_from(["pause", "resume", "resume", "drain", "disconnect", "look", "look"]),
    )
    def administer(self, nasty: Nasty, session: Processor, does: str) -> None:
        name, reason = nasty.pick(NAMES), nasty.text()
        if does == "pause":
            self.both(lambda store: store.pause(NewPause(name, reason)))
        elif does == "resume":
            self.both(lambda store: store.resume(name))
        elif does == "drain" and session.seq != self.able.seq:
            self.both(lambda store: store.drain_processor(NewDrain(session.session_id, reason)))
        elif does == "disconnect":
            self.both(lambda store: store.disconnect(session.seq))
        page = Page("", nasty.pick([1, 1_000]))
        self.both(lambda store: store.list_capabilities(page))

        async def look(store: Store) -> list[Registered]:
            return [replace(one, server_name="") for one in await store.list_sessions(Page(0, 1_000))]

        self.both(look)

    @rule(
        us=st.sampled_from([0, 1, seconds(1), seconds(3), seconds(7), LEASE, LEASE, days(4), LONGEST_US]),
        spares=st.booleans(),
        prunes=st.none() | st.sampled_from([0, seconds(10)]),
    )
    def time_goes_on(self, us: int, spares: bool, prunes: int | None) -> None:
        async def reclaim(store: Store) -> tuple[Any, ...]:
            reclaimed = await store.reclaim()
            return reclaimed.dead, sorted(reclaimed.timed_out, key=lambda held: held.task_id), reclaimed.next_us

        for clock in self.clocks:
            clock.advance(us=us)
        if spares:
            self.both(lambda store: store.spare(Grace(seconds(5))))
        self.both(reclaim)
        if prunes is not None:
            self.both(lambda store: store.prune(prunes))
        self.look()

    # ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        ids = [self.ids[0], *self.ids[-6:]]
        self.both(lambda store: store.get(ids))

    def teardown(self) -> None:
        try:
            for table, key in TABLES.items():
                self.both(lambda store: rows(store, f"SELECT * FROM {table} ORDER BY {key}"))  # noqa: B023, S608
        finally:
            for home in self.homes:
                self.run(home.leave())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()


@pytest.mark.timeout(7_200)
def test_both_databases_answer_and_keep_the_same(request: pytest.FixtureRequest) -> None:
    empty, databases = request.getfixturevalue("empty_sqlite"), request.getfixturevalue("databases")
    Twins.make_homes = lambda: [SQLiteHome(RULES, empty), PostgresHome(RULES, databases)]
    machine = Twins.TestCase
    machine.settings = settings(
        max_examples=int(os.environ.get("TASKQ_MODEL_EXAMPLES", "20")),
        stateful_step_count=30,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    machine("runTest").runTest()
