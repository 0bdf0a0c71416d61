"""Start minus due, of tasks that are due at given instants; one run of one system.

First a flow, 100 a second for a minute; then a burst, 10,000 in one second. The instants are spread by chance, from a
seed. All of a burst are enqueued before the first is due.

    p50, p99, max   milliseconds
    early           how many were started before they were due
    burst s         from the first due instant until the last handler was started
    in time         1 if the burst was enqueued before it began; else its figures say how slowly it was enqueued
"""

from __future__ import annotations

from benchmarks import report
from benchmarks.peers.field import System
from benchmarks.peers.stage import Stage, staged
from benchmarks.report import Figures

FLOW_PER_SECOND = 100
FLOW_SECONDS = 60.0
FLOW_LEAD_SECONDS = 3.0
BURST_TASKS = 10_000
BURST_PER_SECOND = 400
"""Who enqueues more slowly than that is not in time."""


def run(system: System, scale: float, seed: int) -> Figures:
    with staged(system.prompt) as stage, stage.working(*system.timers):
        seconds = FLOW_SECONDS * scale
        flow = _of(stage, "flow", round(FLOW_PER_SECOND * seconds), seconds, FLOW_LEAD_SECONDS, seed)
        tasks = round(BURST_TASKS * scale)
        return flow | _of(stage, "burst", tasks, 1.0, FLOW_LEAD_SECONDS + tasks / BURST_PER_SECOND, seed)


def _of(stage: Stage, name: str, tasks: int, span: float, lead: float, seed: int) -> Figures:
    stage.forget()
    told = stage.play("due", tasks=tasks, span=span, seed=seed, lead=lead)
    stage.until(lambda: stage.has_started(tasks), f"the {name} was started")
    starts = stage.starts()
    late = [started - due for due, started in starts]
    return {
        f"{name} p50 ms": report.percentile_ms(late, 500),
        f"{name} p99 ms": report.percentile_ms(late, 990),
        f"{name} max ms": max(late) * 1000,
        f"{name} early": sum(one < 0 for one in late),
        f"{name} s": max(started for _, started in starts) - min(due for due, _ in starts),
        f"{name} in time": float(told["ended"] <= told["first"]),
    }
