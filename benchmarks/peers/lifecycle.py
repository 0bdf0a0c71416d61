"""Tasks that do nothing, from the first enqueue until every result is recorded; one run of one system.

enqueue /s     from the first enqueue to the last answer, with no worker
drain /s       then the workers are started: from the start of the first handler until the last result is recorded
lifecycle /s   anew, with workers that are warm: from the first enqueue until the last result is recorded
CPU s/1000     seconds of all processes for 1,000 tasks of a lifecycle: store, server, workers, and who enqueues
KiB/1000       what the store, the server and the workers have written to files meanwhile; fsynced or not
peak MiB       the most that all processes held together, what they share counted once; looked at twice a second
"""

from __future__ import annotations

from benchmarks.peers.field import System
from benchmarks.peers.stage import WARM_TASKS, staged
from benchmarks.report import Figures


def run(system: System, tasks: int) -> Figures:
    return _apart(system, tasks) | _together(system, tasks)


def _apart(system: System, tasks: int) -> Figures:
    with staged(system) as stage:
        produced = stage.play("enqueue_all", tasks=tasks)
        with stage.starting():
            ended = stage.until(lambda: stage.results.all_recorded(tasks), "all was run")
            began = stage.first_start()
    return {
        "enqueue /s": tasks / (produced["ended"] - produced["started"]),
        "drain /s": tasks / (ended - began),
    }


def _together(system: System, tasks: int) -> Figures:
    with staged(system) as stage, stage.working(), stage.peak_memory() as peak:
        producer = stage.player("enqueue_all", tasks=tasks)
        before = stage.spent()
        producer.go()
        produced = producer.answer()
        ended = stage.until(lambda: stage.results.all_recorded(tasks + WARM_TASKS), "all was run")
        spent = {name: value - before[name] for name, value in stage.spent().items()}
        memory = peak()
    return {
        "lifecycle /s": tasks / (ended - produced["started"]),
        "CPU s/1000": (spent["CPU s"] + produced["cpu_seconds"]) * 1000 / tasks,
        "log KiB/1000": spent["log KiB"] * 1000 / tasks,
        "peak MiB": memory,
    }
