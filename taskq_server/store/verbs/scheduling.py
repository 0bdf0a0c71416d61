"""What somebody changes about schedules: create, update, delete, pause, resume.

Every change locks the row of its schedule first, as whoever fires it does. What was refused is answered as an error,
and not raised: others share the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import delete, insert, select, update

from taskq_server.core.errors import ScheduleChanged, ScheduleExists, ScheduleNotFound, TaskqError
from taskq_server.core.event import Topic
from taskq_server.core.recurring import Definition, Key, Schedule
from taskq_server.core.schedule import CatchUp, Recurrence, catch_up, tzdata_version
from taskq_server.store import schedule_rows, schema
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs import schedules
from taskq_server.store.verbs.auditing import Audit, Facts, time_text
from taskq_server.task_id import to_text

MOST_ROUNDS, MOST_A_ROUND = 3, 1_000
"""In which what an update gives up is counted."""
Item = TypeVar("Item")
Answer = TypeVar("Answer")
_HIDDEN = "headers", "payload_metadata"

AHEAD_US = 2_000_000
"""What has fired is no further ahead than this, unless the clock once was: then that does not count."""


class NewSchedule(NamedTuple):
    """A schedule to be stored."""

    schedule_id: bytes
    definition: Definition


class Change(NamedTuple):
    """What a schedule is to say from now on, if it still has that etag."""

    key: Key
    definition: Definition
    etag: str


class Deletion(NamedTuple):
    """A schedule to be deleted; without an etag, whatever it says."""

    key: Key
    etag: str = ""


class SchedulePause(NamedTuple):
    """A schedule to be paused, and why."""

    key: Key
    note: str


def lock(tx: Transaction, keys: Iterable[Key]) -> None:
    """Keeps others from changing and from firing these until the transaction has ended."""
    table = schema.schedule
    asked = select(table.c.schedule_seq).where(schedules.meant(tx, keys)).order_by(table.c.schedule_seq)
    tx.connection.execute(asked.with_for_update(key_share=True)).all()


def _tell(tx: Transaction, keys: Iterable[Key]) -> None:
    """Lets other servers hear of it, and whoever watches."""
    tx.signals = True
    tx.hint(
        Topic.SCHEDULES, ((key.name or "") if key.schedule_id is None else to_text(key.schedule_id) for key in keys)
    )


def as_it_stands(tx: Transaction, key: Key) -> Schedule | ScheduleNotFound:
    """A schedule that is locked, as it stands now."""
    (found,) = schedules.get(tx, [key])
    if found is None:
        return ScheduleNotFound(key.name if key.schedule_id is None else to_text(key.schedule_id))
    return found


def _row_of(tx: Transaction, key: Key) -> int | None:
    """The number of a schedule that is locked, also of one that cannot be read."""
    seq = schema.schedule.c.schedule_seq
    return tx.connection.execute(select(seq).where(schedules.meant(tx, [key]))).scalar_one_or_none()


def reserve(tx: Transaction, schedule_ids: Iterable[bytes], names: Iterable[str]) -> None:
    """Keeps others from giving these ids and names to schedules until the transaction has ended."""
    keys = [("\0schedule", schedule_id.hex()) for schedule_id in schedule_ids]
    tx.sql.lock_keys(tx, [*keys, *(("\0schedule", name) for name in names)], ())


# ── create, update, delete ───────────────────────────────────────────────────────────────────────────────────────────


def create(tx: Transaction, new: list[NewSchedule]) -> list[Schedule | TaskqError]:
    """Stores schedules; of one that is there with the same content, answers how it stands."""
    reserve(tx, [one.schedule_id for one in new], [one.definition.name for one in new])
    tx.signals = True
    tx.hint(Topic.SCHEDULES, (one.definition.name for one in new))
    return audited(tx, new, lambda one: Key(one.schedule_id), lambda one: _create(tx, *one))


def _create(tx: Transaction, schedule_id: bytes, definition: Definition) -> Schedule | TaskqError:
    found, named = schedules.get(tx, [Key(schedule_id), Key(None, definition.name)])
    if found is not None:
        is_same = found.definition.content_hash == definition.content_hash
        return found if is_same else ScheduleExists("schedule_id", to_text(schedule_id))
    if named is not None or _row_of(tx, Key(None, definition.name)) is not None:
        return ScheduleExists("name", definition.name)
    columns = schedule_rows.definition_columns(definition)
    recurrence = schedule_rows.recurrence_of(columns["rule"], schedule_id)
    columns |= standing(recurrence, recurrence.next_after(tx.now_us), definition.max_firings, 0)
    times = {"create_time_us": tx.now_us, "update_time_us": tx.now_us}
    tx.connection.execute(insert(schema.schedule).values(schedule_id=schedule_id, version=1, **times, **columns))
    return as_it_stands(tx, Key(schedule_id))


def standing(recurrence: Recurrence, next_us: int | None, max_firings: int | None, used: int) -> dict[str, Any]:
    """The columns that say when a schedule fires next."""
    if max_firings is not None and used >= max_firings:
        next_us = None
    next_due_us = None if next_us is None else recurrence.due_us(next_us)
    return {"next_us": next_us, "next_due_us": next_due_us, "tzdata": tzdata_version()}


def change(tx: Transaction, changes: list[Change]) -> list[Schedule | TaskqError]:
    """Replaces what schedules say; what they would still have made up for is missed."""
    reserve(tx, (), [one.definition.name for one in changes])
    lock(tx, [one.key for one in changes])
    _tell(tx, [one.key for one in changes])
    return audited(tx, changes, lambda one: one.key, lambda one: _change(tx, *one))


def _change(tx: Transaction, key: Key, definition: Definition, etag: str) -> Schedule | TaskqError:
    found = as_it_stands(tx, key)
    if isinstance(found, ScheduleNotFound):
        return found
    if found.etag != etag:
        return ScheduleChanged(found.definition.name, etag, found.etag)
    (named,) = schedules.get(tx, [Key(None, definition.name)])
    if named is not None and named.schedule_seq != found.schedule_seq:
        return ScheduleExists("name", definition.name)
    withdraw(tx, found)
    missed = _given_up(tx, found)
    columns = schedule_rows.definition_columns(definition)
    recurrence = schedule_rows.recurrence_of(columns["rule"], found.schedule_id)
    next_us = recurrence.next_after(max(tx.now_us, min(found.last_us or 0, tx.now_us + AHEAD_US)))
    columns |= standing(recurrence, next_us, definition.max_firings, found.used)
    columns |= {"missed": found.missed + missed, "update_time_us": tx.now_us}
    _update(tx, found, **columns)
    return as_it_stands(tx, Key(found.schedule_id))


def _given_up(tx: Transaction, found: Schedule) -> int:
    """How many nominal times are over and have not been seen to."""
    recurrence, next_us, missed = Recurrence(found.definition.rule, found.schedule_id), found.next_us, 0
    with suppress(ValueError):  # its time zone is gone: then an update is what mends it
        for _ in range(MOST_ROUNDS):
            if next_us is None or next_us > tx.now_us:
                break
            caught = catch_up(recurrence, next_us, tx.now_us, CatchUp.SKIP, 0, MOST_A_ROUND)
            missed += caught.missed + len(caught.fire_us)
            next_us = caught.next_us
    return missed


def remove(tx: Transaction, deletions: list[Deletion]) -> list[int | TaskqError]:
    """Deletes schedules; answers how many tasks were taken back. The firings that are tasks go with their tasks."""
    lock(tx, [one.key for one in deletions])
    _tell(tx, [one.key for one in deletions])
    return audited(tx, deletions, lambda one: one.key, lambda one: _remove(tx, *one))


def _remove(tx: Transaction, key: Key, etag: str) -> int | TaskqError:
    found = as_it_stands(tx, key)
    seq, withdrawn = _row_of(tx, key), 0
    if seq is None:
        return ScheduleNotFound(key.name if key.schedule_id is None else to_text(key.schedule_id))
    if isinstance(found, Schedule):  # one that cannot be read can be deleted all the same
        if etag and found.etag != etag:
            return ScheduleChanged(found.definition.name, etag, found.etag)
        withdrawn = withdraw(tx, found)
    firing = schema.firing
    tx.connection.execute(delete(firing).where(schema.IS_BUFFERED, firing.c.schedule_seq == seq))
    tx.connection.execute(delete(schema.schedule).where(schema.schedule.c.schedule_seq == seq))
    return withdrawn


# ── pause and resume ─────────────────────────────────────────────────────────────────────────────────────────────────


def pause(tx: Transaction, pauses: list[SchedulePause]) -> list[Schedule | TaskqError]:
    """Lets schedules fire no more; of one that is paused already only the note changes."""
    lock(tx, [one.key for one in pauses])
    _tell(tx, [one.key for one in pauses])
    return audited(tx, pauses, lambda one: one.key, lambda one: _pause(tx, *one))


def _pause(tx: Transaction, key: Key, note: str) -> Schedule | TaskqError:
    found = as_it_stands(tx, key)
    if isinstance(found, ScheduleNotFound):
        return found
    withdraw(tx, found)
    since_us = tx.now_us if found.pause_time_us is None else found.pause_time_us
    _update(tx, found, pause_time_us=since_us, pause_note=note)
    return as_it_stands(tx, Key(found.schedule_id))


def resume(tx: Transaction, keys: list[Key]) -> list[Schedule | TaskqError]:
    """Lets schedules fire again."""
    lock(tx, keys)
    _tell(tx, keys)
    return audited(tx, keys, lambda key: key, lambda key: _resume(tx, key))


def _resume(tx: Transaction, key: Key) -> Schedule | TaskqError:
    found = as_it_stands(tx, key)
    if isinstance(found, ScheduleNotFound) or found.pause_time_us is None:
        return found
    _update(tx, found, pause_time_us=None, pause_note=None)
    return as_it_stands(tx, Key(found.schedule_id))


def _update(tx: Transaction, found: Schedule, **columns: Any) -> None:
    table = schema.schedule
    change = update(table).where(table.c.schedule_seq == found.schedule_seq)
    tx.connection.execute(change.values(version=found.version + 1, **columns))


# ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────────────


def audited(
    tx: Transaction,
    items: list[Item],
    key: Callable[[Item], Key],
    do: Callable[[Item], Answer | TaskqError],
) -> list[Answer | TaskqError]:
    """Does what is asked of schedules, one by one, and writes down what has changed by it."""
    audit = Audit(tx)
    answers: list[Answer | TaskqError] = []
    for i, item in enumerate(items):
        before = as_it_stands(tx, key(item)) if audit.asks(i) else None
        answer = do(item)
        answers.append(answer)
        if not isinstance(answer, TaskqError):
            was = before if isinstance(before, Schedule) else None
            stands = answer if isinstance(answer, Schedule) else None
            if (named := was or stands) is not None:
                audit.note(i, "schedule", named.definition.name, facts(was), facts(stands))
    audit.write()
    return answers


def facts(found: Schedule | None) -> Facts:
    """What the audit tells of a schedule: what somebody has said of it, without its payload and its headers."""
    if found is None:
        return None
    said = schedule_rows.definition_columns(found.definition)
    task = {name: value for name, value in json.loads(said["task"]).items() if name not in _HIDDEN}
    told = {
        "schedule_id": to_text(found.schedule_id),
        "content_hash": found.definition.content_hash.hex(),
        "name": found.definition.name,
        "rule": {name: value for name, value in json.loads(said["rule"]).items() if value not in (None, [], "")},
        "overlap": found.definition.overlap.name,
        "max_buffered": found.definition.max_buffered,
        "catch_up": found.definition.catch_up.name,
        "catch_up_window_us": found.definition.catch_up_window_us,
        "max_firings": found.definition.max_firings,
        "origin": found.definition.origin,
        "task": task,
        "paused_since": time_text(found.pause_time_us),
        "pause_note": found.pause_note,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


# ── what was stored ahead ────────────────────────────────────────────────────────────────────────────────────────────


def withdraw(tx: Transaction, found: Schedule) -> int:
    """Takes back the firings of a schedule that are not due yet and have never been leased; answers how many. The
    schedule then fires at the first of them next."""
    task, firing, table = schema.task, schema.firing, schema.schedule
    untouched = schema.IS_OF_SCHEDULE, task.c.state + 0 == 1, task.c.attempt == 0, task.c.due_time_us > tx.now_us
    gone = tx.connection.execute(
        delete(task)
        .where(task.c.schedule_seq == found.schedule_seq, *untouched)
        .returning(task.c.task_id, task.c.nominal_us)
    ).all()
    if not gone:
        return 0
    nominal = [row.nominal_us for row in gone]
    mine = firing.c.schedule_seq == found.schedule_seq
    tx.connection.execute(delete(firing).where(mine, tx.sql.among(firing.c.nominal_us, nominal)))
    last = select(firing.c.nominal_us, firing.c.task_id).where(mine, firing.c.outcome == 1)
    before = tx.connection.execute(last.order_by(firing.c.nominal_us.desc()).limit(1)).one_or_none()
    found.next_us = found.next_due_us = min(nominal)
    with suppress(ValueError):  # its time zone is gone
        found.next_due_us = Recurrence(found.definition.rule, found.schedule_id).due_us(found.next_us)
    found.used, found.fired = found.used - len(gone), found.fired - len(gone)
    found.last_us, found.last_task_id = (None, None) if before is None else (before.nominal_us, before.task_id)
    names = "next_us", "next_due_us", "used", "fired", "last_us", "last_task_id"
    back = update(table).where(table.c.schedule_seq == found.schedule_seq)
    tx.connection.execute(back.values({name: getattr(found, name) for name in names}))
    tx.changed += [row.task_id for row in gone]
    return len(gone)
