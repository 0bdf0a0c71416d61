"""A server with its schedulers and processors, all in processes of their own, and what each of them has seen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from taskq.v1.scheduler_service_pb2 import NewTask
from tests.support import history, ledger, truth
from tests.support.history import History, Tail, digest
from tests.support.invariants import Seen
from tests.support.ledger import Run
from tests.support.process import ServerProcess
from tests.support.program import Program
from tests.support.raw import ANSWER_SECONDS, RawScheduler, connected
from tests.support.strace import TracedServer
from tests.support.verdict import Verdict, judge
from tests.support.waiting import until


class World:
    """Ends everything that it started, also when a test fails."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str = "",
        servers: int = 1,
        server_urls: Sequence[str] = (),
        trace: str = "",
        inject: Sequence[str] = (),
        **settings: str,
    ) -> None:
        """`server_urls` are by what ways the servers come to the database, where they do not all take the same; with
        `trace`, the system calls to write down, the server runs under strace, which spoils them by `inject`."""
        self.folder = folder
        self.database_url = database_url or f"sqlite:///{folder}/taskq.db"
        self.history_folder = folder / "history"
        self.ledger_folder = folder / "ledger"
        self.history_folder.mkdir()
        self.ledger_folder.mkdir()
        self.trace_file = folder / "strace"
        self.servers = [
            TracedServer(url, self.trace_file, trace, inject, **settings) if trace else ServerProcess(url, **settings)
            for url in server_urls or [self.database_url] * servers
        ]
        self.programs: list[Program] = []
        self._history = History(self.history_folder, "test")

    @property
    def server(self) -> ServerProcess:
        """The first of them, or the only one."""
        return self.servers[0]

    @property
    def address(self) -> str:
        """Of all servers."""
        return ",".join(server.address for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.start()

    def scheduler(self, name: str, **flags: object) -> Program:
        """One that enqueues until it is stopped; not started yet."""
        return self._add("scheduler", name, **flags)

    def processor(self, name: str, **flags: object) -> Program:
        """One that runs tasks until it is stopped; not started yet."""
        return self._add("processor", name, ledger=self.ledger_folder, **flags)

    def raw_processor(self, name: str) -> Program:
        """One that reports late; see raw_program.py."""
        return self._add("raw", name, ledger=self.ledger_folder)

    def _add(self, kind: str, name: str, **flags: object) -> Program:
        given = {"address": self.address, "history": self.history_folder, **flags}
        program = Program(f"tests.support.{kind}_program", name, self.folder, **given)
        self.programs.append(program)
        return program

    def enqueue(self, *tasks: NewTask) -> None:
        """Enqueues in one call, at the first server, and writes it down as a scheduler does."""
        with connected(self.server.address) as channel:
            self.enqueue_by(RawScheduler(channel), *tasks)

    def enqueue_by(self, scheduler: RawScheduler, *tasks: NewTask, timeout: float = ANSWER_SECONDS) -> None:
        """The same by a scheduler of the test's own; raises grpc.RpcError."""
        for task in tasks:
            facts: dict[str, Any] = {"due": time.time(), "priority": task.priority, "name": task.name}
            self._history.write("enqueue", "invoke", task.task_id, payload=digest(task.payload.data), **facts)
        try:
            scheduler.enqueue(*tasks, timeout=timeout)
        except grpc.RpcError:
            for task in tasks:
                self._history.write("enqueue", "info", task.task_id)
            raise
        for task in tasks:
            self._history.write("enqueue", "ok", task.task_id, outcome="CREATED")

    def runs(self, processor: str = "", *, ended: bool = False) -> list[Run]:
        """The runs so far, in all or by one processor."""
        found = ledger.runs_of(history.read(self.ledger_folder))
        return [
            run
            for runs in found.values()
            for run in runs
            if processor in ("", run.processor) and (run.ended is not None or not ended)
        ]

    def wait_for_activity(self, seconds: float = 30) -> None:
        """Returns once a handler has begun or ended since this was called."""
        before = self._ledger_bytes()
        until(lambda: self._ledger_bytes() > before, "handlers run", seconds)

    def wait_until_all_are_heard(self, seconds: float = 30) -> None:
        """Returns once every session has been heard since this was called. Who knows one server only is not heard while
        that is away, and lives no longer than its lease, however often it is killed."""
        before = truth.leases(self.database_url)

        def heard() -> bool:
            now = truth.leases(self.database_url)
            return all(now.get(session, 0) > until_us for session, until_us in before.items())

        until(heard, "a heartbeat of every session", seconds)

    def _ledger_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.ledger_folder.iterdir())

    def tail(self) -> Tail:
        """What schedulers and processors are answered from now on."""
        return Tail(self.history_folder)

    def served_within(self, seconds: float) -> float:
        """How many seconds from now until an enqueue has been answered and a handler has begun. They are those of
        programs that have been started."""
        began = time.time()
        answers, runs = Tail(self.history_folder), Tail(self.ledger_folder)
        until(lambda: _has(answers, "enqueue", "ok"), "an enqueue is answered", seconds)
        until(lambda: _has(runs, ledger.OP, "invoke"), "a handler begins", seconds)
        return time.time() - began

    def drain(self, seconds: float = 60) -> None:
        """Returns once nothing waits and nothing runs; AssertionError when nothing has finished for so long. The
        database is read by this process, which never serves it."""
        while left := truth.unfinished(self.database_url):
            self._wait_for_less(left, seconds)

    def _wait_for_less(self, left: dict[str, int], seconds: float) -> None:
        until(lambda: truth.unfinished(self.database_url) != left, f"another task is finished, of {left}", seconds)

    def seen(self) -> Seen:
        """All that was seen, and the database; once the server has ended."""
        runs = ledger.runs_of(history.read(self.ledger_folder))
        return Seen(history.read(self.history_folder), runs, truth.read(self.database_url))

    def verdict(self, *, floors: Mapping[str, int], **happened: int) -> Verdict:
        """What came of it; once the server has ended."""
        return judge(self.seen(), floors=floors, happened=happened)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self.programs:
            program.kill()
        for server in self.servers:
            server.kill()
            server.log.close()
        self._history.close()


def _has(tail: Tail, op: str, phase: str) -> bool:
    return any((event.op, event.phase) == (op, phase) for event in tail.next())
