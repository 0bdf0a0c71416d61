"""A scheduler under test: enqueues through scheduler_client until SIGTERM, and writes down what it was answered.

A patient one lets the client repeat a call until it is answered. An impatient one (`--timeout`) gives up soon, so that
the outcome is unknown, and asks again for every second of those, as a program would that found the error in its log.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

from client_core.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    TaskqError,
    Unavailable,
    Unknown,
)
from scheduler_client import Scheduler, new_task
from scheduler_client.ids import new_task_id
from taskq.v1.scheduler_service_pb2 import NewTask
from tests.support.history import History, digest
from tests.support.program import READY

UNKNOWN_OUTCOME = (Unavailable, DeadlineExceeded, Cancelled, Internal, Unknown, ResourceExhausted)
"""Also of one that says "not now": the client repeats a call, and an earlier try may have been more than that."""


class Load:
    """Coroutines that each enqueue a few tasks, wait for the answers, and go on."""

    def __init__(self, scheduler: Scheduler, history: History, flags: argparse.Namespace) -> None:
        self._scheduler = scheduler
        self._history = history
        self._flags = flags
        self._random = random.Random(flags.seed)
        self._stop = asyncio.Event()
        self._unanswered: deque[NewTask] = deque()

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        await asyncio.gather(*(self._keep_enqueueing() for _ in range(self._flags.lanes)))

    async def _keep_enqueueing(self) -> None:
        while not self._stop.is_set():
            if self._unanswered and self._random.random() < 0.5:
                await self._enqueue(self._unanswered.popleft())
            else:
                await asyncio.gather(*(self._enqueue(self._new_task()) for _ in range(self._flags.burst)))
            try:
                async with asyncio.timeout(self._random.uniform(0, 2 * self._flags.pause)):
                    await self._stop.wait()
            except TimeoutError:
                pass

    def _new_task(self) -> NewTask:
        later = self._random.uniform(0, self._flags.spread) if self._random.random() < 0.3 else 0.0
        due = round(time.time() + later, 6)
        payload = {"seconds": round(self._random.uniform(0, 2 * self._flags.work), 4), "text": "x" * 80}
        at = due if later else None
        priority = self._random.randrange(10)
        task = new_task(self._flags.task, payload, task_id=new_task_id(), priority=priority, at=at)
        facts: dict[str, Any] = {
            "due": due,
            "priority": priority,
            "payload": digest(task.payload.data),
            "name": task.name,
        }
        self._history.write("enqueue", "invoke", task.task_id, **facts)
        return task

    async def _enqueue(self, task: NewTask) -> None:
        try:
            handle = await self._scheduler.enqueue(task)
        except UNKNOWN_OUTCOME as error:
            self._history.write("enqueue", "info", task.task_id, error=error.code.name)
            self._unanswered.append(task)
        except TaskqError as error:
            self._history.write("enqueue", "fail", task.task_id, error=error.code.name, reason=error.reason)
        else:
            self._history.write("enqueue", "ok", handle.task_id, outcome=handle.outcome.value)


async def main(flags: argparse.Namespace) -> None:
    history = History(flags.history, flags.name)
    async with Scheduler(flags.address, timeout=flags.timeout) as scheduler:
        load = Load(scheduler, history, flags)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
        print(READY, flush=True)
        await load.run()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", default="work")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--lanes", type=int, default=4, help="how many enqueue at a time")
    parser.add_argument("--burst", type=int, default=2, help="tasks that each enqueues at once")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two bursts of a lane, on average")
    parser.add_argument("--spread", type=float, default=1.0, help="how far ahead scheduled tasks are due, in seconds")
    parser.add_argument("--work", type=float, default=0.01, help="how long a task runs on average, in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse()))
