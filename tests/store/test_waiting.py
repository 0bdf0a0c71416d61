"""What is known of due times without asking the database is never later than the truth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_server.store.waiting import Waiting

ROUTES, PRIORITIES, TIMES = st.integers(1, 3), st.integers(0, 9), st.integers(0, 20)


def test_nothing_waits_at_first() -> None:
    assert Waiting().next_due_us([1, 2]) is None
    assert Waiting().due(1, 1 << 60) == []


def test_the_earliest_note_counts() -> None:
    waiting = Waiting()
    for due in (7, 5, 9):
        waiting.note(1, 0, due)

    assert waiting.next_due_us([1]) == 5


def test_due_lists_the_priorities_that_may_be_due_the_largest_first() -> None:
    waiting = Waiting()
    waiting.note(1, 0, 5)
    waiting.note(1, 9, 5)
    waiting.note(1, 4, 6)
    waiting.note(2, 7, 1)

    assert waiting.due(1, 5) == [(9, 5), (0, 5)]
    assert waiting.due(1, 4) == []


def test_a_look_at_the_table_corrects_what_is_known() -> None:
    waiting = Waiting()
    waiting.note(1, 0, 5)
    for found in (8, None):
        look = waiting.look()
        look.found[1, 0] = found
        assert waiting.next_due_us([1]) != found, "not before it has ended"
        look.end()

        assert waiting.next_due_us([1]) == found


def test_what_is_noted_during_a_look_counts_though_the_look_did_not_see_it() -> None:
    waiting = Waiting()
    waiting.note(1, 0, 3)
    look = waiting.look()
    waiting.note(1, 0, 5)
    waiting.note(2, 7, 6)
    look.found[1, 0] = None
    look.end()

    assert waiting.due(1, 9) == [(0, 5)]
    assert waiting.due(2, 9) == [(7, 6)]


@pytest.mark.parametrize("older_ends_first", [False, True])
def test_what_one_look_has_found_counts_though_another_that_goes_on_did_not_see_it(older_ends_first: bool) -> None:
    waiting = Waiting()
    older, newer = waiting.look(), waiting.look()
    older.found[1, 0] = None
    newer.found[1, 0] = 5
    for look in (older, newer) if older_ends_first else (newer, older):
        look.end()

    assert waiting.due(1, 9) == [(0, 5)]


def test_what_a_look_corrects_is_not_brought_back_by_one_that_has_ended() -> None:
    waiting = Waiting()
    waiting.note(1, 0, 5)
    for found in (5, None):
        look = waiting.look()
        look.found[1, 0] = found
        look.end()

    assert waiting.next_due_us([1]) is None


def test_a_look_that_is_abandoned_changes_nothing() -> None:
    waiting = Waiting()
    waiting.note(1, 0, 5)
    look = waiting.look()
    look.found[1, 0] = None
    look.abandon()
    look.abandon()

    assert waiting.next_due_us([1]) == 5


@given(st.lists(st.tuples(ROUTES, PRIORITIES, TIMES)), TIMES)
def test_it_is_the_minimum_of_what_was_noted(notes: list[tuple[int, int, int]], now: int) -> None:
    waiting = Waiting()
    for note in notes:
        waiting.note(*note)

    for route in (1, 2, 3):
        times = {p: min(at for r, q, at in notes if (r, q) == (route, p)) for r, p, _ in notes if r == route}
        assert waiting.next_due_us([route]) == min(times.values(), default=None)
        assert waiting.due(route, now) == sorted(((p, at) for p, at in times.items() if at <= now), reverse=True)
