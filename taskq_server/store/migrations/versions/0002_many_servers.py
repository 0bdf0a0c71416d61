"""Several servers on one database: which of them may push to a session, and what they must tell each other."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
serves_from = "0001"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# A row that is updated leaves its old version behind: room for the new one on the same page, and an autovacuum that
# follows the number of dead rows, not the size of the table. To compress a payload costs more than the bytes it saves.
STORAGE = (
    "ALTER TABLE task SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_scale_factor = 0.05)",
    "ALTER TABLE session SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE signal SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
    "ALTER TABLE task ALTER COLUMN payload SET STORAGE EXTERNAL",
    "ALTER TABLE task ALTER COLUMN result SET STORAGE EXTERNAL",
    "ALTER TABLE task ALTER COLUMN checkpoint SET STORAGE EXTERNAL",
)


def upgrade() -> None:
    op.add_column(
        "session",
        sa.Column("server_seq", Number, server_default="1", nullable=False, comment="the server that may push to it"),
    )
    op.drop_index("session_alive", "session")
    op.create_index(
        "session_alive",
        "session",
        ["session_seq"],
        unique=False,
        sqlite_where=sa.text("end_time_us IS NULL"),
        postgresql_where=sa.text("end_time_us IS NULL"),
    )
    op.create_table(
        "server",
        sa.Column("server_seq", Number, nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="host and process id"),
        sa.Column("start_time_us", Number, nullable=False),
        sa.Column("alive_until_us", Number, nullable=False),
        sa.PrimaryKeyConstraint("server_seq"),
        comment="the servers on this database; on SQLite there is one, number 1, and no row",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "signal",
        sa.Column("signal_seq", Number, nullable=False),
        sa.Column("server_seq", Number, nullable=False, comment="whom it is for"),
        sa.Column("session_seq", Number, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False, comment="SignalKind"),
        sa.Column("task_id", sa.LargeBinary(length=16), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("signal_seq"),
        comment="what a server must be told of its sessions that another has changed; deleted when heard",
        sqlite_autoincrement=True,
    )
    op.create_index("signal_server", "signal", ["server_seq", "signal_seq"], unique=False)
    if op.get_context().dialect.name == "postgresql":
        for statement in STORAGE:
            op.execute(statement)
