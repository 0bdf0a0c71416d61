"""A schedule as flags describe it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from admin_client.values import MOMENT, SPAN, When, choice, chosen, content
from taskq.v1.schedule_service_pb2 import CatchUp, DstPolicy, Overlap

F = TypeVar("F", bound=Callable[..., Any])

RECURRENCE: Final = (
    click.option("--cron", "crons", multiple=True, help="five fields, six with seconds first, @daily, H to spread"),
    click.option("--every", type=SPAN, help="from one time to the next: 10m"),
    click.option("--phase", type=SPAN, help="moves the times of --every"),
    click.option("--date", "dates", type=MOMENT, multiple=True, help="a single time"),
    click.option("--tz", help="in which crons and days are read: Europe/Berlin (UTC)"),
    click.option("--exclude-cron", "excluded_crons", multiple=True, help="does not fire when this matches"),
    click.option("--exclude-date", "excluded_dates", multiple=True, help="2026-12-25, or 2026-12-24/2026-12-26"),
    click.option("--start", type=MOMENT, help="nothing fires before"),
    click.option("--end", type=MOMENT, help="nothing fires at or after"),
    click.option("--jitter", type=SPAN, help="each task is due up to so much later"),
    click.option(
        "--dst", type=choice(DstPolicy), help="times that a change of the clocks leaves out or repeats (run-once)"
    ),
)
POLICIES: Final = (
    click.option("--overlap", type=choice(Overlap), help="a firing while a task of it is unfinished (skip)"),
    click.option("--max-buffered", type=click.IntRange(0, 1_000), help="how many may wait with buffer-all (100)"),
    click.option("--catch-up", type=choice(CatchUp), help="times that were missed (last)"),
    click.option("--catch-up-window", type=SPAN, help="older ones are missed in any case (7d)"),
    click.option("--max-firings", type=click.IntRange(0), help="it ends after so many (0: never)"),
    click.option("--origin", help="where it is declared, for whoever keeps schedules in step"),
)


def recurrence_options(command: F) -> F:
    """When it fires."""
    for option in reversed(RECURRENCE):
        command = option(command)
    return command


def policy_options(command: F) -> F:
    """What becomes of its firings."""
    for option in reversed(POLICIES):
        command = option(command)
    return command


def fill_recurrence(
    recurrence: Any,
    *,
    crons: tuple[str, ...],
    every: float | None,
    phase: float | None,
    dates: tuple[When, ...],
    tz: str | None,
    excluded_crons: tuple[str, ...],
    excluded_dates: tuple[str, ...],
    start: When | None,
    end: When | None,
    jitter: float | None,
    dst: str | None,
) -> None:
    """Writes what is given into a Recurrence; what is left out stays as it is. Crons, interval and dates are one: who
    gives any of them gives all."""
    from client_core.times import to_duration, to_timestamp

    if crons or every is not None or dates:
        for field in ("crons", "interval", "dates"):
            recurrence.ClearField(field)
    recurrence.crons.extend(crons)
    recurrence.dates.extend(to_timestamp(date.moment()) for date in dates)
    for field, span in (("interval", every), ("phase", phase), ("jitter", jitter)):
        if span is not None:
            getattr(recurrence, field).CopyFrom(to_duration(span))
    for field, when in (("start_time", start), ("end_time", end)):
        if when is not None:
            getattr(recurrence, field).CopyFrom(to_timestamp(when.moment()))
    if tz is not None:
        recurrence.time_zone = tz
    if excluded_crons:
        recurrence.excluded_crons[:] = excluded_crons
    if excluded_dates:
        recurrence.excluded_dates[:] = excluded_dates
    if dst is not None:
        recurrence.dst_policy = chosen(DstPolicy, dst)


def fill_policies(
    schedule: Any,
    *,
    overlap: str | None,
    max_buffered: int | None,
    catch_up: str | None,
    catch_up_window: float | None,
    max_firings: int | None,
    origin: str | None,
) -> None:
    """Writes what is given into a Schedule; what is left out stays as it is."""
    from client_core.times import to_duration

    if overlap is not None:
        schedule.overlap = chosen(Overlap, overlap)
    if catch_up is not None:
        schedule.catch_up = chosen(CatchUp, catch_up)
    if catch_up_window is not None:
        schedule.catch_up_window.CopyFrom(to_duration(catch_up_window))
    for field, value in (("max_buffered", max_buffered), ("max_firings", max_firings), ("origin", origin)):
        if value is not None:
            setattr(schedule, field, value)


def taken(fill: Callable[..., None], given: dict[str, Any]) -> dict[str, Any]:
    """What is for this one of them, taken out of what was given."""
    return {name: given.pop(name) for name in inspect.signature(fill).parameters if name in given}


def read(file: str) -> Any:
    """A Schedule from a file of the contract's JSON, such as `taskq schedule get NAME --json` writes."""
    from google.protobuf import json_format

    from taskq.v1.schedule_service_pb2 import GetScheduleResponse, Schedule

    text = content(file if file == "-" else f"@{file}", "--file").decode("utf-8", errors="replace")
    try:
        if '"schedule"' in text and (got := json_format.Parse(text, GetScheduleResponse())).HasField("schedule"):
            return got.schedule
        return json_format.Parse(text, Schedule())
    except json_format.ParseError as fault:
        raise click.BadParameter(f"{file} is no Schedule of the contract: {fault}", param_hint="--file") from None
