"""From just before an enqueue to the start of its handler, at three steady rates; one run of one system.

`sent /s` is the rate that was reached: where a system enqueues more slowly than it is asked to, its latency is that of
the lesser rate, and where its workers are slower still it grows with every second.
"""

from __future__ import annotations

from benchmarks import report
from benchmarks.peers.field import System
from benchmarks.peers.stage import Stage, staged
from benchmarks.report import Figures

RATES = {50: 20.0, 500: 5.0, 2000: 5.0}
"""Tasks a second, and for how many seconds: a thousand tasks at the least, for a 99.9th percentile."""
PER_MILLE = {"p50": 500, "p99": 990, "p99.9": 999}


def run(system: System, scale: float) -> Figures:
    figures: Figures = {}
    with staged(system.prompt) as stage, stage.working():
        for rate, seconds in RATES.items():
            figures |= _at(stage, rate, round(rate * seconds * scale))
    return figures


def _at(stage: Stage, rate: int, tasks: int) -> Figures:
    stage.forget()
    told = stage.play("steadily", tasks=tasks, per_second=rate)
    stage.until(lambda: stage.has_started(tasks), f"{tasks} tasks at {rate}/s were started")
    waited = [started - sent for sent, started in stage.starts()]
    figures = {f"{rate}/s {name} ms": report.percentile_ms(waited, share) for name, share in PER_MILLE.items()}
    return {**figures, f"{rate}/s sent /s": tasks / (told["ended"] - told["started"])}
