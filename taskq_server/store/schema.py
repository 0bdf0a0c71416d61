"""The tables.

Times are microseconds since 1970, UTC. A task that is updated is rewritten whole, so what only some tasks have is NULL
in the others and costs them nothing. Partial indexes keep finished tasks out of everything that is done often.

What PostgreSQL is told about storage and autovacuum stands in the migrations alone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)

metadata = MetaData()
Number = BigInteger().with_variant(Integer(), "sqlite")  # in SQLite, only INTEGER PRIMARY KEY is the row's own number
InOrder = Text().with_variant(Text(collation="C"), "postgresql")
"""Is sorted by its characters, whatever the database's language."""

route = Table(
    "route",
    metadata,
    Column("route_id", Number, primary_key=True),
    Column("name", Text, nullable=False),
    Column("requires", Text, nullable=False, comment="JSON array, canonical"),
    UniqueConstraint("name", "requires", name="route_name_requires"),
)

task = Table(
    "task",
    metadata,
    Column("seq", Number, primary_key=True, comment="the order of enqueueing"),
    Column("task_id", LargeBinary(16), nullable=False),
    Column("content_hash", LargeBinary(16), nullable=False, comment="tells a retried enqueue from a conflict"),
    Column("route_id", Number, nullable=False),
    Column("state", SmallInteger, nullable=False, comment="TaskState"),
    Column("priority", SmallInteger, nullable=False),
    Column("due_time_us", Number, nullable=False),
    Column("enqueue_time_us", Number, nullable=False),
    # what the scheduler sent
    Column("payload", LargeBinary),
    Column("payload_crc", Number, comment="CRC-32 of payload: a corrupt one is never delivered"),
    Column("content_type", Text),
    Column("payload_metadata", Text, comment="JSON object"),
    Column("headers", Text, comment="JSON object"),
    Column("tags", Text, comment="JSON array"),
    Column("retry_policy", Text, comment="JSON array; NULL is the default"),
    Column("run_timeout_us", Number),
    Column("expire_time_us", Number),
    Column("retention_us", Number, comment="NULL is the server's"),
    Column("dedup_key", Text),
    # the last attempt
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("failed_attempts", Integer, nullable=False, server_default="0"),
    Column("lost_leases", Integer, nullable=False, server_default="0"),
    Column("session_seq", Number),
    Column("processor_name", Text),
    Column("lease_time_us", Number),
    Column("run_deadline_us", Number, comment="set while it runs"),
    Column("last_failure", Text, comment="JSON array"),
    Column("progress_fraction", Float),
    Column("progress_message", Text),
    Column("checkpoint", LargeBinary),
    Column("checkpoint_type", Text),
    Column("checkpoint_metadata", Text),
    # the end
    Column("last_outcome", SmallInteger, comment="Outcome of the attempt that finished it; NULL when none did"),
    Column("finish_time_us", Number),
    Column("prune_time_us", Number),
    Column("result", LargeBinary),
    Column("result_type", Text),
    Column("result_metadata", Text),
    # what has made it
    Column("schedule_seq", Number, comment="of which it is a firing"),
    Column("nominal_us", Number, comment="which firing of that schedule"),
    Column("rerun_of", LargeBinary(16), comment="the task that it repeats with another payload"),
    # what has ended it
    Column("failure_group", Text, comment="of one that is FAILED: the fingerprint of its last failure"),
)


IS_SCHEDULED = text("state = 1")
"""Literal, not bound: a partial index serves only a condition that the planner can compare with its own."""
IS_RUNNING = text("state = 2")
IS_EXPIRING = text("state = 1 AND expire_time_us IS NOT NULL AND failed_attempts = 0")
IS_TIMED = text("state = 2 AND run_deadline_us IS NOT NULL")
IS_PRUNABLE = text("prune_time_us IS NOT NULL")
IS_FAILED = text("state = 4")
IS_CANCELLED = text("state = 5")
IS_RERUN = text("rerun_of IS NOT NULL")
IS_OF_SCHEDULE = text("schedule_seq IS NOT NULL AND state < 3")
IS_ALIVE = text("end_time_us IS NULL")
LIVES = text("end_time_us + 0 IS NULL")
"""The same of a session that is looked for by its id; it does not offer the index of all that live."""
IS_FIRING = text("pause_time_us IS NULL AND next_due_us IS NOT NULL")
IS_BUFFERED = text("outcome = 3")
IS_WORKED_ON = text("state = 1")
"""Of a bulk operation."""


def _partial(name: str, *columns: Column[Any], where: TextClause) -> Index:
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


Index("task_id", task.c.task_id, unique=True)
# Which tasks of a route are due, in the order in which they should run: one range a (route, priority).
_partial("task_due", task.c.route_id, task.c.priority, task.c.due_time_us, task.c.seq, where=IS_SCHEDULED)
_partial("task_expiring", task.c.expire_time_us, where=IS_EXPIRING)
_partial("task_running", task.c.session_seq, where=IS_RUNNING)
_partial("task_run_deadline", task.c.run_deadline_us, where=IS_TIMED)
_partial("task_prunable", task.c.prune_time_us, where=IS_PRUNABLE)
# Which tasks of a schedule are unfinished: few, whatever else it has left behind.
_partial("task_of_schedule", task.c.schedule_seq, where=IS_OF_SCHEDULE)
# What went wrong and what was given up, for whoever looks for it among all that went well, which pays nothing for it.
_partial("task_failed_seq", task.c.seq, where=IS_FAILED)
_partial("task_cancelled_seq", task.c.seq, where=IS_CANCELLED)
# Which tasks have failed so.
_partial("task_failed", task.c.failure_group, task.c.seq, where=IS_FAILED)
_partial("task_rerun", task.c.rerun_of, where=IS_RERUN)

attempt = Table(
    "attempt",
    metadata,
    Column("task_seq", Number, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("session_seq", Number, nullable=False),
    Column("processor_name", Text, nullable=False),
    Column("lease_time_us", Number, nullable=False),
    Column("end_time_us", Number, nullable=False),
    Column("outcome", SmallInteger, nullable=False, comment="Outcome"),
    Column("failure", Text, comment="JSON array"),
    comment="attempts after which the task went on; the one that finished it stands in task",
    sqlite_with_rowid=False,
)

session = Table(
    "session",
    metadata,
    Column("session_seq", Number, primary_key=True),
    Column("session_id", LargeBinary(16), nullable=False, unique=True),
    Column("processor_name", Text, nullable=False),
    Column(
        "capabilities", Text, nullable=False, comment="JSON object: name to max_in_flight, 0 for no limit of its own"
    ),
    Column("labels", Text, nullable=False, comment="JSON object"),
    Column("max_in_flight", Integer, nullable=False),
    Column("build_id", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("register_time_us", Number, nullable=False),
    Column("alive_until_us", Number, nullable=False),
    Column("end_time_us", Number),
    Column("server_seq", Number, nullable=False, server_default="1", comment="the server that may push to it"),
    Column("drain_time_us", Number, comment="set by an administrator"),
    Column("drain_reason", Text),
    Column("principal", Text, nullable=False, server_default=text("''"), comment="who registered it"),
    sqlite_autoincrement=True,
)
_partial("session_ended", session.c.end_time_us, where=text("end_time_us IS NOT NULL"))
# Not by time: a heartbeat that changes no index is cheap in PostgreSQL, and those who live are few.
_partial("session_alive", session.c.session_seq, where=IS_ALIVE)

dedup = Table(
    "dedup",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("task_id", LargeBinary(16), nullable=False),
    Column("hold", SmallInteger, nullable=False, comment="DedupHold"),
    Column("hold_until_us", Number, comment="of TTL and BOTH"),
    sqlite_with_rowid=False,
)
Index("dedup_task", dedup.c.task_id)
_partial("dedup_ending", dedup.c.hold_until_us, where=text("hold_until_us IS NOT NULL"))

pause = Table(
    "pause",
    metadata,
    Column("name", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("pause_time_us", Number, nullable=False),
    comment="capabilities of which nothing is dispatched",
    sqlite_with_rowid=False,
)

schedule = Table(
    "schedule",
    metadata,
    Column("schedule_seq", Number, primary_key=True),
    Column("schedule_id", LargeBinary(16), nullable=False, unique=True),
    Column("name", InOrder, nullable=False, unique=True),
    Column("content_hash", LargeBinary(16), nullable=False, comment="tells a retried create from a conflict"),
    Column("version", Integer, nullable=False, comment="counts what somebody has changed; firings do not"),
    # what somebody has said
    Column("rule", Text, nullable=False, comment="JSON object"),
    Column("overlap", SmallInteger, nullable=False, comment="Overlap"),
    Column("max_buffered", Integer, nullable=False),
    Column("catch_up", SmallInteger, nullable=False, comment="CatchUp"),
    Column("catch_up_window_us", Number, nullable=False),
    Column("max_firings", Number),
    Column("origin", InOrder, nullable=False),
    Column("task", Text, nullable=False, comment="JSON object: what each firing makes"),
    Column("payload", LargeBinary),
    Column("create_time_us", Number, nullable=False),
    Column("update_time_us", Number, nullable=False),
    Column("pause_time_us", Number),
    Column("pause_note", Text),
    # where it stands
    Column("next_us", Number, comment="the next nominal time; NULL: it fires no more"),
    Column("next_due_us", Number, comment="when the task of next_us is due"),
    Column("last_us", Number, comment="the last nominal time that became a task"),
    Column("last_task_id", LargeBinary(16)),
    Column("tzdata", Text, nullable=False, comment="by which next_us was computed"),
    Column("used", Number, nullable=False, server_default="0", comment="what counts against max_firings"),
    Column("fired", Number, nullable=False, server_default="0"),
    Column("skipped", Number, nullable=False, server_default="0"),
    Column("missed", Number, nullable=False, server_default="0"),
    Column("overlapped", Number, nullable=False, server_default="0"),
    Column("pruned_until_us", Number, comment="firings until then may be forgotten"),
    sqlite_autoincrement=True,
)
_partial("schedule_due", schedule.c.next_due_us, where=IS_FIRING)

firing = Table(
    "firing",
    metadata,
    Column("schedule_seq", Number, primary_key=True),
    Column("nominal_us", Number, primary_key=True),
    Column("outcome", SmallInteger, nullable=False, comment="FiringOutcome"),
    Column("task_id", LargeBinary(16), nullable=False),
    Column("fire_time_us", Number, nullable=False, comment="when that was decided"),
    comment="each firing once: what has fired, as long as its task is kept, and what waits in a buffer",
    sqlite_with_rowid=False,
)
# With the outcome, though it is the same in all: else SQLite would go through all firings of a schedule.
_partial("firing_buffered", firing.c.outcome, firing.c.schedule_seq, firing.c.nominal_us, where=IS_BUFFERED)

token = Table(
    "token",
    metadata,
    Column("token_seq", Number, primary_key=True),
    Column("token_id", Text, nullable=False, unique=True, comment="the part that is no secret"),
    Column(
        "hash", LargeBinary(32), nullable=False, comment="SHA-256 of the whole token, of which nothing else is kept"
    ),
    Column("principal", Text, nullable=False),
    Column("rights", Text, nullable=False, comment="JSON array"),
    Column("create_time_us", Number, nullable=False),
    Column("expire_time_us", Number),
    Column("revoke_time_us", Number),
    Column("last_use_time_us", Number, comment="to the minute"),
)

audit = Table(
    "audit",
    metadata,
    Column("audit_seq", Number, primary_key=True),
    Column("change_time_us", Number, nullable=False),
    Column("principal", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("source", SmallInteger, nullable=False, comment="Source"),
    Column("action", Text, nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("before", Text, nullable=False, comment="JSON object; empty: there was none"),
    Column("after", Text, nullable=False, comment="JSON object; empty: there is none"),
    Column("request_id", Text, nullable=False),
    comment="who has changed what; each in the transaction of its change",
    sqlite_autoincrement=True,
)
Index("audit_time", audit.c.change_time_us, audit.c.audit_seq)
Index("audit_target", audit.c.target, audit.c.change_time_us, audit.c.audit_seq)
Index("audit_principal", audit.c.principal, audit.c.change_time_us, audit.c.audit_seq)
Index("audit_kind", audit.c.target_kind, audit.c.change_time_us, audit.c.audit_seq)

bulk_operation = Table(
    "bulk_operation",
    metadata,
    Column("operation_seq", Number, primary_key=True),
    Column("operation_id", LargeBinary(16), nullable=False, unique=True),
    Column("content_hash", LargeBinary(16), nullable=False, comment="tells a retried start from a conflict"),
    Column("state", SmallInteger, nullable=False, comment="OperationState"),
    # what is asked for
    Column("kind", SmallInteger, nullable=False, comment="ActionKind"),
    Column("due_time_us", Number, comment="of RESCHEDULE: either this or the next"),
    Column("delay_us", Number),
    Column("priority", SmallInteger, comment="of REPRIORITISE"),
    Column("payload", LargeBinary, comment="of RERUN, until the operation has ended"),
    Column("content_type", Text, comment="NULL: tasks run again as they are"),
    Column("payload_metadata", Text, comment="JSON object"),
    Column("filter", Text, nullable=False, comment="empty: those of task_ids"),
    Column("task_ids", LargeBinary, comment="16 bytes each"),
    Column("reason", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("max_tasks", Number, nullable=False, comment="0: no limit"),
    # how far it is
    Column("start_time_us", Number, nullable=False),
    Column("end_time_us", Number),
    Column("matched", Number, nullable=False),
    Column("matched_is_partial", SmallInteger, nullable=False, comment="1: as many, or more"),
    Column("place", Number, nullable=False, comment="what comes before is left: a seq, or a place in task_ids"),
    Column("done", Number, nullable=False, server_default="0"),
    Column("skipped", Number, nullable=False, server_default="0"),
    Column("skipped_samples", Text, nullable=False, server_default="[]", comment="JSON array"),
    Column("server_seq", Number, nullable=False, comment="the server that works on it"),
    Column("work_time_us", Number, nullable=False, comment="of its last batch"),
    sqlite_autoincrement=True,
)
_partial("bulk_operation_running", bulk_operation.c.operation_seq, where=IS_WORKED_ON)

server = Table(
    "server",
    metadata,
    Column("server_seq", Number, primary_key=True),
    Column("name", Text, nullable=False, comment="host and process id"),
    Column("start_time_us", Number, nullable=False),
    Column("alive_until_us", Number, nullable=False),
    comment="the servers on this database; on SQLite there is one, number 1, and no row",
    sqlite_autoincrement=True,
)

signal = Table(
    "signal",
    metadata,
    Column("signal_seq", Number, primary_key=True),
    Column("server_seq", Number, nullable=False, comment="whom it is for"),
    Column("session_seq", Number, nullable=False),
    Column("kind", SmallInteger, nullable=False, comment="SignalKind"),
    Column("task_id", LargeBinary(16)),
    Column("attempt", Integer),
    comment="what a server must be told of its sessions that another has changed; deleted when heard",
    sqlite_autoincrement=True,
)
Index("signal_server", signal.c.server_seq, signal.c.signal_seq)

LATENESS_BUCKETS = 15
RUN_BUCKETS = 13
LATENESS_COLUMNS = tuple(f"late_{i}" for i in range(LATENESS_BUCKETS))
RUN_COLUMNS = tuple(f"ran_{i}" for i in range(RUN_BUCKETS))


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default="0")


stat = Table(
    "stat",
    metadata,
    Column("step_seconds", Integer, primary_key=True, comment="60 or 3600"),
    Column("name", InOrder, primary_key=True, comment="empty for all together"),
    Column("start_us", Number, primary_key=True),
    _count("enqueued"),
    _count("leased"),
    _count("succeeded"),
    _count("failed"),
    _count("cancelled"),
    _count("retried"),
    *map(_count, LATENESS_COLUMNS),
    *map(_count, RUN_COLUMNS),
    comment="what was done in each minute and hour; late_ and ran_ count by how long it took",
    sqlite_with_rowid=False,
)

failure_group = Table(
    "failure_group",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("name", InOrder, nullable=False),
    Column("error_type", Text, nullable=False),
    Column("pattern", Text, nullable=False, comment="the message without what changes"),
    Column("last_message", Text, nullable=False),
    Column("top_frame", Text, nullable=False),
    Column("failures", Number, nullable=False),
    Column("first_time_us", Number, nullable=False),
    Column("last_time_us", Number, nullable=False),
    Column("last_task_id", LargeBinary(16), nullable=False),
    Column("processor_names", Text, nullable=False, comment="JSON array"),
    Column("build_ids", Text, nullable=False, comment="JSON array"),
    Column("trend", Text, nullable=False, comment="JSON array of hours since 1970 and how many failed in them"),
    Column("resolve_time_us", Number),
    Column("resolve_note", Text),
    comment="failed attempts that are alike, together",
    sqlite_with_rowid=False,
)
Index("failure_group_last", failure_group.c.last_time_us, failure_group.c.fingerprint)

event = Table(
    "event",
    metadata,
    Column("event_seq", Number, primary_key=True, comment="in the order of the commits"),
    Column("event_time_us", Number, nullable=False),
    Column("topic", SmallInteger, nullable=False, comment="Topic"),
    Column("changes", Number, nullable=False),
    Column("ids", Text, nullable=False, comment="JSON array: some of them"),
    comment="hints of what has changed, while somebody watches",
    sqlite_autoincrement=True,
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
