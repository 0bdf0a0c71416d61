"""Who may call: API tokens, and whose a session is."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
serves_from = "0001"

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "token",
        sa.Column("token_seq", Number, nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False, comment="the part that is no secret"),
        sa.Column(
            "hash",
            sa.LargeBinary(length=32),
            nullable=False,
            comment="SHA-256 of the whole token, of which nothing else is kept",
        ),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("rights", sa.Text(), nullable=False, comment="JSON array"),
        sa.Column("create_time_us", Number, nullable=False),
        sa.Column("expire_time_us", Number, nullable=True),
        sa.Column("revoke_time_us", Number, nullable=True),
        sa.Column("last_use_time_us", Number, nullable=True, comment="to the minute"),
        sa.PrimaryKeyConstraint("token_seq"),
        sa.UniqueConstraint("token_id"),
    )
    op.add_column(
        "session",
        sa.Column("principal", sa.Text(), server_default=sa.text("''"), nullable=False, comment="who registered it"),
    )
