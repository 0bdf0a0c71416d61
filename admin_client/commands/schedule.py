"""`taskq schedule`: what recurs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from admin_client import drafts, lists, recurrence
from admin_client.output import Block, Column, Output, Rows, Table
from admin_client.recurrence import policy_options, recurrence_options
from admin_client.values import MOMENT, When, choice, chosen
from admin_client.verb import verb
from admin_client.words import Words, count, duration, enum
from taskq.v1.schedule_service_pb2 import Overlap

if TYPE_CHECKING:
    from admin_client.client import AdminClient


def _state(one: Any, words: Words) -> str:
    if one.HasField("pause"):
        return "PAUSED"
    return "" if one.HasField("next_fire_time") else "ENDED"


SCHEDULES: Final = Table(
    [
        Column("NAME", lambda one, words: one.name, is_long=True),
        Column("STATE", _state, style=lambda text: "yellow"),
        Column("TASK", lambda one, words: one.task.name, is_long=True),
        Column("NEXT", lambda one, words: words.at(one, "next_fire_time")),
        Column("LAST", lambda one, words: words.at(one.last_firing, "nominal_time")),
        Column("FIRED", lambda one, words: count(one.counters.fired), is_number=True),
        Column("SKIPPED", lambda one, words: count(one.counters.skipped), is_number=True),
        Column("MISSED", lambda one, words: count(one.counters.missed), is_number=True),
        Column("RUNNING", lambda one, words: str(one.unfinished_tasks or ""), is_number=True),
        Column("WHEN", lambda one, words: one.explanation, is_long=True),
    ],
    name=lambda one: str(one.name),
    nothing="no schedule; `taskq schedule create NAME --task TASK --every 10m` makes one",
)


def _due(firing: Any, words: Words) -> str:
    return str(firing.due_time.ToJsonString()) if firing.due_time != firing.nominal_time else ""


def _mark(firing: Any, words: Words) -> str:
    return {"GAP": "the clocks leave its local time out", "REPEAT": "the clocks show it twice"}.get(
        enum(firing, "dst_mark"), ""
    )


FIRINGS: Final = Table(
    [
        Column("LOCAL TIME", lambda firing, words: firing.local_time),
        Column("UTC", lambda firing, words: firing.nominal_time.ToJsonString()),
        Column("FROM NOW", lambda firing, words: words.at(firing, "nominal_time")),
        Column("DUE", _due),
        Column("CLOCKS", _mark, style=lambda text: "yellow", is_long=True),
    ],
    name=lambda firing: str(firing.nominal_time.ToJsonString()),
    nothing="it fires no more",
)


@click.group()
def schedule() -> None:
    """What recurs: create, look ahead, pause, trigger, backfill."""


@verb(schedule, "list")
@click.option("--prefix", default="", help="only those whose names begin so")
@click.option("--origin", default="", help="only those whose origin begins so")
@lists.list_options
async def list_(client: AdminClient, output: Output, prefix: str, origin: str, **how: Any) -> None:
    """List schedules, in the order of their names."""
    await lists.show(
        output,
        lambda limit, token: client.list_schedules(prefix, origin_prefix=origin, limit=limit, page_token=token),
        SCHEDULES,
        **how,
    )


@verb(schedule, "get")
@click.argument("name")
async def get(client: AdminClient, output: Output, name: str) -> None:
    """Show a schedule: what it says, when it fires next, what became of its firings."""
    output.show(await client.get_schedule(name), _view, name)


@verb(schedule, "create")
@click.argument("name", required=False)
@click.option("--task", "task_name", help="the name of the tasks that it enqueues")
@click.option("--file", help="all of it as the contract's JSON; flags win over it. - is stdin")
@click.option("--dry-run", is_flag=True, help="only check it, and show it with its defaults")
@recurrence_options
@policy_options
@drafts.content_options
async def create(
    client: AdminClient,
    output: Output,
    name: str | None,
    task_name: str | None,
    file: str | None,
    dry_run: bool,
    **given: Any,
) -> None:
    """Create a schedule: it fires from now on, or from --start."""
    from uuid import uuid4

    from taskq.v1.schedule_service_pb2 import Schedule

    one = recurrence.read(file) if file is not None else Schedule()
    one.schedule_id, one.etag = str(uuid4()), ""
    _fill(one, task_name, given)
    if name is not None:
        one.name = name
    output.show(await client.create_schedule(one, validate_only=dry_run), _view, one.name)


@verb(schedule, "update")
@click.argument("name")
@click.option("--task", "task_name", help="the name of the tasks that it enqueues")
@click.option("--file", help="all of it as the contract's JSON; flags win over it. - is stdin")
@recurrence_options
@policy_options
@drafts.content_options
async def update(
    client: AdminClient, output: Output, name: str, task_name: str | None, file: str | None, **given: Any
) -> None:
    """Change what is given, and leave the rest. Nominal times before now are over."""
    one = (await client.get_schedule(name)).schedule
    if file is not None:
        told = recurrence.read(file)
        told.schedule_id, told.etag = one.schedule_id, told.etag or one.etag
        one = told
    _fill(one, task_name, given)
    output.show(await client.update_schedule(one), _view, one.name)


def _fill(one: Any, task_name: str | None, given: dict[str, Any]) -> None:
    recurrence.fill_recurrence(one.recurrence, **recurrence.taken(recurrence.fill_recurrence, given))
    recurrence.fill_policies(one, **recurrence.taken(recurrence.fill_policies, given))
    drafts.fill(one.task, **given)
    if task_name is not None:
        one.task.name = task_name


@verb(schedule, "delete")
@click.argument("name")
@click.option("--etag", default="", help="only if this is its etag")
async def delete(client: AdminClient, output: Output, name: str, etag: str) -> None:
    """Delete a schedule, with its tasks that are not due yet. Those that are due or run go on."""
    answer = await client.delete_schedule(name, etag)
    output.show(answer, lambda answer, words: [f"deleted; {count(answer.withdrawn_tasks)} tasks went with it"], name)


@verb(schedule, "pause")
@click.argument("name")
@click.option("--note", default="", help="why, for people")
async def pause(client: AdminClient, output: Output, name: str, note: str) -> None:
    """Let a schedule fire no more until it is resumed."""
    output.show(await client.pause_schedule(name, note), _view, name)


@verb(schedule, "resume")
@click.argument("name")
async def resume(client: AdminClient, output: Output, name: str) -> None:
    """Let a schedule fire again."""
    output.show(await client.resume_schedule(name), _view, name)


@verb(schedule, "trigger")
@click.argument("name")
@click.option("--overlap", type=choice(Overlap), help="decides instead of the schedule's own policy")
async def trigger(client: AdminClient, output: Output, name: str, overlap: str | None) -> None:
    """Fire once, now, also when it is paused."""
    from uuid import uuid4

    answer = await client.trigger_schedule(name, overlap=chosen(Overlap, overlap), task_id=str(uuid4()))
    output.show(answer, _triggered, answer.firing.task_id)


@verb(schedule, "backfill")
@click.argument("name")
@click.option("--from", "start", type=MOMENT, required=True, help="the first nominal time")
@click.option("--to", "end", type=MOMENT, required=True, help="nominal times before this one")
@click.option("--overlap", type=choice(Overlap), help="decides instead of the schedule's own policy")
async def backfill(client: AdminClient, output: Output, name: str, start: When, end: When, overlap: str | None) -> None:
    """Fire at the nominal times of a range that are over and have not fired."""
    answer = await client.backfill_schedule(name, start.moment(), end.moment(), overlap=chosen(Overlap, overlap))
    output.show(answer, _backfilled, name)


@verb(schedule, "next")
@click.argument("name", required=False)
@click.option("-n", "--count", "number", type=click.IntRange(1, 1_000), default=10, help="how many (10)")
@click.option("--after", type=MOMENT, help="later than this, if not than now")
@recurrence_options
async def next_(
    client: AdminClient, output: Output, name: str | None, number: int, after: When | None, **given: Any
) -> None:
    """Tell when a schedule fires next: that of NAME, or one that recurs as the flags say. Changes nothing."""
    from taskq.v1.schedule_service_pb2 import Recurrence

    told = Recurrence()
    recurrence.fill_recurrence(told, **given)
    if (name is None) == (told == Recurrence()):
        raise click.UsageError("say which: either a NAME, or --cron, --every, --date", click.get_current_context())
    moment = after.moment() if after is not None else None
    answer = await client.preview_schedule(told if name is None else name, count=number, after=moment)
    output.show(answer, _preview, name or "")


def _preview(answer: Any, words: Words) -> list[Block]:
    return [answer.explanation, Rows("", answer.firings, FIRINGS) if answer.firings else FIRINGS.nothing]


def _triggered(answer: Any, words: Words) -> list[Block]:
    return [[("outcome", enum(answer, "outcome")), ("task", answer.firing.task_id), ("schedule", answer.schedule.name)]]


def _backfilled(answer: Any, words: Words) -> list[Block]:
    return [[(field, count(getattr(answer, field))) for field in ("fired", "skipped", "buffered", "existing")]]


def _view(answer: Any, words: Words) -> list[Block]:
    one = answer.schedule
    counters, task, recurs = one.counters, one.task, one.recurrence
    return [
        [
            ("name", one.name),
            ("id", one.schedule_id),
            ("state", _state(one, words)),
            ("paused", words.at(one.pause, "pause_time") if one.HasField("pause") else ""),
            ("note", one.pause.note),
            ("fires", one.explanation),
            ("crons", "; ".join(recurs.crons)),
            ("every", duration(recurs.interval) if recurs.HasField("interval") else ""),
            ("zone", recurs.time_zone),
            ("next", words.at(one, "next_fire_time")),
            ("next due", words.at(one, "next_due_time") if one.next_due_time != one.next_fire_time else ""),
            ("last", words.at(one.last_firing, "nominal_time")),
            ("last task", one.last_firing.task_id),
            ("task", task.name),
            ("payload", task.payload.data.decode("utf-8", errors="replace")),
            ("overlap", enum(one, "overlap")),
            ("catch-up", enum(one, "catch_up")),
            ("fired", count(counters.fired)),
            ("skipped", count(counters.skipped)),
            ("missed", count(counters.missed)),
            ("overlapped", count(counters.overlapped)),
            ("in the buffer", str(one.buffered_firings or "")),
            ("unfinished", str(one.unfinished_tasks or "")),
            ("remaining", count(one.remaining_firings) if one.max_firings else ""),
            ("origin", one.origin),
            ("etag", one.etag),
            ("changed", words.at(one, "update_time")),
        ]
    ]
