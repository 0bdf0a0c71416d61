"""What becomes of firings that were missed, and of those whose like still runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from taskq_server.core.schedule.recurrence import Recurrence
from taskq_server.core.schedule.rule import DAY_US, SECOND_US

ON_TIME_US = 10 * SECOND_US
"""A firing that was due no longer ago is not a miss: a server was restarted at once."""


class CatchUp(IntEnum):
    """What is made up of the firings that were missed (the server was down, the schedule was paused)."""

    SKIP = 1
    LAST = 2
    """The last one, unless a later one is on time: one run brings things up to date."""
    FIRST = 3
    """The first one within the window."""
    ALL = 4


DEFAULT_CATCH_UP = CatchUp.LAST
"""After an outage of a day a nightly job runs, and a job of every minute runs once and not 1,440 times."""
DEFAULT_CATCH_UP_WINDOW_US = 7 * DAY_US


@dataclass(frozen=True, slots=True)
class CatchingUp:
    """What is to be done now about the nominal times until now."""

    fire_us: list[int] = field(default_factory=list)
    missed: int = 0
    next_us: int | None = None
    """Where to go on. It may be past: then there is more to fire at once."""


def catch_up(
    recurrence: Recurrence, next_us: int, now_us: int, policy: CatchUp, window_us: int, most: int
) -> CatchingUp:
    """What to fire of the nominal times from `next_us`, which is the first that was not seen to, that are due by
    `now_us`. How late one is counts from when it is due, and not from before its jitter.

    Those older than the window, and those that the policy drops, are missed (`Recurrence.count` says how exactly they
    are counted). No more than `most` fire; then `next_us` of the answer says where to go on.
    """
    due_by_us = recurrence.last_due_by(now_us)
    if next_us > due_by_us:
        return CatchingUp(next_us=next_us)
    before_us = next_us - 1
    late_us = recurrence.last_due_by(now_us - ON_TIME_US - 1)  # the latest that is late
    window_ends_us = recurrence.last_due_by(now_us - window_us - 1)
    oldest_us = max(before_us, min(late_us, window_ends_us))  # none older is made up
    chosen, walked_us = _late(recurrence, oldest_us, late_us, due_by_us, policy, most)
    if policy is CatchUp.ALL and len(chosen) == most:
        missed = recurrence.count(before_us, oldest_us)
        return CatchingUp(chosen, missed, recurrence.next_after(walked_us))
    missed = recurrence.count(before_us, late_us) - len(chosen) if before_us < late_us else 0
    fire = chosen
    after_us = max(before_us, late_us)
    while True:
        following = recurrence.next_after(after_us)
        if following is None or following > due_by_us or len(fire) == most:
            return CatchingUp(fire, missed, following)
        fire.append(following)
        after_us = following


def _late(
    recurrence: Recurrence, oldest_us: int, late_us: int, due_by_us: int, policy: CatchUp, most: int
) -> tuple[list[int], int]:
    """Which of the late ones fire, and how far they were looked at."""
    chosen: list[int] = []
    if policy is CatchUp.FIRST or policy is CatchUp.ALL:
        after_us = oldest_us
        while len(chosen) < (1 if policy is CatchUp.FIRST else most):
            following = recurrence.next_after(after_us)
            if following is None or following > late_us:
                break
            chosen.append(following)
            after_us = following
        return chosen, after_us
    if policy is CatchUp.LAST:
        on_time_us = recurrence.next_after(late_us)
        if on_time_us is None or on_time_us > due_by_us:
            last = recurrence.last_until(late_us, oldest_us)
            chosen = [] if last is None else [last]
    return chosen, late_us


class Overlap(IntEnum):
    """What a firing does when tasks of the schedule are unfinished."""

    SKIP = 1
    BUFFER_ONE = 2
    BUFFER_ALL = 3
    CANCEL_OTHER = 4
    ALLOW_ALL = 5


class Decision(IntEnum):
    FIRE = 1
    SKIP = 2
    BUFFER = 3
    CANCEL_THEN_FIRE = 4


def decide(overlap: Overlap, unfinished: int, buffered: int, most_buffered: int) -> Decision:
    """What a firing does, given how many tasks of its schedule are unfinished and how many firings wait for them.

    A firing waits behind those that wait already, even if nothing is unfinished: they keep their order.
    """
    if overlap is Overlap.ALLOW_ALL or (unfinished == 0 and buffered == 0):
        return Decision.FIRE
    if overlap is Overlap.CANCEL_OTHER:
        return Decision.CANCEL_THEN_FIRE if unfinished else Decision.FIRE
    if overlap is Overlap.SKIP:
        return Decision.SKIP if unfinished else Decision.FIRE
    room = min(1, most_buffered) if overlap is Overlap.BUFFER_ONE else most_buffered
    return Decision.BUFFER if buffered < room else Decision.SKIP
