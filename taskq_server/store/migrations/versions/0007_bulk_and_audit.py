"""The same done to many tasks, and who has changed what."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
serves_from = "0001"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Whole tables of rows that are never updated grow to a size at which the usual shares of them are many.
STORAGE = (
    "ALTER TABLE audit SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)",
    "ALTER TABLE bulk_operation SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, "
    "autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE bulk_operation ALTER COLUMN payload SET STORAGE EXTERNAL",
)


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("audit_seq", Number, nullable=False),
        sa.Column("change_time_us", Number, nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("source", sa.SmallInteger(), nullable=False, comment="Source"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target_kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False, comment="JSON object; empty: there was none"),
        sa.Column("after", sa.Text(), nullable=False, comment="JSON object; empty: there is none"),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("audit_seq"),
        comment="who has changed what; each in the transaction of its change",
        sqlite_autoincrement=True,
    )
    op.create_index("audit_time", "audit", ["change_time_us", "audit_seq"], unique=False)
    op.create_index("audit_target", "audit", ["target", "change_time_us", "audit_seq"], unique=False)
    op.create_index("audit_principal", "audit", ["principal", "change_time_us", "audit_seq"], unique=False)
    op.create_index("audit_kind", "audit", ["target_kind", "change_time_us", "audit_seq"], unique=False)
    op.create_table(
        "bulk_operation",
        sa.Column("operation_seq", Number, nullable=False),
        sa.Column("operation_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column(
            "content_hash", sa.LargeBinary(length=16), nullable=False, comment="tells a retried start from a conflict"
        ),
        sa.Column("state", sa.SmallInteger(), nullable=False, comment="OperationState"),
        sa.Column("kind", sa.SmallInteger(), nullable=False, comment="ActionKind"),
        sa.Column("due_time_us", Number, nullable=True, comment="of RESCHEDULE: either this or the next"),
        sa.Column("delay_us", Number, nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=True, comment="of REPRIORITISE"),
        sa.Column("payload", sa.LargeBinary(), nullable=True, comment="of RERUN, until the operation has ended"),
        sa.Column("content_type", sa.Text(), nullable=True, comment="NULL: tasks run again as they are"),
        sa.Column("payload_metadata", sa.Text(), nullable=True, comment="JSON object"),
        sa.Column("filter", sa.Text(), nullable=False, comment="empty: those of task_ids"),
        sa.Column("task_ids", sa.LargeBinary(), nullable=True, comment="16 bytes each"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("max_tasks", Number, nullable=False, comment="0: no limit"),
        sa.Column("start_time_us", Number, nullable=False),
        sa.Column("end_time_us", Number, nullable=True),
        sa.Column("matched", Number, nullable=False),
        sa.Column("matched_is_partial", sa.SmallInteger(), nullable=False, comment="1: as many, or more"),
        sa.Column("place", Number, nullable=False, comment="what comes before is left: a seq, or a place in task_ids"),
        sa.Column("done", Number, server_default="0", nullable=False),
        sa.Column("skipped", Number, server_default="0", nullable=False),
        sa.Column("skipped_samples", sa.Text(), server_default="[]", nullable=False, comment="JSON array"),
        sa.Column("server_seq", Number, nullable=False, comment="the server that works on it"),
        sa.Column("work_time_us", Number, nullable=False, comment="of its last batch"),
        sa.PrimaryKeyConstraint("operation_seq"),
        sa.UniqueConstraint("operation_id"),
        sqlite_autoincrement=True,
    )
    running = sa.text("state = 1")
    op.create_index(
        "bulk_operation_running",
        "bulk_operation",
        ["operation_seq"],
        unique=False,
        sqlite_where=running,
        postgresql_where=running,
    )
    if op.get_context().dialect.name == "postgresql":
        for statement in STORAGE:
            op.execute(statement)
