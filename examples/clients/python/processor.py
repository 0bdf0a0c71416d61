"""The tasks of `taskq conformance`, run by processor_client: python -m examples.clients.python.processor"""

import asyncio
from pathlib import Path
from typing import Any

from processor_client import Context, Fail, Processor

processor = Processor(concurrency=100)


@processor.task("conformance.echo")
async def echo(ctx: Context) -> Any:
    return ctx.payload


@processor.task("conformance.sleep")
async def sleep(seconds: float, file: str) -> None:
    await asyncio.to_thread(note, file, "begin")
    await asyncio.sleep(seconds)
    await asyncio.to_thread(note, file, "end")


@processor.task("conformance.fail")
async def fail(error_type: str, message: str, retryable: bool) -> None:
    # A failure that may be retried is any exception, whose class is its type.
    raise (
        type(error_type, (Exception,), {"__module__": "__main__"})(message)
        if retryable
        else Fail(message, error_type=error_type)
    )


@processor.task("conformance.large")
async def large(**size: int) -> bytes:
    return bytes(size["bytes"])


def note(file: str, word: str) -> None:
    with Path(file).open("a") as notes:
        notes.write(f"{word}\n")


if __name__ == "__main__":
    processor.run()
