"""What `taskq dev` runs when it is given nothing of yours."""

from __future__ import annotations

import asyncio

from processor_client import Context, Processor

processor = Processor(name="demo")


@processor.task("demo.hello")
async def hello(ctx: Context, name: str = "world", seconds: float = 0) -> dict[str, str]:
    """Greets; after `seconds`, telling how far it is."""
    for step in range(10 if seconds else 0):
        await ctx.progress(step / 10, f"thinking of {name}")
        await asyncio.sleep(seconds / 10)
    return {"greeting": f"Hello, {name}!"}
