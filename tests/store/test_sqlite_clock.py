"""The time of a server on SQLite goes on over a restart, whatever has become of the machine's clock. On PostgreSQL it
is the database's."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from tests.store.conftest import SQLiteFile
from tests.store.given import a_processor, a_task, added, fails_with, hours, leased_ids, running, seconds


@pytest.fixture
def database(sqlite_database: SQLiteFile) -> SQLiteFile:
    return sqlite_database


async def test_time_goes_on_from_where_it_was_though_the_clock_was_set_back(
    database: SQLiteFile, clock: ManualClock
) -> None:
    first = await database.open(clock)
    clock.advance(us=hours(3))
    await running(first, await a_processor(first), a_task())
    await database.close()

    set_back = ManualClock(clock.now_us() - seconds(50))
    again = await database.open(set_back)

    assert set_back.now_us() > clock.now_us() - seconds(1.1)  # it is saved once a second
    (task_id,) = await added(again, a_task())
    assert await leased_ids(again, await a_processor(again)) == [task_id]


async def test_time_goes_on_though_the_commit_that_saved_it_failed(database: SQLiteFile, clock: ManualClock) -> None:
    store = await database.open(clock)
    clock.advance(us=hours(3))
    with pytest.raises(ZeroDivisionError):
        await store.write(fails_with(ZeroDivisionError()), [None])
    await added(store, a_task())
    await database.close()
    set_back = ManualClock(clock.now_us() - seconds(50))
    await database.open(set_back)

    assert set_back.now_us() > clock.now_us() - seconds(1.1)


async def test_a_clock_that_was_hours_ahead_and_was_put_right_is_believed(
    database: SQLiteFile, clock: ManualClock
) -> None:
    first = await database.open(clock)
    clock.advance(us=hours(3))
    await added(first, a_task())
    await database.close()
    right = ManualClock(clock.now_us() - hours(3))
    again = await database.open(right)
    oven = await a_processor(again)

    (task_id,) = await added(again, a_task())

    assert right.now_us() == clock.now_us() - hours(3)
    assert await leased_ids(again, oven) == [task_id]
    await database.close()
    later = ManualClock(right.now_us() - seconds(50))
    await database.open(later)
    assert later.now_us() > right.now_us() - seconds(1.1)  # the right time is the one that is kept now
