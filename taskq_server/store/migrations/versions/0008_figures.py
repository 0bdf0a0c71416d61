"""Figures of what was done, failures that are alike, and hints of what has changed."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
serves_from = "0001"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
InOrder = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
COUNTS = (
    "enqueued", "leased", "succeeded", "failed", "cancelled", "retried",
    *(f"late_{i}" for i in range(15)), *(f"ran_{i}" for i in range(13)),
)  # fmt: skip

# The row of a minute is updated once a second by each server, that of a group with every failure.
STORAGE = (
    "ALTER TABLE stat SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)",
    "ALTER TABLE failure_group SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)",
)


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=False, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    op.create_table(
        "stat",
        sa.Column("step_seconds", sa.Integer(), nullable=False, comment="60 or 3600"),
        sa.Column("name", InOrder, nullable=False, comment="empty for all together"),
        sa.Column("start_us", Number, nullable=False),
        *(sa.Column(name, sa.Integer(), server_default="0", nullable=False) for name in COUNTS),
        sa.PrimaryKeyConstraint("step_seconds", "name", "start_us"),
        comment="what was done in each minute and hour; late_ and ran_ count by how long it took",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "failure_group",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("name", InOrder, nullable=False),
        sa.Column("error_type", sa.Text(), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False, comment="the message without what changes"),
        sa.Column("last_message", sa.Text(), nullable=False),
        sa.Column("top_frame", sa.Text(), nullable=False),
        sa.Column("failures", Number, nullable=False),
        sa.Column("first_time_us", Number, nullable=False),
        sa.Column("last_time_us", Number, nullable=False),
        sa.Column("last_task_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("processor_names", sa.Text(), nullable=False, comment="JSON array"),
        sa.Column("build_ids", sa.Text(), nullable=False, comment="JSON array"),
        sa.Column(
            "trend", sa.Text(), nullable=False, comment="JSON array of hours since 1970 and how many failed in them"
        ),
        sa.Column("resolve_time_us", Number, nullable=True),
        sa.Column("resolve_note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("fingerprint"),
        comment="failed attempts that are alike, together",
        sqlite_with_rowid=False,
    )
    op.create_index("failure_group_last", "failure_group", ["last_time_us", "fingerprint"], unique=False)
    op.create_table(
        "event",
        sa.Column("event_seq", Number, nullable=False, comment="in the order of the commits"),
        sa.Column("event_time_us", Number, nullable=False),
        sa.Column("topic", sa.SmallInteger(), nullable=False, comment="Topic"),
        sa.Column("changes", Number, nullable=False),
        sa.Column("ids", sa.Text(), nullable=False, comment="JSON array: some of them"),
        sa.PrimaryKeyConstraint("event_seq"),
        comment="hints of what has changed, while somebody watches",
        sqlite_autoincrement=True,
    )
    op.add_column(
        "task",
        sa.Column(
            "failure_group",
            sa.Text(),
            nullable=True,
            comment="of one that is FAILED: the fingerprint of its last failure",
        ),
    )
    # PostgreSQL reads the table once for it, and lets nobody write to it meanwhile: 0.2 s a million tasks.
    _partial("task_failed", "task", ["failure_group", "seq"], "state = 4")
    if op.get_context().dialect.name == "postgresql":
        for statement in STORAGE:
            op.execute(statement)
