"""`taskq db`: what an operator does to a database: its schema, its fitness, its way into another database.

Data goes to stdout, all else to stderr. Exit codes: 0 done; 1 `check` found that an upgrade is needed; 2 wrong usage;
65 a row cannot be copied, or a copy differs from its source; 70 a fault of this program; 74 the database or its disk
fails; 75 it is in use or cannot be reached now; 78 it must not be used; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from taskq_server import logs, values
from taskq_server.config import Config
from taskq_server.core.errors import StoreRefused
from taskq_server.settings import Parser, WrongSettings, add_flags, settle
from taskq_server.store import migrate
from taskq_server.store.copying import copy as copying
from taskq_server.store.copying import mark as copy_mark
from taskq_server.store.sqlite.admin import SQLiteFile
from taskq_server.values import shown

if TYPE_CHECKING:
    from taskq_server.store.postgres.admin import PostgresDatabase

UPGRADE_NEEDED = 1
WRONG_USAGE = 2
OUR_FAULT = 70
INTERRUPTED = 130

OF_ALL = ["pgbouncer", "network_file_system", "log_level", "log_format"]


class Verb(Protocol):
    def __call__(self, options: argparse.Namespace, settings: Config) -> int: ...


def upgrade(options: argparse.Namespace, settings: Config) -> int:
    """Bring the schema to the version of this program. Servers may be at work on PostgreSQL meanwhile."""
    before, after = database_at(settings.database_url, settings).upgrade(_say)
    print(f"{before or 'none'} -> {after}")
    return 0


def current(options: argparse.Namespace, settings: Config) -> int:
    """Print the version of the schema, and what it is to this program: empty, older, head, newer or unknown."""
    with database_at(settings.database_url, settings).looking() as connection:
        found = migrate.current(connection)
        print(found or "none", migrate.standing(connection, found))
    return 0


def check(options: argparse.Namespace, settings: Config) -> int:
    """Say by the exit code whether a server of this version can start on the database: 0 yes, 1 after an upgrade."""
    database = database_at(settings.database_url, settings)
    with database.looking() as connection:
        found = migrate.current(connection)
        print(f"{'schema':20}{found or 'none'} {migrate.standing(connection, found)}")
        for name, value in database.examined(connection, _say):
            print(f"{name:20}{value}")
        if not migrate.serves(connection, found):
            _say(f"an upgrade to {migrate.HEAD} is needed: run `taskq db upgrade`")
            return UPGRADE_NEEDED
        copy_mark.refuse_half_copied(connection)
    return 0


def backup(options: argparse.Namespace, settings: Config) -> int:
    """Copy a SQLite file into FILE, as it is at one moment; a server may be at work on it meanwhile."""
    target = Path(options.file).absolute()
    database_at(settings.database_url, settings).backup(target)
    print(f"{target} {target.stat().st_size} bytes")
    return 0


def sql(options: argparse.Namespace, settings: Config) -> int:
    """Print what `upgrade` would do to a PostgreSQL database, as SQL for whoever alone may change its tables."""
    if options.since is not None:
        found = None if options.since == "none" else options.since
    elif settings.database_url.startswith("sqlite:///"):
        raise StoreRefused("a SQLite file is upgraded by its server", "name a PostgreSQL database", WRONG_USAGE)
    else:
        with database_at(settings.database_url, settings).looking() as connection:
            found = migrate.current(connection)
            if migrate.serves(connection, found):
                return 0
    print(migrate.sql(found), end="")
    return 0


def copy(options: argparse.Namespace, settings: Config) -> int:
    """Copy all tasks with their history into another, empty database. Run again, it goes on where it broke off."""
    source, target = (database_at(url, settings) for url in (options.source, options.target))
    progress = _progress if sys.stderr.isatty() else lambda doing, done, total: None
    with source.source() as one, target.target(_say) as other:
        copied = copying.copy(one, other, progress)
    print(f"{'table':10}{'state':12}{'rows':>12}  checksum, the same in both")
    for line in copied:
        print(f"{line.table:10}{line.state:12}{line.rows:12}  {line.checksum}")
    _say(f"copied. Start no server on {shown(options.source)} again: it would run the same tasks once more")
    return 0


VERBS: dict[str, Verb] = {
    "upgrade": upgrade,
    "current": current,
    "check": check,
    "sql": sql,
    "backup": backup,
    "copy": copy,
}


def main(arguments: Sequence[str]) -> int:
    try:
        options = _parser().parse_args(arguments)
        names = OF_ALL if options.verb == "copy" else ["database_url", *OF_ALL]
        settings = settle(vars(options), names)
        urls = _two_databases(options) if options.verb == "copy" else [settings.database_url]
    except WrongSettings as wrong:
        _say(str(wrong))
        return WRONG_USAGE
    logs.configure(settings)
    try:
        return runner(urls)(partial(VERBS[options.verb], options, settings))
    except StoreRefused as refused:
        _say(str(refused))
        return refused.exit_code
    except KeyboardInterrupt:
        left = "if FILE is there, it is whole" if options.verb == "backup" else "the same command goes on"
        _say(f"interrupted; {left}")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - 1, which Python would exit with, has another meaning here
        traceback.print_exc()
        return OUR_FAULT


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="taskq db", description="Look after a database of taskq.", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=" | ".join(VERBS))
    for name, verb in VERBS.items():
        its = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__, allow_abbrev=False)
        if verb is copy:
            its.add_argument(
                "source", metavar="SOURCE", help="sqlite:///path or postgresql://...; no server may use it"
            )
            its.add_argument("target", metavar="TARGET", help="the same; must be empty, and is made or upgraded first")
        if verb is backup:
            its.add_argument("file", metavar="FILE", help="must not be there yet")
        if verb is sql:
            its.add_argument("--since", metavar="VERSION", help="that it has, or `none`, so that nobody looks at it")
        add_flags(its, OF_ALL if verb is copy else ["database_url", *OF_ALL])
    return parser


def _two_databases(options: argparse.Namespace) -> list[str]:
    urls = {"SOURCE": options.source, "TARGET": options.target}
    faults = []
    for name, url in urls.items():
        try:
            values.database(url)
        except ValueError as rule:
            faults.append(f"{name} {rule}")
    if options.source == options.target:
        faults.append("SOURCE and TARGET must be two databases")
    if faults:
        raise WrongSettings(faults)
    return list(urls.values())


def database_at(url: str, settings: Config) -> SQLiteFile | PostgresDatabase:
    if url.startswith("sqlite:///"):
        return SQLiteFile(Path(url.removeprefix("sqlite:///")), allow_network=settings.network_file_system)
    from taskq_server.store.postgres.admin import PostgresDatabase

    return PostgresDatabase(url, pooler=settings.pgbouncer)


def runner(urls: Sequence[str]) -> Callable[[Callable[[], int]], int]:
    if all(url.startswith("sqlite:///") for url in urls):
        return lambda work: work()
    try:
        from taskq_server.store.postgres import admin as postgres_admin
    except ImportError as error:
        raise StoreRefused(f"PostgreSQL needs {error.name}", "pip install 'taskq[postgres]'") from error
    return postgres_admin.run


def _progress(doing: str, done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{doing}: {done:,} of {total:,} rows{end}", end="", file=sys.stderr, flush=True)


def _say(what: str) -> None:
    print(f"taskq db: {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
