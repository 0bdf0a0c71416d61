"""What servers have noticed."""

from __future__ import annotations

from tests.rpc.support import RUNNING, soon
from tests.rpc.world import World


async def ends(world: World, task_id: str) -> None:
    """Returns once an attempt that is out of time has ended, whichever of the servers has noticed."""

    async def notice() -> None:
        while (await world.scheduler.get(task_id)).state == RUNNING:
            await world.server.housekeeper.tick()

    await soon(notice())
