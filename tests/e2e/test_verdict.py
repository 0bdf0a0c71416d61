"""The judge itself: each rule is seen to be broken, and a run in which nothing happened is no success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from taskq_server.core.task import Outcome, TaskState
from tests.support.history import Event
from tests.support.invariants import Seen
from tests.support.ledger import Run
from tests.support.truth import Attempt, Task
from tests.support.verdict import judge

DUE = 1_000.0
ASKED = Event(DUE, "scheduler", "enqueue", "invoke", "t", 0, {"due": DUE, "name": "n", "priority": 0, "payload": "p"})
ANSWERED = Event(DUE, "scheduler", "enqueue", "ok", "t", 0, {"outcome": "CREATED"})
ACCEPTED = Event(DUE, "second", "report", "ok", "t", 2, {})


def a_run() -> Seen:
    """One task, whose first processor died and whose second succeeded."""
    lost = Attempt(1, 1, "first", 1_000_000_000, 1_002_000_000, Outcome.LOST)
    last = Attempt(2, 2, "second", 1_002_000_000, 1_003_000_000, Outcome.SUCCEEDED)
    task = Task("t", "n", TaskState.SUCCEEDED, 2, 1, 1, 0, 1_000_000_000, 1_000_000_000, "p", None, [lost, last])
    runs = [Run("first", 1, DUE, None, DUE), Run("second", 2, DUE + 2, DUE + 3, DUE)]
    return Seen([ASKED, ANSWERED, ACCEPTED], {"t": runs}, {"t": task})


def test_a_run_that_keeps_all_rules_is_valid() -> None:
    verdict = judge(a_run(), floors={"lost_leases": 1})
    assert (verdict.word, verdict.faults) == ("VALID", [])


def test_a_run_in_which_too_little_happened_is_unknown() -> None:
    verdict = judge(a_run(), floors={"lost_leases": 2})
    assert (verdict.word, verdict.missing) == ("UNKNOWN", ["only 1 lost_leases; must be 2"])


def loses(seen: Seen) -> None:
    seen.tasks.clear()


def invents(seen: Seen) -> None:
    seen.tasks["u"] = replace(seen.tasks["t"], task_id="u")


def changes_the_payload(seen: Seen) -> None:
    seen.tasks["t"].payload_digest = "q"


def accepts_twice(seen: Seen) -> None:
    seen.history.append(replace(ACCEPTED, observer="first"))


def accepts_a_stale_report(seen: Seen) -> None:
    seen.history[-1] = replace(ACCEPTED, observer="first", attempt=1)


def succeeds_without_a_run(seen: Seen) -> None:
    del seen.runs["t"][1]


def leases_twice_at_a_time(seen: Seen) -> None:
    seen.tasks["t"].attempts[1] = replace(seen.tasks["t"].attempts[1], lease_us=1_001_000_000)


def skips_an_attempt(seen: Seen) -> None:
    del seen.tasks["t"].attempts[0]


def runs_an_attempt_twice(seen: Seen) -> None:
    seen.runs["t"].append(seen.runs["t"][1])


def leases_early(seen: Seen) -> None:
    seen.tasks["t"].attempts[0] = replace(seen.tasks["t"].attempts[0], lease_us=999_999_999)


def runs_early(seen: Seen) -> None:
    seen.runs["t"][0] = replace(seen.runs["t"][0], began=DUE - 1)


def feeds_the_poison(seen: Seen) -> None:
    seen.tasks["t"].lost_leases = 4


def runs_again_without_a_reason(seen: Seen) -> None:
    seen.tasks["t"].attempts[0] = replace(seen.tasks["t"].attempts[0], outcome=Outcome.CANCELLED)


def leaves_it_running(seen: Seen) -> None:
    seen.tasks["t"].state = TaskState.RUNNING


@pytest.mark.parametrize(
    ("breaks", "fault"),
    [
        (loses, "lost: "),
        (invents, "phantom: nobody"),
        (changes_the_payload, "phantom: t is not what"),
        (accepts_twice, "two successes: t was accepted 2 times"),
        (accepts_a_stale_report, "two successes: attempt 1"),
        (succeeds_without_a_run, "never ran: "),
        (leases_twice_at_a_time, "two leases: "),
        (skips_an_attempt, "attempts: t has [2]"),
        (runs_an_attempt_twice, "attempts: t ran [1, 2, 2]"),
        (leases_early, "early: t was leased"),
        (runs_early, "early: t ran"),
        (feeds_the_poison, "poison: "),
        (runs_again_without_a_reason, "duplicate: "),
        (leaves_it_running, "stuck: "),
    ],
)
def test_each_broken_rule_is_named(breaks: Callable[[Seen], None], fault: str) -> None:
    seen = a_run()
    breaks(seen)
    seen = Seen(seen.history, seen.runs, seen.tasks)

    verdict = judge(seen, floors={})

    assert verdict.word == "INVALID"
    assert any(found.startswith(fault) for found in verdict.faults), str(verdict)
