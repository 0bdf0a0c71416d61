"""The schema's history, under Alembic: brings a database to the version that this server knows, or refuses it.

A database may be a step ahead of a server, so that it can be upgraded while servers of the version before are at work:
each migration says, as `serves_from`, the oldest version whose servers it leaves able to work.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, inspect, text

from taskq_server.core.errors import StoreRefused

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

log = structlog.get_logger("taskq.store")

HEAD = "0008"
SCRIPTS = Path(__file__).parent / "migrations"

UPGRADING = 0x7461736B71
"""The advisory lock of upgrades of PostgreSQL, so that of several at once the first does it and the others find it
done."""

_LET_SERVERS_PASS = (
    "-- If it ends with a lock timeout, nothing has changed: run it again.\nSET LOCAL lock_timeout = '1s';\n\n"
)
_ONLY_ON = """\
-- Of several upgrades at once the first does it. On a database of another version nothing is changed.
SELECT pg_advisory_xact_lock({lock});

DO $$
DECLARE
    has text;
BEGIN
    IF to_regclass('alembic_version') IS NOT NULL THEN
        SELECT version_num INTO has FROM alembic_version;
    END IF;
    IF coalesce(has, 'none') <> '{version}' THEN
        RAISE EXCEPTION 'this is for schema {version}; the database has %', coalesce(has, 'none')
            USING HINT = 'print it again with taskq db sql';
    END IF;
END $$;

"""
_SAVE_SERVES_FROM = text(
    "INSERT INTO meta (key, value) VALUES ('serves_from', :version) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


def current(connection: Connection) -> str | None:
    """The version of the schema; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def serves(connection: Connection, found: str | None) -> bool:
    """Whether this server can work on a schema of version `found`; StoreRefused when it is too new for it."""
    if found is None or found <= HEAD:
        return found == HEAD
    if _serves_from(connection) > HEAD:
        raise StoreRefused(
            f"the database has schema {found}, which this server does not know", "start the newer server that made it"
        )
    log.warning("the database is newer than this server; upgrade the server soon", schema=found, knows=HEAD)
    return True


def _serves_from(connection: Connection) -> str:
    """The oldest version whose servers can work on the schema; after all others when that is not said."""
    oldest = connection.execute(text("SELECT value FROM meta WHERE key = 'serves_from'")).scalar()
    return "unknown" if oldest is None else str(oldest)


def standing(connection: Connection, found: str | None) -> str:
    """What a version is to this server, in a word."""
    if found == HEAD:
        return "head"
    if found is None:
        return "empty"
    if found < HEAD:
        return "older"
    return "newer" if _serves_from(connection) <= HEAD else "unknown"


def must_be_head(connection: Connection) -> None:
    """Raises StoreRefused for every other schema, even one on which this server could work."""
    found = current(connection)
    if found != HEAD:
        serves(connection, found)
        newer = found is not None and found > HEAD
        raise StoreRefused(
            "the database has no tables yet" if found is None else f"the database has schema {found}; must be {HEAD}",
            "upgrade this program" if newer else "run `taskq db upgrade` on it",
        )


def to_head(connection: Connection, scripts: Path = SCRIPTS, head: str = HEAD) -> None:
    """Upgrades inside the transaction that is open: a crash on the way leaves the version before."""
    found = current(connection)
    if found == head:
        return
    config, history = _history(scripts)
    config.attributes["connection"] = connection
    if found is not None and found not in {script.revision for script in history.walk_revisions()}:
        serves(connection, found)
        return
    from alembic import command

    command.upgrade(config, head)
    connection.execute(_SAVE_SERVES_FROM, {"version": _serves_from_after(history, head)})


def sql(found: str | None) -> str:
    """What `to_head` does to a PostgreSQL database of version `found`, as one transaction for psql."""
    from alembic import command

    config, history = _history(SCRIPTS)
    known = [script.revision for script in history.walk_revisions()]
    if found is not None and found not in known:
        raise StoreRefused(f"{found!r} is no version", f"must be none, or of {', '.join(sorted(known))}", 2)
    if found == HEAD:
        return ""
    config.output_buffer = written = io.StringIO()
    command.upgrade(config, f"{found or 'base'}:{HEAD}", sql=True)
    save = _SAVE_SERVES_FROM.bindparams(version=_serves_from_after(history, HEAD))
    saved = save.compile(compile_kwargs={"literal_binds": True})
    guard = _ONLY_ON.format(lock=UPGRADING, version=found or "none")
    return f"BEGIN;\n\n{_LET_SERVERS_PASS}{guard}{written.getvalue()}{saved};\n\nCOMMIT;\n"


def _history(scripts: Path) -> tuple[Config, ScriptDirectory]:
    from alembic.config import Config  # slow to import, and needed once
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(scripts))
    return config, ScriptDirectory.from_config(config)


def _serves_from_after(history: ScriptDirectory, version: str) -> str:
    return str(getattr(history.get_revision(version).module, "serves_from", version))
