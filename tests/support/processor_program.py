"""A processor under test: runs tasks through processor_client until SIGTERM, and writes down what its handlers did."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from processor_client import Context, Processor
from processor_client import Task as TaskHandler
from tests.support import ledger
from tests.support.history import History
from tests.support.program import READY

HISTORY: History
LEDGER: History


class Noted(TaskHandler):
    """Writes into the ledger what it does, and into the history what the server has accepted."""

    def begin(self) -> None:
        due = self.ctx.due_time.timestamp()
        LEDGER.write(ledger.OP, "invoke", self.ctx.task_id, self.ctx.attempt, due=due)

    def end(self) -> None:
        LEDGER.write(ledger.OP, "ok", self.ctx.task_id, self.ctx.attempt)

    async def success(self, ctx: Context) -> None:
        HISTORY.write("report", "ok", ctx.task_id, ctx.attempt)


class Work(Noted):
    """Waits as long as its payload says, and answers how long that was."""

    name = "work"

    async def process(self, seconds: float, **_: Any) -> float:
        self.begin()
        await asyncio.sleep(seconds)
        self.end()
        return seconds


class Hog(Noted):
    """Holds the interpreter as long as its payload says, and lets nothing else on the loop run."""

    name = "hog"

    async def process(self, seconds: float, **_: Any) -> None:
        self.begin()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        self.end()


class Poison(Noted):
    """Kills the processor that runs it."""

    name = "poison"

    async def process(self, **_: Any) -> None:
        self.begin()
        os.kill(os.getpid(), signal.SIGKILL)


class Flaky(Noted):
    """Fails the first time."""

    name = "flaky"

    async def process(self, ctx: Context, seconds: float, **_: Any) -> None:
        self.begin()
        await asyncio.sleep(seconds)
        if ctx.attempt == 1:
            raise RuntimeError("the first attempt fails")
        self.end()


HANDLERS = {handler.name: handler for handler in (Work, Hog, Poison, Flaky)}


async def main(flags: argparse.Namespace) -> None:
    processors = [a_processor(flags, copy) for copy in range(flags.copies)]
    if len(processors) == 1:
        await run_alone(processors[0])
        return
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.gather(*(processor.start() for processor in processors))
    print(READY, flush=True)
    await stop.wait()
    await asyncio.gather(*(processor.stop() for processor in processors))


async def run_alone(processor: Processor) -> None:
    """By the product's own handling of signals."""

    async def say_ready() -> None:
        # The public interface says only `await start()`, which run_async() calls itself.
        while processor._session is None:
            await asyncio.sleep(0.01)
        print(READY, flush=True)

    ready = asyncio.create_task(say_ready())
    await processor.run_async()
    ready.cancel()


def a_processor(flags: argparse.Namespace, copy: int) -> Processor:
    """The only one, which runs what it was told to; of several, each runs work of its own: `work.<name>.<copy>`."""
    processor = Processor(
        flags.address,
        [HANDLERS[name] for name in flags.tasks.split(",")] if flags.copies == 1 else (),
        name=flags.name,
        concurrency=flags.concurrency,
        drain_timeout=flags.drain_timeout,
    )
    if flags.copies > 1:
        processor.task(f"work.{flags.name}.{copy}")(work)
    return processor


async def work(ctx: Context) -> None:
    """As Work, without its hook."""
    LEDGER.write(ledger.OP, "invoke", ctx.task_id, ctx.attempt, due=ctx.due_time.timestamp())
    LEDGER.write(ledger.OP, "ok", ctx.task_id, ctx.attempt)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--tasks", default="work")
    parser.add_argument("--copies", type=int, default=1, help="how many processors, each with a name of its own")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--drain-timeout", type=float, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    given = parse()
    HISTORY = History(given.history, given.name)
    LEDGER = History(given.ledger, given.name)
    asyncio.run(main(given))
