"""Tasks as administrators look for them: those that failed, those that were cancelled, and reruns."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
serves_from = "0001"


def _partial(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "task", columns, unique=False, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    rerun_of = sa.Column(
        "rerun_of", sa.LargeBinary(length=16), nullable=True, comment="the task that it repeats with another payload"
    )
    op.add_column("task", rerun_of)
    # PostgreSQL reads the table once for each, and lets nobody write to it meanwhile: 0.2 s a million tasks.
    _partial("task_failed_seq", ["seq"], "state = 4")
    _partial("task_cancelled_seq", ["seq"], "state = 5")
    _partial("task_rerun", ["rerun_of"], "rerun_of IS NOT NULL")
