"""Plans are kept for a moment, and never while much changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from taskq_server.store.postgres import plans
from taskq_server.store.postgres.engine import engine_of
from tests.store.conftest import PostgresDatabase

KEPT = "SELECT name, statement FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1%'"


@pytest.fixture
async def connection(postgres_database: PostgresDatabase) -> AsyncIterator[AsyncConnection]:
    engine = engine_of(postgres_database.url)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def names(connection: AsyncConnection) -> set[str]:
    """Of the plans that PostgreSQL keeps for the statement of these tests."""
    return {row.name for row in await connection.exec_driver_sql(KEPT)}


async def ask(connection: AsyncConnection) -> Any:
    return (await connection.exec_driver_sql("SELECT $1::bigint + 1", (1,))).scalar_one()


async def driver_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def test_a_statement_that_is_said_again_at_once_is_not_planned_again(connection: AsyncConnection) -> None:
    assert await ask(connection) == 2
    first = await names(connection)
    assert await ask(connection) == 2

    assert len(first) == 1
    assert await names(connection) == first


async def test_a_plan_is_given_up_after_a_moment(connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(connection)
    assert len(await names(connection)) == 1

    monkeypatch.setattr(plans, "KEPT_SECONDS", 0.0)

    assert await names(connection) == set()


async def test_plans_are_given_up_when_much_has_changed(connection: AsyncConnection) -> None:
    await ask(connection)
    first = await names(connection)
    driver = await driver_of(connection)

    driver.changed(plans.MOST_CHANGED)
    await ask(connection)
    assert await names(connection) == first
    driver.changed(1)
    await ask(connection)
    assert await names(connection) != first


async def test_what_is_given_up_is_no_longer_kept_by_postgres_either(connection: AsyncConnection) -> None:
    driver = await driver_of(connection)
    for _ in range(5):
        await ask(connection)
        driver.forget_plans()

    await ask(connection)
    assert len(await names(connection)) <= 2
