"""One system set up anew: its store, its server if it has one, its workers; and what is seen of it from outside.

All are looked at in the same way: what it has recorded is read in its store, when a handler was started stands in the
journal that its workers write, and what it costs the kernel has counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from benchmarks import machine, rows
from benchmarks.database import FOLDER, ROOT, SQLiteFile, new_cluster
from benchmarks.peers import redis
from benchmarks.peers.field import Command, InRedis, InSQL, System
from benchmarks.peers.players.play import FIRST, NOTE, notes
from benchmarks.report import Figures
from benchmarks.roles import Role, serving

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
WARM_TASKS = 200
LOOK_SECONDS = 0.02
RUN_SECONDS = 900
STOP_SECONDS = 20
MEMORY_SECONDS = 0.5


class Results(Protocol):
    """What a system has recorded, as its store tells."""

    def count(self) -> int: ...

    def all_recorded(self, tasks: int) -> bool:
        """Asked again and again, once all of them have been enqueued."""
        ...


class RedisResults:
    def __init__(self, server: redis.Redis, how: InRedis) -> None:
        self._server, self._how = server, how

    def count(self) -> int:
        return self._server.count(*self._how.count.split(), of=self._how.database)

    def all_recorded(self, tasks: int) -> bool:
        return self.count() >= tasks


class SQLResults:
    def __init__(self, ask: Callable[[str], Any], how: InSQL) -> None:
        self._ask, self._how = ask, how

    def count(self) -> int:
        return int(self._ask(self._how.count))

    def all_recorded(self, tasks: int) -> bool:
        if self._ask(self._how.left):
            return False
        if (found := self.count()) < tasks:
            raise RuntimeError(f"nothing is left and {found} results are recorded; must be {tasks}")
        return True


@dataclass(frozen=True, slots=True)
class Store:
    """Where a system keeps what it has; with the server, if it has one."""

    url: str
    """What its players and workers connect to."""
    pids: list[int]
    results: Results
    logged_kib: Callable[[], float]
    """What it has written up to now to be durable."""
    know_itself: Callable[[], None] = lambda: None
    """Gathers the statistics that it would have a minute later."""


class Stage:
    """A system that stands ready, without its workers."""

    def __init__(self, system: System, folder: Path, store: Store) -> None:
        self.system = system
        self.results = store.results
        self._store = store
        self._folder = folder
        self._journal = folder / "journal"
        self._journal.touch()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._players: list[Role] = []
        self._python = sys.executable if system.is_ours else str(PEERS_PYTHON)
        self._environment = {
            **os.environ,
            "PEERS_URL": store.url,
            "PEERS_JOURNAL": str(self._journal),
            "PEERS_OPTIONS": json.dumps(system.options),
        }

    def player(self, what: str, **given: Any) -> Role:
        """One that is ready to go."""
        program = self._python, "-m", "benchmarks.peers.players.play", self.system.player
        role = Role(what, program=program, environment=self._environment, **given)
        self._players.append(role)
        return role

    def play(self, what: str, **given: Any) -> dict[str, Any]:
        role = self.player(what, **given)
        role.go()
        return role.answer()

    @contextmanager
    def working(self, *more: Command) -> Iterator[None]:
        """With its workers, and those; warm."""
        self.play("warm", tasks=WARM_TASKS)
        with self.starting(*more):
            self.until(lambda: len(self.starts()) >= WARM_TASKS, "the first tasks were run")
            if not self.system.waiting:  # else something is left, always
                self.until(lambda: self.results.all_recorded(WARM_TASKS), "their results were recorded")
            os.truncate(self._journal, 0)
            yield

    @contextmanager
    def starting(self, *more: Command) -> Iterator[None]:
        """With its workers, and those, as soon as they have been started. A database's planner knows what waits for
        them, as it would a minute later."""
        self._store.know_itself()
        try:
            for command in (*self.system.workers, *more):
                self._start(command)
            yield
        finally:
            for process in self._workers:
                process.terminate()
            for process in self._workers:
                self._end(process)
            self._workers.clear()

    def until(self, is_so: Callable[[], bool], what: str, seconds: float = RUN_SECONDS) -> float:
        """When it was so. RuntimeError when a worker has ended, TimeoutError when it was not in so many seconds."""
        ends_at = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > ends_at:
                raise TimeoutError(f"{self.system.name}: not in {seconds:g} s: {what}\n{self._logs()}")
            if any(process.poll() is not None for process in self._workers):
                raise RuntimeError(f"{self.system.name}: a worker has ended\n{self._logs()}")
            time.sleep(LOOK_SECONDS)
        return time.time()

    def starts(self) -> list[tuple[float, float]]:
        """Of each timed task the instant that it was given, and when its handler was started."""
        return [note for note in notes(self._journal) if note[0] != FIRST]

    def first_start(self) -> float:
        """When the first no-op was started."""
        return min(started for instant, started in notes(self._journal) if instant == FIRST)

    def has_started(self, tasks: int) -> bool:
        """So many timed tasks, where nothing else is noted."""
        return self._journal.stat().st_size >= tasks * NOTE.size

    def forget(self) -> None:
        """All that was started up to now."""
        os.truncate(self._journal, 0)

    def spent(self) -> Figures:
        """By the store, the server and the workers up to now."""
        return {
            "CPU s": sum(machine.cpu_seconds_of_family(pid) for pid in self._all()),
            "log KiB": self._store.logged_kib(),
        }

    @contextmanager
    def peak_memory(self) -> Iterator[Callable[[], float]]:
        """Looks at what they and the players hold, twice a second; asked for the most, it looks once more."""
        most, is_over = 0.0, threading.Event()

        def look() -> None:
            nonlocal most
            pids = self._all() + [player.pid for player in self._players]
            most = max(most, machine.shared_mib(one for pid in pids for one in machine.family(pid)))

        def watch() -> None:
            while not is_over.wait(MEMORY_SECONDS):
                look()

        def asked() -> float:
            look()
            return most

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield asked
        finally:
            is_over.set()
            watcher.join()

    def end_players(self) -> None:
        for player in self._players:
            player.kill()

    def _all(self) -> list[int]:
        return self._store.pids + [process.pid for process in self._workers]

    def _start(self, command: Command) -> None:
        with (self._folder / f"worker{len(self._workers)}.log").open("wb") as log:
            self._workers.append(
                subprocess.Popen(
                    [self._python, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                    env=self._environment,
                    start_new_session=True,  # so that whatever it starts can be ended with it
                )
            )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _logs(self) -> str:
        return "\n".join(log.read_text(errors="replace")[-2000:] for log in sorted(self._folder.glob("worker*.log")))


@contextmanager
def staged(system: System) -> Iterator[Stage]:
    """That system, with a new store."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskq-peers-", dir=FOLDER)))
        stage = Stage(system, folder, _OPENERS[system.store](system, folder, stack))
        stack.callback(stage.end_players)
        if not system.is_ours:
            stage.play("prepare")
        elif system.waiting and system.store == "sqlite":
            stage.play("fill", tasks=system.waiting)
        yield stage


def _on_redis(system: System, folder: Path, stack: ExitStack) -> Store:
    assert isinstance(system.recorded, InRedis)
    server = stack.enter_context(redis.running(folder, **(redis.FSYNC if system.fsync else {})))
    return Store(server.url, [server.pid], RedisResults(server, system.recorded), server.kept_kib)


def _on_postgres(system: System, folder: Path, stack: ExitStack) -> Store:
    assert isinstance(system.recorded, InSQL)
    cluster = stack.enter_context(new_cluster())
    if system.is_ours:
        database = rows.prepare(cluster, "ours", waiting=system.waiting) if system.waiting else cluster.url
        server = stack.enter_context(serving(database))
        url, pids = server.address, [cluster.pid, server.pid]
    else:
        url = database = cluster.make("peer", template="template0")
        pids = [cluster.pid]
    ask = stack.enter_context(_asking(database))
    results = SQLResults(ask, system.recorded)
    return Store(url, pids, results, lambda: cluster.spent()["WAL KiB"], lambda: ask("ANALYZE"))


def _on_sqlite(system: System, folder: Path, stack: ExitStack) -> Store:
    assert isinstance(system.recorded, InSQL)
    file = SQLiteFile(folder)
    server = stack.enter_context(serving(file.url))
    connection = sqlite3.connect(f"file:{file.url.removeprefix('sqlite:///')}?mode=ro", uri=True)
    stack.callback(connection.close)

    def ask(sql: str) -> Any:
        return connection.execute(sql).fetchone()[0]

    results = SQLResults(ask, system.recorded)
    return Store(server.address, [server.pid], results, lambda: machine.written_kib(server.pid))


_OPENERS = {"redis": _on_redis, "postgres": _on_postgres, "sqlite": _on_sqlite}


@contextmanager
def _asking(url: str) -> Iterator[Callable[[str], Any]]:
    """By one connection that stays: to open one costs more than what is asked. It looks into indexes, never through a
    table: fifty times a second, that would be a load."""
    loop = asyncio.new_event_loop()
    connection: Any = loop.run_until_complete(asyncpg.connect(url, server_settings={"enable_seqscan": "off"}))

    def ask(sql: str) -> Any:
        return loop.run_until_complete(connection.fetchval(sql))

    try:
        yield ask
    finally:
        loop.run_until_complete(connection.close())
        loop.close()
