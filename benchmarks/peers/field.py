"""Who takes part, and every setting of each with its reason.

A setting stands here and nowhere else: the commands of its workers, and `options`, which its player reads. What is not
named is the default. Reasons name pages of the system's own documentation; "tried" is what was measured on two cores.
docs/performance.md shows this, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Command = tuple[str, ...]
"""What a Python is told."""


@dataclass(frozen=True, slots=True)
class InRedis:
    """What is recorded is what a command counts."""

    count: str
    database: int = 0


@dataclass(frozen=True, slots=True)
class InSQL:
    """What is recorded, a number; and whether anything is left to be run, which must be quick to answer."""

    count: str
    left: str


@dataclass(frozen=True, slots=True)
class System:
    """One that takes part."""

    name: str
    """On the command line and in results."""
    title: str
    player: str
    """Its module in players/."""
    store: Literal["sqlite", "postgres", "redis"]
    workers: tuple[Command, ...]
    recorded: InRedis | InSQL
    durable: str
    """What is left when the power fails."""
    enqueues: str
    """Its fastest documented way, in words."""
    reasons: str
    options: Mapping[str, Any] = field(default_factory=dict)
    prompt_workers: tuple[Command, ...] = ()
    """Those that are better where instants are measured, if they are others."""
    timers: tuple[Command, ...] = ()
    """What it needs besides for tasks that are due later."""
    packages: tuple[str, ...] = ()
    """Whose versions matter."""
    fsync: bool = False
    """Of a Redis: every command on disk before it is answered."""
    waiting: int = 0
    """Other tasks of the same kind, due tomorrow."""

    @property
    def is_ours(self) -> bool:
        return self.player == "ours"

    @property
    def prompt(self) -> System:
        """As it is run where instants are measured."""
        return replace(self, workers=self.prompt_workers or self.workers)


_OURS = InSQL(
    count="SELECT count(*) FROM task WHERE finish_time_us IS NOT NULL",
    left="SELECT EXISTS (SELECT 1 FROM task WHERE state = 1) OR EXISTS (SELECT 1 FROM task WHERE state = 2)",
)

SQLITE = System(
    name="sqlite",
    title="ours, SQLite",
    player="ours",
    store="sqlite",
    workers=(("-m", "benchmarks.peers.players.ours"),),
    options={"concurrency": 4000},
    recorded=_OURS,
    durable="yes: every answer after fsync",
    enqueues="`enqueue_many`, of a generator",
    reasons="One server, and one processor in one process that may hold 4,000 tasks, as in `make bench`.",
    packages=("grpcio", "protobuf", "sqlalchemy"),
)
POSTGRES = replace(
    SQLITE,
    name="postgres",
    title="ours, PostgreSQL",
    store="postgres",
    packages=(*SQLITE.packages, "asyncpg"),
)
REDIS_KEEPS = "no: Redis writes a snapshot once a minute at the most"
REDIS_FSYNC = "yes: Redis with `appendfsync always`"
POSTGRES_KEEPS = "yes: PostgreSQL with fsync"


def _celery(*pool: str) -> tuple[Command, ...]:
    """A worker a core."""
    start = "-m", "celery", "-A", "benchmarks.peers.players.celery_", "worker"
    quiet = "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"
    return tuple(
        (*start, f"--hostname={name}@bench", *pool, "--prefetch-multiplier=128", *quiet) for name in ("a", "b")
    )


CELERY = System(
    name="celery",
    title="Celery, Redis",
    player="celery_",
    store="redis",
    workers=_celery("--pool=solo"),
    prompt_workers=_celery("--pool=threads", "--concurrency=4"),
    options={"worker_disable_rate_limits": True, "broker_pool_limit": 64},
    recorded=InRedis("DBSIZE", database=1),
    durable=REDIS_KEEPS,
    enqueues="`apply_async` with one producer for all of them",
    reasons=(
        "Two workers, one a core. For a life of the solo pool: nothing passes between threads or processes; of "
        "two workers with four threads each, one with four, and one of prefork with two processes, tried in "
        "turns, the first two need a sixth more CPU for a task and prefork half as much again. For instants with "
        "four threads each: with the solo pool 500 due tasks took 14 seconds (Concurrency). Many short tasks want "
        "a large prefetch multiplier (Optimizing); rate limits, gossip, mingle and heartbeats between workers are "
        "switched off (Configuration, Workers). One producer for many tasks (Calling)."
    ),
    packages=("celery", "kombu", "redis", "hiredis"),
)
DRAMATIQ = System(
    name="dramatiq",
    title="Dramatiq, Redis",
    player="dramatiq_",
    store="redis",
    workers=(("-m", "dramatiq", "benchmarks.peers.players.dramatiq_", "--processes", "2", "--threads", "8"),),
    recorded=InRedis("DBSIZE", database=1),
    durable=REDIS_KEEPS,
    enqueues="`send`",
    reasons=(
        "A process a core and eight threads each, the default of its command line. Tried: two threads are half as "
        "fast, `dramatiq_queue_prefetch` of 200 is no faster (Environment Variables). It has no call for many "
        "messages; a group sends one by one, too. Delays are whole milliseconds (Delaying Messages)."
    ),
    packages=("dramatiq", "redis", "hiredis"),
)
TASKIQ = System(
    name="taskiq",
    title="taskiq, Redis",
    player="taskiq_",
    store="redis",
    workers=(
        (
            *("-m", "taskiq", "worker", "benchmarks.peers.players.taskiq_:broker", "--workers", "2"),
            *("--max-async-tasks", "100", "--log-level", "ERROR"),
        ),
    ),
    recorded=InRedis("DBSIZE", database=1),
    durable=REDIS_KEEPS,
    enqueues="`kiq`, many at a time",
    reasons=(
        "A process a core. Streams, which acknowledge; tried: lists, a prefetch of 100, and 1,000 tasks at a time "
        "without parsing, none of which cost less CPU for a task (CLI). Enqueues 100 at a time by gather, and "
        "uses uvloop. For due times its scheduler reads its list and sends once a second, the least that it "
        "allows (Scheduling tasks)."
    ),
    timers=(
        (
            *("-m", "taskiq", "scheduler", "benchmarks.peers.players.taskiq_:scheduler", "--log-level", "ERROR"),
            *("--update-interval", "1", "--loop-interval", "1"),
        ),
    ),
    packages=("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"),
)
HUEY = System(
    name="huey",
    title="Huey, Redis",
    player="huey_",
    store="redis",
    workers=(
        (
            *("-m", "huey.bin.huey_consumer", "benchmarks.peers.players.huey_.huey", "--quiet"),
            *("--worker-type", "thread", "--workers", "8", "--no-periodic"),
        ),
    ),
    options={"store_none": True},
    recorded=InRedis("HLEN huey.results.bench"),
    durable=REDIS_KEEPS,
    enqueues="a call of the task",
    reasons=(
        "One consumer with eight threads: tried were two and four processes, and two consumers with four threads "
        "each, which cost more CPU for a task (Consuming Tasks). None is stored as a result, as by every other "
        "system here (API, `store_none`); no periodic tasks. Its scheduler looks once a second, the least that it "
        "allows."
    ),
    packages=("huey", "redis", "hiredis"),
)
PGQUEUER = System(
    name="pgqueuer",
    title="PgQueuer, PostgreSQL",
    player="pgqueuer_",
    store="postgres",
    workers=(("-m", "benchmarks.peers.players.pgqueuer_"),) * 2,
    options={"batch_size": 1000, "enqueue_batch": 1000, "pool_size": 20},
    recorded=InSQL(
        count="SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
        left="SELECT EXISTS (SELECT 1 FROM pgqueuer)",
    ),
    durable=POSTGRES_KEEPS,
    enqueues="`Queries.enqueue` of 1,000 at a time",
    reasons=(
        "Two consumers, each a process with a connection of its own, which take 1,000 tasks at a time "
        "(Performance Tuning: larger batches for short jobs; and its settings of autovacuum); tried: one "
        "consumer, batches of 100 and 250. uvloop, as in its own benchmark. Run as in Programmatic Run, because "
        "the command line of this version does not start with the current typer."
    ),
    packages=("pgqueuer", "asyncpg", "uvloop"),
)
PROCRASTINATE = System(
    name="procrastinate",
    title="Procrastinate, PostgreSQL",
    player="procrastinate_",
    store="postgres",
    workers=(
        (
            *("-m", "procrastinate", "--app=benchmarks.peers.players.procrastinate_.app", "--log-level=error"),
            *("worker", "--concurrency=20", "--fetch-job-polling-interval=0.1"),
        ),
    ),
    options={"batch": 1000},
    recorded=InSQL(
        count="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
        left="SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'todo')"
        " OR EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'doing')",
    ),
    durable=POSTGRES_KEEPS,
    enqueues="`batch_defer_async` of 1,000 at a time",
    reasons=(
        "Twenty jobs at a time, in one process; for what is due later it looks ten times a second, not every five "
        "seconds (Launch a worker). It fetches and ends one job at a time, so that no setting makes batches."
    ),
    packages=("procrastinate", "psycopg", "psycopg-binary"),
)
DRAMATIQ_FSYNC = replace(
    DRAMATIQ, name="dramatiq-fsync", title="Dramatiq, Redis with fsync", durable=REDIS_FSYNC, fsync=True
)
CELERY_FSYNC = replace(CELERY, name="celery-fsync", title="Celery, Redis with fsync", durable=REDIS_FSYNC, fsync=True)

ALL = (SQLITE, POSTGRES, DRAMATIQ, CELERY, TASKIQ, HUEY, PGQUEUER, PROCRASTINATE, DRAMATIQ_FSYNC, CELERY_FSYNC)
WITHOUT_FSYNC = tuple(system for system in ALL if not system.fsync)
"""Redis with fsync is measured where enqueues and results are the subject, and left out where instants are."""
BESIDE = tuple(
    replace(ours, name=f"{ours.name}-{waiting}", title=f"{ours.title}, beside {waiting:,} others", waiting=waiting)
    for ours in (SQLITE, POSTGRES)
    for waiting in (100_000, 1_000_000)
)
