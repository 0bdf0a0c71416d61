"""The main scheduler: what it fires, when, and that nothing of it is lost while the server is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client_core.payload import decode
from client_core.times import timestamp_to_microseconds
from scheduler_client import FiringsNotSent, MainScheduler, Scheduler, Task
from scheduler_client.frequency import Frequency
from taskq.v1 import scheduler_service_pb2 as pb
from tests.clients.scripted_scheduler_service import Refusal, ScriptedSchedulerService, serving

ROOT = Path(__file__).parents[2]
START = 1_767_225_600.0  # a whole day


class ManualClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.time = START
        self.waiting_until: float | None = None
        self._moved = asyncio.Event()

    def now(self) -> float:
        return self.time

    async def wait(self, wake: asyncio.Event, until: float | None) -> None:
        self.waiting_until = until
        while not wake.is_set() and (until is None or self.time < until):
            moved, woken = asyncio.ensure_future(self._moved.wait()), asyncio.ensure_future(wake.wait())
            await asyncio.wait([moved, woken], return_when=asyncio.FIRST_COMPLETED)
            for each in (moved, woken):
                each.cancel()
            self._moved.clear()

    def move(self, seconds: float) -> None:
        self.time += seconds
        self._moved.set()


class SoupTask(Task):
    name = "main.soup"
    config = {"dish": "soup"}

    def schedule(self) -> float:
        return 5.0  # a main scheduler does not ask


class StewTask(Task):
    name = "main.stew"


lazy = Scheduler()


@lazy.task("main.cook")
def cook(dish: str) -> None:
    pass


@pytest.fixture
async def scheduler(service: ScriptedSchedulerService, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scheduler]:
    monkeypatch.setattr("scheduler_client.enqueuer.FIRST_DELAY", 0.001)
    async with serving(service) as address, Scheduler(address, timeout="50ms") as scheduler:
        yield scheduler


def a_main(scheduler: Scheduler | None = None, **settings: Any) -> tuple[MainScheduler, ManualClock]:
    clock = ManualClock()
    return MainScheduler(scheduler or Scheduler("127.0.0.1:1"), clock=clock, **settings), clock


def firings_of(main: MainScheduler) -> list[tuple[str, float]]:
    return [(firing.entry, firing.nominal_us / 1e6 - START) for firing in main.firings.first(1_000_000)]


# when it fires


def test_nominal_times_are_counted_from_1970_whenever_it_was_started() -> None:
    frequency = Frequency(60_000_000, 5_000_000)
    assert frequency.next_after(0) == 5_000_000
    assert frequency.next_after(5_000_000) == 65_000_000
    assert frequency.next_after(64_999_999) == 65_000_000


def test_a_tick_fires_what_is_due_and_says_when_to_come_back() -> None:
    main, clock = a_main()
    main.every(minutes=1).do(SoupTask)
    main.every("25s", phase="10s").do(StewTask)
    assert main.tick() == START + 10
    assert firings_of(main) == []

    clock.move(10)
    assert main.tick() == START + 35
    clock.move(50)
    assert main.tick() == START + 85
    assert firings_of(main) == [("main.stew", 10), ("main.stew", 35), ("main.soup", 60), ("main.stew", 60)]
    assert main.tick() == START + 85
    assert len(main.firings) == 4


def test_a_firing_carries_its_nominal_time_and_its_payload() -> None:
    main, clock = a_main()
    main.every(minutes=1).do(SoupTask, dish="goulash")
    main.every(minutes=1).do(cook, dish="eggs")
    main.every(minutes=1, name="instance").do(StewTask(servings=3).options(delay="1h"))
    main.tick()
    clock.move(61.5)
    main.tick()
    messages = [firing.message for firing in main.firings.first(10)]
    assert [message.name for message in messages] == ["main.soup", "main.cook", "main.stew"]
    assert [decode(message.payload) for message in messages] == [{"dish": "goulash"}, {"dish": "eggs"}, {"servings": 3}]
    assert {timestamp_to_microseconds(message.due_time) for message in messages} == {int((START + 60) * 1e6)}


def test_two_replicas_make_the_same_tasks_and_other_main_schedulers_others() -> None:
    def fired(name: str, started: float) -> list[pb.NewTask]:
        main, clock = a_main(name=name)
        clock.time += started
        main.every(minutes=1).do(SoupTask)
        main.tick()
        clock.time = START + 180
        main.tick()
        return [firing.message for firing in main.firings.first(10)]

    assert fired("kitchen", 1.0) == fired("kitchen", 42.0)
    assert len({message.task_id for message in fired("kitchen", 0) + fired("bar", 0)}) == 6


def test_after_a_long_sleep_every_missed_firing_is_made() -> None:
    main, clock = a_main()
    main.every(minutes=1).do(SoupTask)
    main.tick()
    clock.move(600)
    main.tick()
    assert [time for _, time in firings_of(main)] == [60 * i for i in range(1, 11)]


def test_a_clock_that_is_set_back_does_not_silence_it() -> None:
    main, clock = a_main()
    main.every(minutes=1).do(SoupTask)
    main.tick()
    clock.move(60)
    main.tick()
    clock.move(-3_600)
    assert main.tick() == START - 3_540 + 60
    clock.move(60)
    main.tick()
    assert len(main.firings) == 2


def test_a_full_buffer_keeps_the_oldest_and_says_aloud_how_many_it_refuses(caplog: pytest.LogCaptureFixture) -> None:
    main, clock = a_main(buffer=3)
    main.every(seconds=1).do(SoupTask)
    main.every(seconds=1).do(StewTask)
    main.tick()
    clock.move(1)
    main.tick()
    assert caplog.records == []
    clock.move(1_000_000_000)  # thirty years: it must not even try to make them all
    main.tick()
    assert firings_of(main) == [("main.soup", 1), ("main.stew", 1), ("main.soup", 2)]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "1999999999 more have no room and are not enqueued" in record.getMessage()
    assert main.firings.refused == 1_999_999_999


def test_a_firing_that_cannot_be_made_is_logged_and_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Moody(Task):
        name = "main.moody"
        broken = False

        def __init__(self) -> None:
            if self.broken:
                raise ZeroDivisionError

    main, clock = a_main()
    main.every(seconds=1).do(Moody)
    main.every(seconds=1).do(SoupTask)
    main.tick()
    Moody.broken = True
    clock.move(1)
    main.tick()
    assert firings_of(main) == [("main.soup", 1)]
    assert "main.moody" in caplog.text
    assert main.firings.refused == 1


# what may be added


@pytest.mark.parametrize("words", [{}, {"period": "1m", "minutes": 1}, {"seconds": 0}, {"period": 0}, {"minutes": -1}])
def test_a_frequency_must_be_given_once_and_be_positive(words: Any) -> None:
    main, _ = a_main()
    with pytest.raises(ValueError):
        main.every(**words).do(SoupTask)


@pytest.mark.parametrize("phase", ["1m", -1])
def test_a_phase_must_be_less_than_the_period(phase: Any) -> None:
    main, _ = a_main()
    with pytest.raises(ValueError, match="phase"):
        main.every("1m", phase=phase)


def test_two_entries_need_two_names() -> None:
    main, _ = a_main()
    main.every("1m").do(SoupTask)
    with pytest.raises(ValueError, match="must have a name of its own"):
        main.every("2m").do(SoupTask)
    main.every("2m", name="again").do(SoupTask)
    assert list(main.entries) == ["main.soup", "again"]


def test_what_cannot_be_enqueued_cannot_be_added() -> None:
    main, _ = a_main()
    with pytest.raises(TypeError, match="cannot be repeated"):
        main.every("1m", name="x").do(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        main.every("1m").do(cook, dich="eggs")
    with pytest.raises(TypeError, match="beside an instance"):
        main.every("1m").do(SoupTask(), dish="eggs")
    with pytest.raises(ValueError, match="payload"):
        main.every("1m").do(SoupTask, dish=float("nan"))
    assert main.entries == {}


# sending


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - the other side is in this same loop
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(main: MainScheduler) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(main.run_async())
    await asyncio.sleep(0)
    yield task
    main.stop()
    with contextlib.suppress(FiringsNotSent):
        await task


async def test_running_it_enqueues_each_firing(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    main, clock = a_main(scheduler)
    main.every(minutes=1).do(SoupTask)
    async with running(main):
        for count in range(1, 4):
            await until(lambda: clock.waiting_until is not None and clock.waiting_until > clock.time)
            clock.move(60)
            await until(lambda count=count: len(service.tasks) == count)
    assert not main.firings


async def test_an_entry_can_be_added_while_it_runs(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    main, clock = a_main(scheduler)
    async with running(main):
        await until(lambda: main._wake._waiters)
        main.every(minutes=1).do(SoupTask)
        await until(lambda: clock.waiting_until == START + 60)
        clock.move(60)
        await until(lambda: len(service.tasks) == 1)


async def test_firings_wait_for_a_server_that_is_away_and_come_in_order(
    service: ScriptedSchedulerService, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    main, clock = a_main(scheduler)
    main.every(minutes=1).do(SoupTask)
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "STOPPING")
    service.script.extend([away] * 100_000)
    main.tick()
    clock.move(60)
    main.tick()
    assert await main.send() is not None
    clock.move(120)
    main.tick()
    assert await main.send() is not None
    assert len(main.firings) == 3

    service.script.clear()
    assert await main.send() is None
    assert not main.firings
    dues = [timestamp_to_microseconds(task.due_time) / 1e6 - START for task in service.tasks.values()]
    assert dues == [60, 120, 180]
    assert main.firings.refused == 0


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED])
async def test_an_error_that_is_not_about_a_firing_does_not_lose_it(
    code: grpc.StatusCode, service: ScriptedSchedulerService, scheduler: Scheduler
) -> None:
    main, clock = a_main(scheduler)
    main.every(minutes=1).do(SoupTask)
    main.tick()
    clock.move(60)
    main.tick()
    service.script.append(Refusal(code, "WHATEVER"))
    assert await main.send() is not None
    assert len(main.firings) == 1
    assert await main.send() is None
    assert len(service.tasks) == 1


async def test_firings_that_were_not_looked_at_wait_on(service: ScriptedSchedulerService, scheduler: Scheduler) -> None:
    main, clock = a_main(scheduler)
    main.every(minutes=1).do(StewTask, large="x" * 400_000)  # two to a request
    main.tick()
    clock.move(360)
    main.tick()
    service.script.append(Refusal(grpc.StatusCode.INTERNAL, "INTERNAL"))
    assert await main.send() is not None
    assert len(service.requests) == 1
    assert len(main.firings) == 6
    assert await main.send() is None
    assert len(service.tasks) == 6


async def test_what_the_server_will_never_take_is_logged_and_left_behind(
    service: ScriptedSchedulerService, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    main, clock = a_main(scheduler)
    main.every(minutes=1).do(SoupTask)
    main.every(minutes=1).do(StewTask)
    main.every(minutes=1).do(cook, dish="eggs")
    main.tick()
    clock.move(60)
    main.tick()
    faults = (("tasks[1].payload", "must be at most 5 bytes"),)
    service.script.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", fields=faults))
    service.script.append(
        lambda request: pb.EnqueueResponse(
            results=[
                pb.EnqueueResult(task_id=request.tasks[0].task_id, outcome=pb.ENQUEUE_OUTCOME_CREATED),
                pb.EnqueueResult(task_id=request.tasks[1].task_id, outcome=pb.ENQUEUE_OUTCOME_CONFLICT),
            ]
        )
    )
    assert await main.send() is None
    assert not main.firings
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "main.stew" in errors[0]
    assert "must be at most 5 bytes" in errors[0]
    assert "other content" in caplog.text


async def test_what_could_not_be_sent_before_the_end_is_an_error(
    service: ScriptedSchedulerService, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler_client.main_scheduler._GRACE_SECONDS", 0.05)
    main, clock = a_main(scheduler)
    main.every(minutes=1).do(SoupTask)
    service.gate.clear()
    running = asyncio.ensure_future(main.run_async())
    await until(lambda: clock.waiting_until == START + 60)
    clock.move(60)
    await until(lambda: service.requests)
    main.stop()
    with pytest.raises(FiringsNotSent, match=r"1 firings were not enqueued, from main\.soup at 2026-01-01T00:01:00"):
        await running
    service.gate.set()


async def test_what_ends_the_sender_ends_the_main_scheduler(scheduler: Scheduler) -> None:
    main, clock = a_main(scheduler)
    main.every(minutes=1).do(SoupTask)
    running = asyncio.ensure_future(main.run_async())
    await until(lambda: clock.waiting_until == START + 60)
    await scheduler.close()
    clock.move(60)
    with pytest.raises(RuntimeError, match="closed"):
        await running


async def test_sigterm_ends_it_after_what_waits_was_sent(service: ScriptedSchedulerService) -> None:
    program = textwrap.dedent("""
        from scheduler_client import MainScheduler, Task
        class Soup(Task):
            name = "main.sigterm"
        main = MainScheduler()
        main.every("10ms").do(Soup)
        main.run()
        print("ended")
    """)
    async with serving(service) as address:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "TASKQ_ADDRESS": address},
        )
        while not service.tasks:
            service.arrived.clear()
            await service.arrived.wait()
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output == b"ended\n"
