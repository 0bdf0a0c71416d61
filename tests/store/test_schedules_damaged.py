"""A schedule whose row is damaged, or whose time zone is gone, can be mended or removed by what everybody has."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.errors import ScheduleExists
from taskq_server.core.recurring import Key
from taskq_server.store.store import Store
from taskq_server.store.verbs.listing import Page
from taskq_server.store.verbs.schedules import Listed
from taskq_server.store.verbs.scheduling import Change, Deletion, SchedulePause
from tests.store.given import a_schedule, minutes, tamper

BAD = Key(None, "bad")
DAMAGES = [
    "{",
    '{"crons": 5, "dst": 1}',
    '{"interval_us": "often", "dst": 1}',
    '{"dates_us": ["soon"], "dst": 1}',
    "[]",
]


async def names(store: Store) -> list[str]:
    return [one.definition.name for one in await store.list_schedules(Listed(Page("", 10)))]


@pytest.mark.parametrize("rule", DAMAGES)
async def test_one_that_cannot_be_read_hides_no_other_keeps_its_name_and_can_be_deleted(
    store: Store, rule: str
) -> None:
    for name in ("bad", "good"):
        await store.create_schedule(a_schedule(name, every=minutes(1)))
    await tamper(store, "UPDATE schedule SET rule = :rule WHERE name = 'bad'", rule=rule)

    assert await names(store) == ["good"]
    with pytest.raises(ScheduleExists):
        await store.create_schedule(a_schedule("bad", every=minutes(1)))

    assert await store.delete_schedule(Deletion(BAD)) == 0
    await store.create_schedule(a_schedule("bad", every=minutes(1)))
    assert await names(store) == ["bad", "good"]


async def test_one_whose_time_zone_is_gone_can_be_paused_and_is_mended_by_an_update(
    store: Store, clock: ManualClock
) -> None:
    made = await store.create_schedule(a_schedule("bad", every=minutes(1), jitter=minutes(1) // 2))
    await tamper(store, """UPDATE schedule SET rule = replace(rule, '"UTC"', '"Gone/Zone"')""")
    await store.fire(minutes(1))
    clock.advance(us=minutes(3))
    paused = await store.pause_schedule(SchedulePause(BAD, "its zone is gone"))
    assert paused.pause_time_us == clock.now_us()

    mended = a_schedule("bad", every=minutes(2)).definition
    changed = await store.change_schedule(Change(Key(made.schedule_id), mended, paused.etag))

    assert changed.definition.rule.time_zone == "UTC"
    assert changed.next_us is not None and changed.next_us > clock.now_us()


async def test_a_clock_that_was_once_far_ahead_is_got_over_by_an_update(store: Store, clock: ManualClock) -> None:
    made = await store.create_schedule(a_schedule("bad", every=minutes(1)))
    ahead = clock.now_us() + minutes(525_600)
    await tamper(store, "UPDATE schedule SET last_us = :ahead, next_us = :ahead, next_due_us = :ahead", ahead=ahead)

    changed = await store.change_schedule(Change(Key(made.schedule_id), made.definition, made.etag))

    assert changed.next_us is not None
    assert changed.next_us <= clock.now_us() + minutes(2)
