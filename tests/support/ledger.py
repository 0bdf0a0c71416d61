"""The side effects of handlers: one file a processor, a line when a handler begins and one when it ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.history import Event

OP = "run"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a handler. `ended` is None when it never came to its end."""

    processor: str
    attempt: int
    began: float
    ended: float | None
    due: float


def runs_of(events: Iterable[Event]) -> dict[str, list[Run]]:
    """The runs of each task, in the order in which they began."""
    begun: dict[str, list[Event]] = defaultdict(list)
    ended: dict[tuple[str, int, str], float] = {}
    for event in events:
        if event.op != OP:
            continue
        if event.phase == "invoke":
            begun[event.task].append(event)
        else:
            ended[event.task, event.attempt, event.observer] = event.time
    return {
        task: [
            Run(e.observer, e.attempt, e.time, ended.get((task, e.attempt, e.observer)), e.facts["due"]) for e in events
        ]
        for task, events in begun.items()
    }
