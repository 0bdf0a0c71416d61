"""The version that comes after this one: it knows one migration more, which leaves servers of this one able to work."""

from __future__ import annotations

import shutil
from pathlib import Path

from taskq_server.store import migrate
from tests.support.process import ROOT

HEAD = "9999"
MIGRATION = '''
"""One more column, with an index, and one more table."""
import sqlalchemy as sa
from alembic import op

revision = {head!r}
down_revision = {before!r}
serves_from = {before!r}

def upgrade():
    op.add_column("task", sa.Column("colour", sa.Text()))
    op.create_index("task_colour", "task", ["colour"])
    op.create_table("paint", sa.Column("paint_id", sa.Integer(), primary_key=True))
'''


def add_migration(scripts: Path) -> Path:
    """Writes it into a folder of migrations; answers the file."""
    path = scripts / "versions" / f"{HEAD}_next.py"
    path.write_text(MIGRATION.format(head=HEAD, before=migrate.HEAD))
    return path


def make(folder: Path) -> Path:
    """The whole program, as a copy in `folder`; answers where `python -m taskq_server` must be started to run it."""
    package = folder / "taskq_server"
    shutil.copytree(ROOT / "taskq_server", package, ignore=shutil.ignore_patterns("__pycache__"))
    add_migration(package / "store" / "migrations")
    change(package / "store" / "migrate.py", f'HEAD = "{migrate.HEAD}"', f'HEAD = "{HEAD}"')
    return folder


def change(path: Path, old: str, new: str) -> None:
    """Replaces what must stand in that file once."""
    source = path.read_text()
    assert source.count(old) == 1, f"{old!r} does not stand once in {path}"
    path.write_text(source.replace(old, new))
