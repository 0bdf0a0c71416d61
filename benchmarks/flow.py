"""Tasks that flow through one server or several: how many a second, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks import machine, report
from benchmarks.database import Database
from benchmarks.report import Figures
from benchmarks.roles import Role, Server, all_registered, done, until

PER_SECOND = 500
_RUNNING = "SELECT EXISTS (SELECT 1 FROM task WHERE state = 2)"


def flow(
    database: Database,
    servers: Sequence[Server],
    tasks: int,
    processors: int = 1,
    names: int = 1,
    payload_bytes: int | None = None,
    of: str = "bench",
) -> Figures:
    """At each server one producer and so many processors, which can run all names.

    tasks/s       from the first enqueue to the start of the last handler
    lifecycle/s   from the first enqueue until no task is running any more: to the last accepted result
    CPU           seconds per 1,000 tasks
    """
    each = tasks // len(servers)
    many = each * len(servers)
    enqueued: dict[str, Any] = {"tasks": each, "names": names, "payload_bytes": payload_bytes}
    producing = [Role("produce", server.address, **enqueued) for server in servers]
    processing = [Role("process", server.address, processors=processors, names=names) for server in servers]
    for role in processing:
        role.go()
    until(lambda: all_registered(processing), processing)  # whose time does not count
    roles = [*producing, *processing]
    before = _spent(database, servers, processing)
    for role in producing:
        role.go()
    until(lambda: done(processing) >= many, roles)
    until(lambda: not database.ask(_RUNNING, of=of), roles)
    ended = time.time()
    costs = {name: now - before[name] for name, now in _spent(database, servers, processing).items()}
    for role in processing:
        role.stop()
    produced, processed = ([role.answer() for role in roles] for roles in (producing, processing))
    costs["clients CPU"] += sum(answer["cpu_seconds"] for answer in produced)
    started = min(answer["started"] for answer in produced)
    return {
        "tasks/s": many / (max(answer["last"] for answer in processed) - started),
        "lifecycle/s": many / (ended - started),
        **{name: cost * 1000 / many for name, cost in costs.items()},
    }


def _spent(database: Database, servers: Sequence[Server], processing: Sequence[Role]) -> Figures:
    return {**spent(database, servers), "clients CPU": sum(role.cpu_seconds() for role in processing)}


def spent(database: Database, servers: Sequence[Server]) -> Figures:
    """Seconds of CPU up to now: of the servers, and of a database that has processes of its own."""
    own = sum(machine.cpu_seconds(server.pid) for server in servers)
    others = {name.removesuffix(" s"): cost for name, cost in database.spent().items() if name.endswith("CPU s")}
    return {"servers CPU": own, **others}


def late(server: Server, tasks: int, per_second: int = PER_SECOND, **given: Any) -> Figures:
    """Milliseconds from due to the start of the handler, for so many tasks a second that are due at given instants;
    what else is `given` is said in `roles.time_later`."""
    timer = Role("time_later", server.address, tasks=tasks, per_second=per_second, **given)
    timer.go()
    median, worst = report.percentiles_ms(timer.answer()["seconds"])
    return {"late p50 ms": median, "late p99 ms": worst}
