"""The schema's history, under Alembic: brings a database to the version that this server knows, or refuses it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from taskq_server.core.errors import StoreRefused

HEAD = "0001"
_SCRIPTS = Path(__file__).parent / "migrations"


def current(connection: Connection) -> str | None:
    """The version of the schema; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def to_head(connection: Connection) -> None:
    """Upgrades inside the transaction that is open: a crash on the way leaves the version before."""
    found = current(connection)
    if found == HEAD:
        return
    from alembic import command  # slow to import, and needed once
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreRefused(
            f"the database has schema {found}, which this server does not know", "start the newer server that made it"
        )
    command.upgrade(config, HEAD)
