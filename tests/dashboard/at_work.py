"""A server at work: what has run, runs, waits and fails, so that pages have something of each kind to show."""

from __future__ import annotations

from dataclasses import dataclass

from taskq.v1 import processor_service_pb2 as processor_pb2
from tests.dashboard.conftest import Site
from tests.rpc.support import RawProcessor, a_task, retrying, span
from tests.rpc.test_stats import written
from tests.support.schedules import RawSchedules, every

FIRINGS = 3


@dataclass
class AtWork:
    """What there is, by its id."""

    processor: RawProcessor
    running: str
    succeeded: str
    failed: str
    retried: str
    waiting: str
    schedule_id: str
    held: processor_pb2.AssignedTask
    """What runs."""


async def at_work(site: Site) -> AtWork:
    """A processor that has cooked and burnt, and cooks; tasks to come; a schedule that has fired, and will."""
    schedules = RawSchedules(site.channel())
    processor = await site.processor("oven", can=("cook", "bake", "clean"), labels={"zone": "eu"})
    schedule = await schedules.create(every(600, "tidy", task="clean"))
    for i in range(FIRINGS):
        await schedules.trigger(schedule_id=schedule.schedule_id)
        task = await processor.take_one()
        site.clock.advance(1 + i)
        await (processor.fail(task, retryable=False) if i == 1 else processor.succeed(task))
    succeeded = await site.scheduler.enqueue("cook", b'{"dish": "soup"}')
    task = await processor.take_one()
    site.clock.advance(2)
    await processor.succeed(task, b'{"is": "good"}')
    failed = await site.scheduler.enqueue("bake", retry_policy=retrying(max_attempts=1))
    await processor.fail(await processor.take_one(), message="the bread is black", stack="File oven.py, line 1")
    retried = await site.scheduler.enqueue("bake", retry_policy=retrying(7_200, max_attempts=3))
    await processor.fail(await processor.take_one(), message="the bread is pale")
    waiting = await site.scheduler.enqueue("cook", delay=span(3_600))
    await site.scheduler.enqueue_all(*(a_task("cook", delay=span(120)) for _ in range(3)))
    await site.scheduler.enqueue("fly")  # which nobody can
    running = await site.scheduler.enqueue("cook")
    held = await processor.take_one()
    site.clock.advance(4)
    await processor.heartbeat(held, progress={"fraction": 0.25, "message": "stirring"})
    await written(site)
    return AtWork(processor, running, succeeded, failed, retried, waiting, schedule.schedule_id, held)
