"""Handlers that child processes import."""

import asyncio
import os
import signal
import sys
from typing import Any

from processor_client import Context, Fail, Snooze, Task
from tests.clients.scripted_processor_service import Runs


def square(n: int) -> dict[str, int]:
    return {"square": n * n, "pid": os.getpid()}


def misbehave(how: str) -> None:
    match how:
        case "exit":
            sys.exit(3)
        case "raise":
            raise LookupError("no oven")
        case "fail":
            raise Fail("no such dish", error_type="UNKNOWN_DISH")
        case "snooze":
            raise Snooze(delay="1h")
        case "die":
            os._exit(4)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)


def spin(ctx: Context) -> None:
    ctx.progress(0.5, f"{os.getpid()}")
    ctx.save_checkpoint({"spinning": True})
    while True:
        pass


async def wait_a_little(ctx: Context) -> str:
    await asyncio.sleep(0)
    return ctx.task_id


class Calculate(Task):
    name = "calculate"
    executor = "process"
    outcomes: Any = None

    def process(self, ctx: Context, args: dict[str, int]) -> dict[str, int]:
        if args["n"] < 0:
            raise ValueError("negative")
        return {"root": int(args["n"] ** 0.5)}

    async def success(self, ctx: Context, result: dict[str, int]) -> None:
        self.outcomes.put_nowait(result)

    async def failure(self, ctx: Context, error: Exception, *, will_retry: bool) -> None:
        self.outcomes.put_nowait((str(error), will_retry))


SQUARE = Runs("square", square, "process")
MISBEHAVE = Runs("misbehave", misbehave, "process")
SPIN = Runs("spin", spin, "process")
WAIT = Runs("wait", wait_a_little, "process")
