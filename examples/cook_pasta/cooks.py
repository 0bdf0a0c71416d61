"""The processors: who can cook what.

`python -m examples.cook_pasta.cooks mario` runs one cook until SIGTERM. What a cook does he also says, a line of JSON
each on standard output: the demo listens.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time

from processor_client import Context, Processor, Task

STEPS = 8
speaking = threading.Lock()


def say(event: str, ctx: Context) -> None:
    line = {
        "event": event,
        "task_id": ctx.task_id,
        "attempt": ctx.attempt,
        "time": time.time(),
        "due": ctx.due_time.timestamp(),
    }
    with speaking:  # hooks speak from threads
        print(json.dumps(line), flush=True)


class Cook(Task):
    """Cooks a dish in a few steps and tells how far it is."""

    verb = "cooking"

    async def process(self, ctx: Context, dish: str, seconds: float) -> dict[str, str]:
        say("started", ctx)
        for step in range(STEPS):
            await ctx.progress(step / STEPS, f"{self.verb} {dish}")
            await asyncio.sleep(seconds / STEPS)
        return {"served": dish}

    def success(self, ctx: Context) -> None:
        say("served", ctx)

    def failure(self, ctx: Context, error: BaseException, will_retry: bool) -> None:
        ctx.log.warning("burnt: %s; %s", error, "again" if will_retry else "off the menu")


class PastaCook(Cook):
    CAPABILITIES = ("kitchen.boil_pasta",)
    verb = "boiling"


class SauceCook(Cook):
    CAPABILITIES = ("kitchen.make_sauce",)
    verb = "stirring"


class BreadCook(Cook):
    CAPABILITIES = ("kitchen.bake_bread",)
    verb = "baking"


COOKS: dict[str, list[type[Cook]]] = {
    "mario": [PastaCook, SauceCook],
    "luigi": [PastaCook, BreadCook],
}


def main() -> None:
    name = sys.argv[1]
    Processor(tasks=COOKS[name], name=name, concurrency=3, labels={"kitchen": "cook_pasta"}).run()


if __name__ == "__main__":
    main()
