"""The first tables: tasks, attempts, sessions, routes, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("task_seq", Number, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("session_seq", Number, nullable=False),
        sa.Column("processor_name", sa.Text(), nullable=False),
        sa.Column("lease_time_us", Number, nullable=False),
        sa.Column("end_time_us", Number, nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False, comment="Outcome"),
        sa.Column("failure", sa.Text(), nullable=True, comment="JSON array"),
        sa.PrimaryKeyConstraint("task_seq", "attempt"),
        comment="attempts after which the task went on; the one that finished it stands in task",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dedup",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("task_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("hold", sa.SmallInteger(), nullable=False, comment="DedupHold"),
        sa.Column("hold_until_us", Number, nullable=True, comment="of TTL and BOTH"),
        sa.PrimaryKeyConstraint("scope", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "dedup_ending",
        "dedup",
        ["hold_until_us"],
        unique=False,
        sqlite_where=sa.text("hold_until_us IS NOT NULL"),
        postgresql_where=sa.text("hold_until_us IS NOT NULL"),
    )
    op.create_index("dedup_task", "dedup", ["task_id"], unique=False)
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "route",
        sa.Column("route_id", Number, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("requires", sa.Text(), nullable=False, comment="JSON array, canonical"),
        sa.PrimaryKeyConstraint("route_id"),
        sa.UniqueConstraint("name", "requires", name="route_name_requires"),
    )
    op.create_table(
        "session",
        sa.Column("session_seq", Number, nullable=False),
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("processor_name", sa.Text(), nullable=False),
        sa.Column(
            "capabilities",
            sa.Text(),
            nullable=False,
            comment="JSON object: name to max_in_flight, 0 for no limit of its own",
        ),
        sa.Column("labels", sa.Text(), nullable=False, comment="JSON object"),
        sa.Column("max_in_flight", sa.Integer(), nullable=False),
        sa.Column("build_id", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("register_time_us", Number, nullable=False),
        sa.Column("alive_until_us", Number, nullable=False),
        sa.Column("end_time_us", Number, nullable=True),
        sa.PrimaryKeyConstraint("session_seq"),
        sa.UniqueConstraint("session_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "session_alive",
        "session",
        ["alive_until_us"],
        unique=False,
        sqlite_where=sa.text("end_time_us IS NULL"),
        postgresql_where=sa.text("end_time_us IS NULL"),
    )
    op.create_index(
        "session_ended",
        "session",
        ["end_time_us"],
        unique=False,
        sqlite_where=sa.text("end_time_us IS NOT NULL"),
        postgresql_where=sa.text("end_time_us IS NOT NULL"),
    )
    op.create_table(
        "task",
        sa.Column("seq", Number, nullable=False, comment="the order of enqueueing"),
        sa.Column("task_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column(
            "content_hash", sa.LargeBinary(length=16), nullable=False, comment="tells a retried enqueue from a conflict"
        ),
        sa.Column("route_id", Number, nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False, comment="TaskState"),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("due_time_us", Number, nullable=False),
        sa.Column("enqueue_time_us", Number, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("payload_crc", Number, nullable=True, comment="CRC-32 of payload: a corrupt one is never delivered"),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("payload_metadata", sa.Text(), nullable=True, comment="JSON object"),
        sa.Column("headers", sa.Text(), nullable=True, comment="JSON object"),
        sa.Column("tags", sa.Text(), nullable=True, comment="JSON array"),
        sa.Column("retry_policy", sa.Text(), nullable=True, comment="JSON array; NULL is the default"),
        sa.Column("run_timeout_us", Number, nullable=True),
        sa.Column("expire_time_us", Number, nullable=True),
        sa.Column("retention_us", Number, nullable=True, comment="NULL is the server's"),
        sa.Column("dedup_key", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost_leases", sa.Integer(), server_default="0", nullable=False),
        sa.Column("session_seq", Number, nullable=True),
        sa.Column("processor_name", sa.Text(), nullable=True),
        sa.Column("lease_time_us", Number, nullable=True),
        sa.Column("run_deadline_us", Number, nullable=True, comment="set while it runs"),
        sa.Column("last_failure", sa.Text(), nullable=True, comment="JSON array"),
        sa.Column("progress_fraction", sa.Float(), nullable=True),
        sa.Column("progress_message", sa.Text(), nullable=True),
        sa.Column("checkpoint", sa.LargeBinary(), nullable=True),
        sa.Column("checkpoint_type", sa.Text(), nullable=True),
        sa.Column("checkpoint_metadata", sa.Text(), nullable=True),
        sa.Column(
            "last_outcome",
            sa.SmallInteger(),
            nullable=True,
            comment="Outcome of the attempt that finished it; NULL when none did",
        ),
        sa.Column("finish_time_us", Number, nullable=True),
        sa.Column("prune_time_us", Number, nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("result_type", sa.Text(), nullable=True),
        sa.Column("result_metadata", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index(
        "task_due",
        "task",
        ["route_id", "priority", "due_time_us", "seq"],
        unique=False,
        sqlite_where=sa.text("state = 1"),
        postgresql_where=sa.text("state = 1"),
    )
    op.create_index(
        "task_expiring",
        "task",
        ["expire_time_us"],
        unique=False,
        sqlite_where=sa.text("state = 1 AND expire_time_us IS NOT NULL AND failed_attempts = 0"),
        postgresql_where=sa.text("state = 1 AND expire_time_us IS NOT NULL AND failed_attempts = 0"),
    )
    op.create_index("task_id", "task", ["task_id"], unique=True)
    op.create_index(
        "task_prunable",
        "task",
        ["prune_time_us"],
        unique=False,
        sqlite_where=sa.text("prune_time_us IS NOT NULL"),
        postgresql_where=sa.text("prune_time_us IS NOT NULL"),
    )
    op.create_index(
        "task_run_deadline",
        "task",
        ["run_deadline_us"],
        unique=False,
        sqlite_where=sa.text("state = 2 AND run_deadline_us IS NOT NULL"),
        postgresql_where=sa.text("state = 2 AND run_deadline_us IS NOT NULL"),
    )
    op.create_index(
        "task_running",
        "task",
        ["session_seq"],
        unique=False,
        sqlite_where=sa.text("state = 2"),
        postgresql_where=sa.text("state = 2"),
    )
