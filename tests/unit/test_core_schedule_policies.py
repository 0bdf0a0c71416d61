"""What becomes of firings that were missed, and of those whose like still runs."""

from __future__ import annotations

from typing import Any

import pytest

from taskq_server.core.schedule import (
    DEFAULT_CATCH_UP,
    DEFAULT_CATCH_UP_WINDOW_US,
    CatchingUp,
    CatchUp,
    Decision,
    Overlap,
    Recurrence,
    Rule,
    catch_up,
    decide,
    recurrence,
)
from tests.unit.schedules import DAY, HOUR, ID, MINUTE, SECOND, a_cron, at

NOON = at("2026-01-01T12:00")
HOURLY = a_cron("@hourly")


def missed_hours(policy: CatchUp, window: int = DAY, most: int = 100, now: int = NOON + MINUTE) -> CatchingUp:
    """The server was away from seven until a minute past noon: 08:00 to 12:00 were missed."""
    return catch_up(HOURLY, NOON - 4 * HOUR, now, policy, window, most)


@pytest.mark.parametrize(
    ("policy", "fire_hours", "missed"),
    [
        (CatchUp.SKIP, [], 5),
        (CatchUp.LAST, [12], 4),
        (CatchUp.FIRST, [8], 4),
        (CatchUp.ALL, [8, 9, 10, 11, 12], 0),
    ],
)
def test_the_policy_says_what_is_made_up_and_the_rest_is_missed(
    policy: CatchUp, fire_hours: list[int], missed: int
) -> None:
    assert missed_hours(policy) == CatchingUp([NOON + (h - 12) * HOUR for h in fire_hours], missed, NOON + HOUR)


@pytest.mark.parametrize(
    ("policy", "fire_hours", "missed"),
    [
        (CatchUp.SKIP, [], 5),
        (CatchUp.LAST, [12], 4),
        (CatchUp.FIRST, [10], 4),
        (CatchUp.ALL, [10, 11, 12], 2),
    ],
)
def test_what_is_older_than_the_window_is_missed(policy: CatchUp, fire_hours: list[int], missed: int) -> None:
    done = missed_hours(policy, window=2 * HOUR + MINUTE)

    assert done == CatchingUp([NOON + (h - 12) * HOUR for h in fire_hours], missed, NOON + HOUR)


@pytest.mark.parametrize("policy", CatchUp)
def test_with_no_window_nothing_late_is_made_up(policy: CatchUp) -> None:
    assert missed_hours(policy, window=0) == CatchingUp([], 5, NOON + HOUR)


@pytest.mark.parametrize("policy", CatchUp)
@pytest.mark.parametrize("seconds", [0, 1, 10])
def test_what_is_on_time_fires_whatever_the_policy(policy: CatchUp, seconds: int) -> None:
    done = catch_up(HOURLY, NOON, NOON + seconds * SECOND, policy, 0, 100)

    assert done == CatchingUp([NOON], 0, NOON + HOUR)


def test_what_is_eleven_seconds_late_was_missed() -> None:
    assert catch_up(HOURLY, NOON, NOON + 11 * SECOND, CatchUp.SKIP, DAY, 100) == CatchingUp([], 1, NOON + HOUR)


def test_the_last_is_not_made_up_when_one_is_on_time() -> None:
    assert missed_hours(CatchUp.LAST, now=NOON) == CatchingUp([NOON], 4, NOON + HOUR)


def test_the_first_is_made_up_and_the_one_on_time_fires() -> None:
    assert missed_hours(CatchUp.FIRST, now=NOON) == CatchingUp([NOON - 4 * HOUR, NOON], 3, NOON + HOUR)


@pytest.mark.parametrize("policy", CatchUp)
def test_how_late_a_firing_is_counts_from_when_it_is_due_after_its_jitter(policy: CatchUp) -> None:
    """The window is shorter than what the jitter puts off."""
    put_off = Recurrence(Rule(crons=("@hourly",), jitter_us=30 * MINUTE), ID)
    due_us = put_off.due_us(NOON)
    assert due_us > NOON + MINUTE

    before = catch_up(put_off, NOON, due_us - 1, policy, 20 * SECOND, 100)
    on_time = catch_up(put_off, NOON, due_us + 10 * SECOND, policy, 20 * SECOND, 100)
    late = catch_up(put_off, NOON, due_us + 11 * SECOND, policy, 20 * SECOND, 100)
    too_late = catch_up(put_off, NOON, due_us + 21 * SECOND, policy, 20 * SECOND, 100)

    assert before == CatchingUp([], 0, NOON)
    assert on_time == CatchingUp([NOON], 0, NOON + HOUR)
    assert late.fire_us == ([] if policy is CatchUp.SKIP else [NOON])
    assert too_late == CatchingUp([], 1, NOON + HOUR)


def test_before_its_time_nothing_happens() -> None:
    for policy in CatchUp:
        assert catch_up(HOURLY, NOON, NOON - 1, policy, DAY, 100) == CatchingUp([], 0, NOON)


def test_all_are_made_up_some_at_a_time_and_in_order() -> None:
    first = missed_hours(CatchUp.ALL, most=2)
    assert first == CatchingUp([NOON - 4 * HOUR, NOON - 3 * HOUR], 0, NOON - 2 * HOUR)
    assert first.next_us is not None

    rest = catch_up(HOURLY, first.next_us, NOON + MINUTE, CatchUp.ALL, DAY, 100)
    assert rest == CatchingUp([NOON - 2 * HOUR, NOON - HOUR, NOON], 0, NOON + HOUR)


def test_what_the_window_has_passed_is_counted_once_when_all_come_some_at_a_time() -> None:
    first = missed_hours(CatchUp.ALL, window=2 * HOUR + MINUTE, most=2)

    assert first == CatchingUp([NOON - 2 * HOUR, NOON - HOUR], 2, NOON)


def test_no_more_than_most_fire_even_if_all_are_on_time() -> None:
    each_second = a_cron("* * * * * *")

    done = catch_up(each_second, NOON - 5 * SECOND, NOON, CatchUp.SKIP, DAY, 3)

    assert done == CatchingUp([NOON - 5 * SECOND, NOON - 4 * SECOND, NOON - 3 * SECOND], 0, NOON - 2 * SECOND)


def test_a_schedule_that_has_ended_meanwhile_says_so() -> None:
    ended = a_cron("@hourly", end_us=NOON)

    assert catch_up(ended, NOON - HOUR, NOON + DAY, CatchUp.LAST, 7 * DAY, 100) == CatchingUp([NOON - HOUR], 0, None)


@pytest.mark.parametrize("policy", [CatchUp.SKIP, CatchUp.LAST, CatchUp.FIRST])
def test_a_year_of_seconds_is_counted_exactly_and_at_once(policy: CatchUp) -> None:
    each_second = a_cron("* * * * * *", zone="Europe/Berlin")
    year_ago, late = NOON - 365 * DAY, 365 * 86_400 + 20  # and eleven on time

    done = catch_up(each_second, year_ago, NOON + 30 * SECOND, policy, 365 * DAY + MINUTE, 1)

    first = year_ago if policy is CatchUp.FIRST else NOON + 20 * SECOND
    assert done.fire_us == [first]
    assert done.missed == (late - 1 if policy is CatchUp.FIRST else late)
    assert done.next_us == NOON + (20 if policy is CatchUp.FIRST else 21) * SECOND


def test_an_interval_is_counted_exactly_however_long_it_was_missed() -> None:
    every = Recurrence(Rule(interval_us=SECOND), ID)

    done = catch_up(every, NOON - 365 * DAY + SECOND, NOON, CatchUp.SKIP, 0, 100)

    assert done.missed == 365 * 86_400 - 11
    assert done.fire_us == [NOON - n * SECOND for n in range(10, -1, -1)]


def test_excluded_times_count_among_those_that_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a rule of which most is excluded would hold up all others for seconds."""
    looked = 0
    look = recurrence._Compiled.next_after

    def counted(parts: recurrence._Compiled, time_us: int) -> Any:
        nonlocal looked
        looked += 1
        return look(parts, time_us)

    minutely = Recurrence(Rule(crons=("* * * * *",), excluded_crons=("1-58 * * * *",)), ID)
    monkeypatch.setattr(recurrence._Compiled, "next_after", counted)

    missed = minutely.count(NOON - 100 * DAY, NOON)

    assert looked <= recurrence.MOST_WALKED + recurrence.MOST_EXCLUDED
    assert 100 * 24 * 2 <= missed <= 101 * 24 * 60


def test_several_crons_are_counted_one_by_one_up_to_a_point_and_then_at_most() -> None:
    several = a_cron("* * * * * *", "*/2 * * * * *")

    few = catch_up(several, NOON - 1_000 * SECOND, NOON + 30 * SECOND, CatchUp.SKIP, 0, 100)
    many = catch_up(several, NOON - DAY, NOON + 30 * SECOND, CatchUp.SKIP, 0, 100)

    assert few.missed == 1_020
    assert 86_420 <= many.missed <= 1.5 * 86_420


def test_by_default_the_last_of_a_week_is_made_up() -> None:
    assert (DEFAULT_CATCH_UP, DEFAULT_CATCH_UP_WINDOW_US) == (CatchUp.LAST, 7 * DAY)


@pytest.mark.parametrize("overlap", Overlap)
def test_with_nothing_unfinished_a_firing_fires(overlap: Overlap) -> None:
    assert decide(overlap, 0, 0, 10) is Decision.FIRE


@pytest.mark.parametrize(
    ("overlap", "unfinished", "buffered", "decision"),
    [
        (Overlap.SKIP, 1, 0, Decision.SKIP),
        (Overlap.BUFFER_ONE, 1, 0, Decision.BUFFER),
        (Overlap.BUFFER_ONE, 1, 1, Decision.SKIP),
        (Overlap.BUFFER_ALL, 1, 0, Decision.BUFFER),
        (Overlap.BUFFER_ALL, 1, 9, Decision.BUFFER),
        (Overlap.BUFFER_ALL, 1, 10, Decision.SKIP),
        (Overlap.BUFFER_ALL, 0, 3, Decision.BUFFER),
        (Overlap.BUFFER_ONE, 0, 1, Decision.SKIP),
        (Overlap.CANCEL_OTHER, 1, 0, Decision.CANCEL_THEN_FIRE),
        (Overlap.CANCEL_OTHER, 3, 0, Decision.CANCEL_THEN_FIRE),
        (Overlap.ALLOW_ALL, 7, 0, Decision.FIRE),
    ],
)
def test_with_tasks_unfinished_the_overlap_policy_decides(
    overlap: Overlap, unfinished: int, buffered: int, decision: Decision
) -> None:
    assert decide(overlap, unfinished, buffered, 10) is decision


def test_a_buffer_of_nothing_skips() -> None:
    assert decide(Overlap.BUFFER_ALL, 1, 0, 0) is Decision.SKIP
    assert decide(Overlap.BUFFER_ONE, 1, 0, 0) is Decision.SKIP
