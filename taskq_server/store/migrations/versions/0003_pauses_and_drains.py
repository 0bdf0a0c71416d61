"""What an administrator says: a capability is paused, a processor is drained."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
serves_from = "0001"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "pause",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("pause_time_us", Number, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        comment="capabilities of which nothing is dispatched",
        sqlite_with_rowid=False,
    )
    op.add_column("session", sa.Column("drain_time_us", Number, nullable=True, comment="set by an administrator"))
    op.add_column("session", sa.Column("drain_reason", sa.Text(), nullable=True))
