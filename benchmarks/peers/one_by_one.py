"""64 callers in one process, each of whom enqueues one task, waits for the answer, and enqueues the next.

Callers are threads where the system's interface blocks, and coroutines of one event loop where it does not. No worker
runs.
"""

from __future__ import annotations

from benchmarks.peers.field import System
from benchmarks.peers.stage import staged
from benchmarks.report import Figures


def run(system: System, tasks: int) -> Figures:
    with staged(system) as stage:
        told = stage.play("one_by_one", tasks=tasks)
    return {"enqueue /s": tasks / (told["ended"] - told["started"])}
