"""VALID, INVALID, or UNKNOWN: a run in which too little happened has shown nothing, and does not count as passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tests.support.invariants import RULES, Seen

Word = Literal["VALID", "INVALID", "UNKNOWN"]
MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run: the word, what broke which rule, and what happened how often."""

    word: Word
    faults: list[str]
    missing: list[str]
    counts: dict[str, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        shown = [*self.faults[:MOST_SHOWN], *self.missing]
        more = [f"and {len(self.faults) - MOST_SHOWN} more"] if len(self.faults) > MOST_SHOWN else []
        return "\n  ".join([f"{self.word}: {counts}", *shown, *more])


def judge(seen: Seen, *, floors: Mapping[str, int], happened: Mapping[str, int] | None = None) -> Verdict:
    """Holds all rules against what was seen. `floors`: how often what must have happened; `happened`: what only the
    test itself knows of, such as kills."""
    counts = {**_count(seen), **(happened or {})}
    faults = [fault for rule in RULES for fault in rule(seen)]
    missing = [f"only {counts[name]} {name}; must be {least}" for name, least in floors.items() if counts[name] < least]
    word: Word = "INVALID" if faults else "UNKNOWN" if missing else "VALID"
    return Verdict(word, faults, missing, counts)


def _count(seen: Seen) -> dict[str, int]:
    acknowledged = seen.ids("enqueue", "ok")
    ambiguous = seen.ids("enqueue", "info")
    unknown = ambiguous - acknowledged
    existing = [event for event in seen.by_op.get(("enqueue", "ok"), ()) if event.facts.get("outcome") == "EXISTING"]
    ended = Counter(
        attempt.outcome.name.lower() for task in seen.tasks.values() for attempt in task.attempts if attempt.outcome
    )
    return {
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - seen.tasks.keys()),
        "ambiguous": len(ambiguous),
        "unknown": len(unknown),
        "recovered": len(unknown & seen.tasks.keys()),
        "existing": len(existing),
        "runs": sum(map(len, seen.runs.values())),
        "duplicates": sum(len(runs) - 1 for runs in seen.runs.values()),
        "accepted": len(seen.by_op.get(("report", "ok"), ())),
        "stale": len(seen.by_op.get(("report", "fail"), ())),
        "succeeded": ended["succeeded"],
        "failed": ended["failed"],
        "lost_leases": ended["lost"],
        "not_received": ended["not_received"],
        "released": ended["released"],
    }
