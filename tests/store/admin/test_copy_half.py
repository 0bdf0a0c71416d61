"""Half a copy is not to be used, and becomes a whole one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StoreRefused
from taskq_server.store.postgres import admin as postgres_admin
from taskq_server.store.postgres import start as postgres_start
from taskq_server.store.sqlite.store import SQLite
from tests.store.admin.conftest import NewFile
from tests.store.admin.copies import (
    contents,
    copied,
    mark_of,
    opened,
    refused,
    run_sql,
    silent,
)
from tests.store.conftest import RULES
from tests.support.process import ROOT


class PowerLoss(Exception):
    pass


def break_off(doing: str, done: int, total: int) -> None:
    raise PowerLoss


def half_copied(source: str, target: str) -> str:
    with pytest.raises(PowerLoss):
        copied(source, target, break_off)
    return target


def start_on(url: str) -> StoreRefused:
    """The refusal of a server."""
    with pytest.raises(StoreRefused) as caught:
        if url.startswith("sqlite"):
            asyncio.run(SQLite.open(Path(url.removeprefix("sqlite:///")), ManualClock(), RULES, silent))
        else:
            with opened(url).looking() as connection:
                postgres_start.check(connection)
    return caught.value


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_server_starts_on_half_a_copy(queue: str, postgres: str, new_file: NewFile, kind: str) -> None:
    target = half_copied(queue, postgres if kind == "postgres" else new_file())

    def start() -> None:
        refusal = start_on(target)
        assert refusal.exit_code == 78
        assert "half a copy" in refusal.why and "taskq db copy" in refusal.hint

    if kind == "sqlite":
        start()
    else:
        postgres_admin.run(start)
    assert "half a copy" in refused(target, new_file()).why


def test_a_whole_copy_is_found_whole_when_it_is_made_again(queue: str, postgres: str) -> None:
    """It may have been killed before it could say so."""
    lines = copied(queue, postgres)

    assert copied(queue, postgres) == lines


def test_a_whole_copy_that_was_used_since_is_no_target(queue: str, postgres: str) -> None:
    copied(queue, postgres)
    run_sql(postgres, "UPDATE task SET state = 3 WHERE state = 2")

    refusal = refused(queue, postgres)

    assert refusal.exit_code == 78
    assert "not empty" in refusal.why and "used since" in refusal.why
    assert "empty the target" not in refusal.hint
    assert mark_of(postgres) == []


def test_half_a_copy_goes_on_where_it_was(queue: str, postgres: str) -> None:
    half_copied(queue, postgres)
    steps: list[int] = []
    already = sum(len(rows) for rows in contents(postgres).values())

    copied(queue, postgres, lambda doing, done, total: steps.append(done))

    assert 0 < already < steps[0]
    assert contents(queue) == contents(postgres)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = value + 1 WHERE key = 'generation'",
        "DELETE FROM task WHERE seq = 5",
        "UPDATE task SET payload = x'00' WHERE seq = (SELECT max(seq) FROM task)",
        "UPDATE route SET name = 'other' WHERE route_id = (SELECT max(route_id) FROM route)",
    ],
)
def test_half_a_copy_of_another_source_or_of_one_that_was_used_since_is_refused(
    queue: str, postgres: str, change: str
) -> None:
    half_copied(queue, postgres)
    before = contents(postgres)
    run_sql(queue, change)

    refusal = refused(queue, postgres)

    assert refusal.exit_code == 78
    assert "half a copy of another" in refusal.why and "empty the target" in refusal.hint
    assert contents(postgres) == before and mark_of(postgres) != []


def test_a_server_that_was_on_a_postgresql_source_since_is_noticed(
    queue: str, postgres: str, new_file: NewFile
) -> None:
    copied(queue, postgres)
    target = half_copied(postgres, new_file())
    run_sql(
        postgres, "INSERT INTO server (name, start_time_us, alive_until_us) VALUES ('x', 0, 0)", "DELETE FROM server"
    )

    assert "as it was before" in refused(postgres, target).why


def test_a_copy_whose_connections_break_goes_on_when_it_is_made_again(queue: str, postgres: str) -> None:
    ends = iter([1])

    def end_them(*_: object) -> None:
        if next(ends, None):
            name = "application_name LIKE 'taskq/%' AND datname = current_database()"
            run_sql(postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {name}")  # noqa: S608

    with pytest.raises(StoreRefused) as caught:
        copied(queue, postgres, end_them)
    assert caught.value.exit_code == 75

    copied(queue, postgres)
    assert contents(queue) == contents(postgres)


KILL_AT_EVERY_FEW_STATEMENTS = """
import os, signal, sys
from sqlalchemy import Engine, event
from taskq_server.store.copying import ends as copy_ends
from tests.store.admin.copies import copied

copy_ends.CHUNK_ROWS = 30
source, target, step = sys.argv[1], sys.argv[2], int(sys.argv[3])

def in_a_process(kill_at):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0
    def count(*nothing):
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    try:
        copied(source, target)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)

kills = 0
while (code := in_a_process(50 + step * kills)) == -signal.SIGKILL:
    kills += 1
assert code == 0, code
print(kills)
"""


@pytest.mark.parametrize("direction", ["to PostgreSQL", "to SQLite"])
def test_a_copy_that_is_killed_again_and_again_goes_on_until_it_is_whole(
    queue: str,
    postgres: str,
    new_file: NewFile,
    direction: str,
) -> None:
    source, target = queue, postgres
    if direction == "to SQLite":
        copied(queue, postgres)
        source, target = postgres, new_file()
    command = [sys.executable, "-c", KILL_AT_EVERY_FEW_STATEMENTS, source, target, "7"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(ran.stdout) >= 5
    assert contents(queue) == contents(target)
    assert mark_of(target) == []
