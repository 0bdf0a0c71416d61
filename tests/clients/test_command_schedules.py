"""`taskq schedule`, `processor` and `capability`, with a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from processor_client import Processor
from taskq_server.server import Server
from tests.clients.command_support import Taskq
from tests.clients.scripted_processor_service import Runs


@pytest.fixture
def taskq(quiet_server: None, server: Server) -> Taskq:
    return Taskq(server.address)


BREAKFAST = (
    "breakfast",
    "--task",
    "cook",
    "--cron",
    "0 9 * * MON-FRI",
    "--tz",
    "Europe/Paris",
    "--overlap",
    "buffer-one",
)


async def test_a_schedule_lives_from_create_to_delete(taskq: Taskq) -> None:
    created = (await taskq.done("schedule", "create", *BREAKFAST, "-d", '{"dish": "eggs"}'))["schedule"]
    assert created["recurrence"]["crons"] == ["0 9 * * MON-FRI"]
    assert created["overlap"] == "OVERLAP_BUFFER_ONE"

    changed = (await taskq.done("schedule", "update", "breakfast", "--cron", "0 8 * * *", "--priority", "9"))[
        "schedule"
    ]
    assert changed["recurrence"]["crons"] == ["0 8 * * *"]
    assert changed["recurrence"]["timeZone"] == "Europe/Paris", "what is not given stays"
    assert (changed["task"]["name"], changed["task"]["priority"]) == ("cook", 9)

    await taskq.done("schedule", "pause", "breakfast", "--note", "holidays")
    shown = await taskq.table("schedule", "list")
    assert "breakfast  PAUSED" in shown
    assert "note:       holidays" in await taskq.table("schedule", "get", "breakfast")
    assert "pause" not in (await taskq.done("schedule", "resume", "breakfast"))["schedule"]

    fired = await taskq.done("schedule", "trigger", "breakfast")
    assert fired["outcome"] == "FIRING_OUTCOME_FIRED"
    assert (await taskq.done("schedule", "delete", "breakfast")) is not None
    assert "`taskq schedule list`" in await taskq.fails(69, "schedule", "get", "breakfast")


async def test_a_schedule_goes_from_one_place_to_another_as_a_file(taskq: Taskq, tmp_path: Path) -> None:
    await taskq.done("schedule", "create", *BREAKFAST)
    got = await taskq("schedule", "get", "breakfast", "--json")
    (tmp_path / "breakfast.json").write_text(got.out)

    copy = (await taskq.done("schedule", "create", "brunch", "--file", str(tmp_path / "breakfast.json")))["schedule"]
    assert copy["name"] == "brunch" and copy["recurrence"] == got.json["schedule"]["recurrence"]
    assert copy["scheduleId"] != got.json["schedule"]["scheduleId"]
    assert "is no Schedule" in await taskq.fails(2, "schedule", "create", "x", "--file", __file__)


async def test_a_dry_run_checks_and_stores_nothing(taskq: Taskq) -> None:
    assert (await taskq.done("schedule", "create", *BREAKFAST, "--dry-run"))["schedule"]["maxBuffered"] == 100
    assert (await taskq("schedule", "list")).out == ""
    said = await taskq.fails(67, "schedule", "create", "x", "--task", "cook", "--cron", "99 * * * *", "--dry-run")
    assert "schedule.recurrence.crons" in said


async def test_a_look_ahead_marks_what_the_clocks_do(taskq: Taskq) -> None:
    spring = ("--tz", "Europe/Berlin", "--after", "2026-03-28T12:00:00Z", "-n", "2", "--time", "iso")
    assert await taskq.table("schedule", "next", "--cron", "30 2 * * *", *spring) == (
        "At 02:30 every day; in Europe/Berlin\n\n"
        "LOCAL TIME                 UTC                   FROM NOW              CLOCKS\n"
        "2026-03-29T03:00:00+02:00  2026-03-29T01:00:00Z  2026-03-29T01:00:00Z  the clocks leave its local time out\n"
        "2026-03-30T02:30:00+02:00  2026-03-30T00:30:00Z  2026-03-30T00:30:00Z\n"
    )
    assert "either a NAME" in await taskq.fails(2, "schedule", "next")


async def test_what_was_missed_is_fired_by_hand(taskq: Taskq) -> None:
    await taskq.done("schedule", "create", "hourly", "--task", "cook", "--every", "1h", "--overlap", "allow-all")
    filled = await taskq.table("schedule", "backfill", "hourly", "--from=-3h", "--to", "now")
    assert filled.startswith("fired:    3\n")


async def test_processors_are_found_by_name_drained_and_disconnected(server: Server, taskq: Taskq) -> None:
    async with Processor(server.address, [Runs("cook", lambda: None)], name="oven", labels={"zone": "eu"}):
        listed = await taskq.table("processor", "list")
        assert "oven" in listed and "zone=eu" in listed and "0/8" in listed
        session = (await taskq.done("processor", "get", "oven"))["sessionId"]

        assert "no session lives" in await taskq.fails(69, "processor", "drain", "stove")
        drained = await taskq.table("processor", "drain", "oven", "--reason", "new disk")
        assert "reason:     new disk" in drained
        assert await taskq.table("processor", "disconnect", session) == "0 tasks go to others\n"
        async with asyncio.timeout(60):  # it registers again, and is another session
            while (await taskq("processor", "list", "-o", "name")).out.strip() in ("", session):
                pass


async def test_a_capability_is_paused_and_resumed(taskq: Taskq) -> None:
    assert "reason: mended" in await taskq.table("capability", "pause", "cook", "--reason", "mended")
    assert "PAUSED" in await taskq.table("capability", "list")
    assert "was paused" in await taskq.table("capability", "resume", "cook")
    assert await taskq.table("capability", "resume", "cook") == "was not paused\n"
