"""One bad row never blocks the rest, and never reaches a processor (trust C9, P3)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import CORRUPT, EndStatus, TaskState
from taskq_server.store.store import Store
from tests.store.given import (
    a_processor,
    a_task,
    added,
    failed,
    lease,
    leased_ids,
    living_sessions,
    rows,
    running,
    seconds,
    statuses,
    succeeded,
    tamper,
    the_task,
)

BAD = {
    "a flipped bit in the payload": "payload = x'706173746b'",
    "a shorter payload": "payload = x'70'",
    "no payload": "payload = NULL",
    "a payload that is text": "payload = 'pasta'",
    "a payload that is a number": "payload = 7",
    "no checksum": "payload_crc = NULL",
    "headers that are no JSON": "headers = '{'",
    "headers that are not UTF-8": "headers = CAST(x'7b22ff' AS TEXT)",
    "headers that are a list": "headers = '[1]'",
    "a content type that is not UTF-8": "content_type = CAST(x'ff' AS TEXT)",
    "tags that are no JSON": "tags = 'vip'",
    "tags that are a number": "tags = '7'",
    "metadata that is no JSON": "payload_metadata = ':'",
    "a retry policy that is no JSON": "retry_policy = '['",
    "a retry policy that is too short": "retry_policy = '[1]'",
    "a retry policy with an unknown jitter": "retry_policy = '[5, 1, 2.0, 1, 77, []]'",
    "a last failure that is no JSON": "last_failure = '?'",
    "a last failure that is too long": "last_failure = '[1,2,3,4,5,6,7]'",
    "a checkpoint whose metadata is no JSON": "checkpoint = x'00', checkpoint_metadata = '{'",
    "a key that is not UTF-8": "dedup_key = CAST(x'ff' AS TEXT)",
}


UTF8_ALONE = {name for name in BAD if "UTF-8" in name}
BYTES_ALONE = {"a payload that is text", "a payload that is a number"}
TYPES_FORBID = {"sqlite": set(), "postgres": UTF8_ALONE | BYTES_ALONE}
"""What cannot stand in a table: PostgreSQL's text is UTF-8, and bytes are bytes."""


def of(database: str, damage: str) -> str:
    """As the database spells it."""
    return damage if database == "sqlite" else re.sub(r"x'([0-9a-f]*)'", r"'\\x\1'::bytea", damage)


def on_each_database(damages: Iterable[str]) -> pytest.MarkDecorator:
    """A test of `damage` on `database`, for each that its tables could hold."""
    cases = [
        pytest.param(database, of(database, BAD[name]), id=f"{database}-{name}")
        for database, forbidden in TYPES_FORBID.items()
        for name in damages
        if name not in forbidden
    ]
    return pytest.mark.parametrize(("database", "damage"), cases, indirect=["database"])


@on_each_database(BAD)
async def test_a_bad_row_is_not_delivered_and_does_not_block_the_others(store: Store, damage: str) -> None:
    bad, *good = await added(store, a_task(payload=b"pasta", priority=9), a_task(), a_task(priority=9))
    await tamper(store, f"UPDATE task SET {damage} WHERE task_id = :bad", bad=bad)  # noqa: S608
    oven = await a_processor(store)

    leased = await lease(store, oven)

    assert {one.task_id for one in leased.assignments} == set(good)
    (row,) = await rows(store, "SELECT state, finish_time_us FROM task WHERE task_id = :bad", bad=bad)
    assert row["state"] == TaskState.FAILED
    assert row["finish_time_us"] is not None
    assert await leased_ids(store, oven) == []


async def test_a_corrupt_task_says_so(store: Store) -> None:
    (bad,) = await added(store, a_task(payload=b"pasta"))
    await tamper(store, "UPDATE task SET payload = :other", other=b"\0")

    await lease(store, await a_processor(store))

    failure = (await the_task(store, bad)).last_failure
    assert failure is not None and failure.error_type == CORRUPT


BAD_WHILE_RUNNING = [name for name in BAD if name.startswith(("a retry", "headers", "tags", "a last"))]


@on_each_database(BAD_WHILE_RUNNING)
async def test_the_report_of_a_row_that_went_bad_while_it_ran_is_taken_with_its_neighbours(
    store: Store, damage: str
) -> None:
    good, bad = await running(store, await a_processor(store), a_task(), a_task(priority=1))
    await tamper(store, f"UPDATE task SET {damage} WHERE task_id = :bad", bad=bad.task_id)  # noqa: S608

    ended = await store.end([succeeded(good), failed(bad)])

    assert statuses(ended) == [EndStatus.ACCEPTED, EndStatus.ACCEPTED]


LOST_AND_BAD = [name for name in BAD_WHILE_RUNNING if "failure" not in name]  # which is overwritten


@on_each_database(LOST_AND_BAD)
async def test_a_bad_row_does_not_keep_the_tasks_of_a_dead_session(
    store: Store, clock: ManualClock, damage: str
) -> None:
    dying = await a_processor(store, alive_until=clock.now_us() + seconds(1))
    bad, good = await running(store, dying, a_task(), a_task())
    await tamper(store, f"UPDATE task SET {damage} WHERE task_id = :bad", bad=bad.task_id)  # noqa: S608
    clock.advance(1)

    assert (await store.reclaim()).dead == [dying.seq]

    assert await leased_ids(store, await a_processor(store)) == [good.task_id]
    assert await rows(
        store, "SELECT count(*) AS n FROM task WHERE state = 2 AND session_seq = :seq", seq=dying.seq
    ) == [{"n": 0}]


async def test_a_bad_row_can_be_cancelled(store: Store) -> None:
    (bad,) = await running(store, await a_processor(store), a_task())
    await tamper(store, "UPDATE task SET retry_policy = '['")

    (cancelled,) = await store.cancel([bad.task_id])

    assert cancelled.state_before is TaskState.RUNNING


@pytest.mark.parametrize("damage", ["capabilities = '{'", "labels = '['"])
async def test_a_session_that_cannot_be_read_does_not_stop_the_others_from_being_taken_up(
    store: Store, damage: str
) -> None:
    bad, good = await a_processor(store), await a_processor(store, name="hob")
    await tamper(store, f"UPDATE session SET {damage} WHERE session_seq = :bad", bad=bad.seq)  # noqa: S608

    assert [stored.session_seq for stored in await living_sessions(store)] == [good.seq]


async def test_what_cannot_be_read_is_left_out_and_hides_neither_its_row_nor_others(store: Store) -> None:
    bad, good = await added(store, a_task(), a_task())
    await tamper(store, "UPDATE task SET tags = 'vip', headers = '[]' WHERE task_id = :bad", bad=bad)

    looked = await store.get([bad, good])

    assert set(looked) == {bad, good}
    assert (looked[bad].tags, looked[bad].headers, looked[bad].state) == ((), {}, looked[good].state)
