"""Schedules: rules by which tasks recur, and which firing became which task."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
serves_from = "0001"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
InOrder = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# A schedule is updated with every firing.
STORAGE = (
    "ALTER TABLE schedule SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE schedule ALTER COLUMN payload SET STORAGE EXTERNAL",
)


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=False, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("schedule_seq", Number, nullable=False),
        sa.Column("schedule_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", InOrder, nullable=False),
        sa.Column(
            "content_hash", sa.LargeBinary(length=16), nullable=False, comment="tells a retried create from a conflict"
        ),
        sa.Column("version", sa.Integer(), nullable=False, comment="counts what somebody has changed; firings do not"),
        sa.Column("rule", sa.Text(), nullable=False, comment="JSON object"),
        sa.Column("overlap", sa.SmallInteger(), nullable=False, comment="Overlap"),
        sa.Column("max_buffered", sa.Integer(), nullable=False),
        sa.Column("catch_up", sa.SmallInteger(), nullable=False, comment="CatchUp"),
        sa.Column("catch_up_window_us", Number, nullable=False),
        sa.Column("max_firings", Number, nullable=True),
        sa.Column("origin", InOrder, nullable=False),
        sa.Column("task", sa.Text(), nullable=False, comment="JSON object: what each firing makes"),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("create_time_us", Number, nullable=False),
        sa.Column("update_time_us", Number, nullable=False),
        sa.Column("pause_time_us", Number, nullable=True),
        sa.Column("pause_note", sa.Text(), nullable=True),
        sa.Column("next_us", Number, nullable=True, comment="the next nominal time; NULL: it fires no more"),
        sa.Column("next_due_us", Number, nullable=True, comment="when the task of next_us is due"),
        sa.Column("last_us", Number, nullable=True, comment="the last nominal time that became a task"),
        sa.Column("last_task_id", sa.LargeBinary(length=16), nullable=True),
        sa.Column("tzdata", sa.Text(), nullable=False, comment="by which next_us was computed"),
        sa.Column("used", Number, server_default="0", nullable=False, comment="what counts against max_firings"),
        sa.Column("fired", Number, server_default="0", nullable=False),
        sa.Column("skipped", Number, server_default="0", nullable=False),
        sa.Column("missed", Number, server_default="0", nullable=False),
        sa.Column("overlapped", Number, server_default="0", nullable=False),
        sa.Column("pruned_until_us", Number, nullable=True, comment="firings until then may be forgotten"),
        sa.PrimaryKeyConstraint("schedule_seq"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("schedule_id"),
        sqlite_autoincrement=True,
    )
    _partial("schedule_due", "schedule", ["next_due_us"], "pause_time_us IS NULL AND next_due_us IS NOT NULL")
    op.create_table(
        "firing",
        sa.Column("schedule_seq", Number, nullable=False),
        sa.Column("nominal_us", Number, nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False, comment="FiringOutcome"),
        sa.Column("task_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("fire_time_us", Number, nullable=False, comment="when that was decided"),
        sa.PrimaryKeyConstraint("schedule_seq", "nominal_us"),
        comment="each firing once: what has fired, as long as its task is kept, and what waits in a buffer",
        sqlite_with_rowid=False,
    )
    _partial("firing_buffered", "firing", ["outcome", "schedule_seq", "nominal_us"], "outcome = 3")
    op.add_column("task", sa.Column("schedule_seq", Number, nullable=True, comment="of which it is a firing"))
    op.add_column("task", sa.Column("nominal_us", Number, nullable=True, comment="which firing of that schedule"))
    _partial("task_of_schedule", "task", ["schedule_seq"], "schedule_seq IS NOT NULL AND state < 3")
    if op.get_context().dialect.name == "postgresql":
        for statement in STORAGE:
            op.execute(statement)
