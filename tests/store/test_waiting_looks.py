"""Two looks at once: what one has found, the other must not forget."""

from __future__ import annotations

from taskq_server.store.waiting import Waiting


def test_what_a_look_at_the_whole_has_found_outlives_a_lease_that_had_passed_over_it() -> None:
    waiting = Waiting()
    waiting.note(1, 0, 200)
    lease = waiting.look()  # asks for what is due at 200 or later
    whole = waiting.look()
    whole.found[1, 0] = 100  # another server has given one back that is due earlier
    whole.end()
    lease.found[1, 0] = 300

    lease.end()

    assert waiting.at((1, 0)) == 100


def test_a_look_that_found_nothing_more_is_believed_when_no_other_goes_on() -> None:
    waiting = Waiting()
    waiting.note(1, 0, 200)
    look = waiting.look()
    look.found[1, 0] = None
    look.end()

    assert waiting.at((1, 0)) is None


def test_a_look_that_has_ended_is_not_believed_again_when_its_transaction_is_run_again() -> None:
    waiting = Waiting()
    look = waiting.look()
    look.found[1, 0] = 200
    look.end()
    waiting.note(1, 0, 50)

    look.found[1, 0] = None
    look.end()

    assert waiting.at((1, 0)) == 50
