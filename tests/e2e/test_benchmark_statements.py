"""How many statements a server has its database run is counted as the database sees it."""

from __future__ import annotations

import pytest

from benchmarks.database import opened
from benchmarks.statements import LOGGED, counted, of_log
from scheduler_client.sync import Scheduler


@pytest.mark.parametrize(("kind", "settings"), [("sqlite", {}), ("postgres", LOGGED)])
def test_each_statement_of_an_enqueue_is_counted(kind: str, settings: dict[str, str]) -> None:
    with opened(kind, **settings) as database:
        url = database.make("counted")
        with counted(database, url) as (server, statements), Scheduler(server.address) as scheduler:
            started = statements.words()
            scheduler.enqueue("cook")
            words = statements.words()[len(started) :]
            database.ask("SELECT 1", of="counted")  # not the server's
            statements.skip()
            after = statements.words()
    assert words.count("INSERT") >= 2  # a route, a task
    assert "BEGIN" in words and "COMMIT" in words
    assert len(after) < len(words)


def test_only_the_servers_own_lines_of_a_log_are_statements() -> None:
    log = """\
taskq/0.1.0 host:12|LOG:  statement: BEGIN;
taskq/0.1.0 host:12|LOG:  execute __asyncpg_stmt_4__: INSERT INTO task (seq)
\tSELECT seq FROM given
taskq/0.1.0 host:12|DETAIL:  Parameters: $1 = 'taskq/|LOG:  statement: X'
taskq/0.1.0 host:12|LOG:  statement: COMMIT;
taskq/0.1.0 host:12|LOG:  could not receive data from client
psql|LOG:  statement: SELECT 1;
|LOG:  checkpoint starting: time
"""
    assert of_log(log) == ["BEGIN", "INSERT", "COMMIT"]
