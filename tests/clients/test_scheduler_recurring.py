"""How a program says that a task recurs, before any server hears of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

import taskq.v1.schedule_service_pb2 as wire
from client_core.payload import decode
from client_core.times import to_timestamp
from scheduler_client import InvalidArgument, Recurring, Schedule, Scheduler, Task, cron, every, new_task, on_dates
from scheduler_client.declaring import differences
from scheduler_client.schedule import declared


class BreakfastTask(Task):
    name = "recurring.breakfast"
    config = {"dish": "eggs", "servings": 2}
    priority = 7

    def schedule(self) -> Recurring:
        return cron("0 9 * * MON-FRI", tz="Europe/Paris", args={"servings": 3})


class OnceTask(Task):
    name = "recurring.once"

    def schedule(self) -> timedelta:
        return timedelta(minutes=1)


lazy = Scheduler()


@lazy.task("recurring.brew", schedule=every("10m", phase="3m", args={"kind": "coffee"}))
def brew(kind: str, cups: int = 1) -> None:
    pass


def test_a_task_class_is_declared_under_its_name_with_the_arguments_of_its_recurrence() -> None:
    message = declared(BreakfastTask).to_message("kitchen")

    assert message.name == message.task.name == "recurring.breakfast"
    assert list(message.recurrence.crons) == ["0 9 * * MON-FRI"]
    assert message.recurrence.time_zone == "Europe/Paris"
    assert decode(message.task.payload) == {"dish": "eggs", "servings": 3}
    assert message.task.priority == 7
    assert not message.task.task_id, "each firing makes its own"
    assert not message.task.HasField("when"), "each firing has its own time"


def test_an_instance_is_declared_as_it_is() -> None:
    class LunchTask(Task):
        name = "recurring.lunch"

        def schedule(self) -> Recurring:
            return every("1d", phase="12h")

    message = declared(LunchTask(dish="stew")).to_message()
    assert decode(message.task.payload) == {"dish": "stew"}
    assert (message.recurrence.interval.seconds, message.recurrence.phase.seconds) == (86_400, 43_200)


def test_a_decorated_function_is_declared_with_the_arguments_of_its_recurrence() -> None:
    message = declared(brew).to_message()
    assert message.name == message.task.name == "recurring.brew"
    assert decode(message.task.payload) == {"kind": "coffee"}
    assert (message.recurrence.interval.seconds, message.recurrence.phase.seconds) == (600, 180)


def test_one_kind_of_task_may_have_several_schedules() -> None:
    early = Schedule("recurring.early", cron("0 6 * * *", args={"dish": "toast"}), BreakfastTask)
    late = Schedule("recurring.late", every("1h"), new_task("recurring.breakfast", {"dish": "ham"}))

    assert decode(early.to_message().task.payload) == {"dish": "toast", "servings": 2}
    assert decode(late.to_message().task.payload) == {"dish": "ham"}


def test_a_task_that_recurs_runs_at_once_when_it_is_enqueued_besides() -> None:
    assert not BreakfastTask().to_message().HasField("when")


def test_every_option_has_its_place_on_the_wire() -> None:
    moment = datetime(2027, 1, 1, tzinfo=UTC)
    rule = cron(
        "0 9 * * *",
        "@daily",
        overlap="buffer_all",
        max_buffered=7,
        catch_up="all",
        catch_up_window="2h",
        jitter="5m",
        start=moment,
        end=moment + timedelta(days=1),
        except_on=[date(2027, 1, 2), "2027-02-01/2027-02-07"],
        except_crons=["* * * * SAT"],
        dst="shift",
        max_firings=12,
    ).to_message()

    assert rule.overlap == wire.OVERLAP_BUFFER_ALL
    assert rule.max_buffered == 7
    assert rule.catch_up == wire.CATCH_UP_ALL
    assert rule.catch_up_window.seconds == 7_200
    assert rule.max_firings == 12
    recurrence = rule.recurrence
    assert list(recurrence.crons) == ["0 9 * * *", "@daily"]
    assert recurrence.jitter.seconds == 300
    assert recurrence.start_time == to_timestamp(moment)
    assert recurrence.end_time == to_timestamp(moment + timedelta(days=1))
    assert list(recurrence.excluded_dates) == ["2027-01-02", "2027-02-01/2027-02-07"]
    assert list(recurrence.excluded_crons) == ["* * * * SAT"]
    assert recurrence.dst_policy == wire.DST_POLICY_SHIFT


def test_dates_are_moments() -> None:
    moment = datetime(2027, 1, 1, 8, 30, tzinfo=UTC)
    assert list(on_dates(moment, 1_800_000_000).to_message().recurrence.dates) == [
        to_timestamp(moment),
        to_timestamp(1_800_000_000),
    ]


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (lambda: cron(), ["crons"]),
        (lambda: on_dates(), ["dates"]),
        (lambda: on_dates(datetime(2027, 1, 1)), ["dates[0]"]),
        (lambda: every("soon", phase="later"), ["period", "phase"]),
        (
            lambda: cron("* * * * *", overlap="never", catch_up="none", dst="ignore"),  # type: ignore[arg-type]
            ["overlap", "catch_up", "dst"],
        ),
        (lambda: cron("* * * * *", jitter="x", start=datetime(2027, 1, 1)), ["jitter", "start"]),
        (lambda: cron("* * * * *", except_on="2027-01-01"), ["except_on"]),
        (lambda: cron("* * * * *", max_firings="many"), ["max_firings"]),  # type: ignore[arg-type]
        (lambda: Schedule("no spaces", every("1h"), OnceTask), ["name"]),
        (
            lambda: Schedule("x", every("1h"), new_task("recurring.x", delay="1m", key="k", expire_after="1h")),
            ["delay", "expire_after", "key"],
        ),
        (lambda: Schedule("x", every("1h"), new_task("recurring.x", at=1_800_000_000)), ["at"]),
    ],
)
def test_what_cannot_recur_is_refused_at_once_with_every_fault(make: Any, fields: list[str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        make()
    assert [field for field, _ in refused.value.fields] == fields


def test_what_says_no_recurrence_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match=r"recurring\.once says no recurrence"):
        declared(OnceTask)
    with pytest.raises(TypeError, match="cannot be declared"):
        declared("recurring.once")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is no recurrence"):
        Schedule("x", "0 9 * * *", OnceTask)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no such option"):
        cron("* * * * *", timezone="UTC")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="must be given to a kind of task"):
        Schedule("x", every("1h", args={"dish": "stew"}), new_task("recurring.x"))


def test_the_origin_changes_with_what_is_declared_and_with_nothing_else() -> None:
    def origin(dish: str, hour: int) -> str:
        when = cron(f"0 {hour} * * *", args={"dish": dish})
        return Schedule("recurring.o", when, BreakfastTask).to_message("kitchen").origin

    assert origin("eggs", 9) == origin("eggs", 9)
    assert origin("eggs", 9).startswith("kitchen ")
    assert len({origin("eggs", 9), origin("ham", 9), origin("eggs", 10)}) == 3


def test_the_fields_that_differ_are_named() -> None:
    wanted = declared(BreakfastTask).to_message()
    current = wire.Schedule()
    current.CopyFrom(wanted)
    assert differences(wanted, current) == []

    current.recurrence.time_zone = "UTC"
    current.task.priority = 1
    current.overlap = wire.OVERLAP_ALLOW_ALL
    current.etag = "what the server adds is no difference"
    assert differences(wanted, current) == ["recurrence.time_zone", "task.priority", "overlap"]
