"""What many say at about the same time is said together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.task import Payload
from taskq_server.rounds import Rounds
from taskq_server.session import Session, Sighting
from taskq_server.sessions import Sessions
from taskq_server.store.store import Store
from taskq_server.store.verbs.living import Held, NewSession, Sign


class Book:
    """Where rounds are written: each can be held up, or fail."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.error: Exception | None = None

    async def write(self, items: list[int]) -> list[int]:
        self.rounds.append(items)
        if self.error is not None:
            raise self.error
        return [10 * item for item in items]


async def test_who_comes_first_does_not_wait_and_who_comes_after_shares_the_next_round() -> None:
    book = Book()
    rounds = Rounds(book.write, 0.05)

    assert await rounds.join(1) == 10
    assert await asyncio.gather(*(rounds.join(i) for i in range(2, 7))) == [20, 30, 40, 50, 60]

    assert book.rounds == [[1], [2, 3, 4, 5, 6]]


async def test_there_is_no_round_for_nobody() -> None:
    book = Book()
    rounds = Rounds(book.write, 0.01)
    await rounds.join(1)

    await asyncio.sleep(0.05)
    assert rounds._going is None
    assert await rounds.join(2) == 20
    assert book.rounds == [[1], [2]]


async def test_a_round_that_fails_fails_for_all_who_were_in_it_and_for_nobody_else() -> None:
    book = Book()
    rounds = Rounds(book.write, 0.01)
    book.error = ZeroDivisionError()
    answers = await asyncio.gather(*(rounds.join(i) for i in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ZeroDivisionError] * 3

    book.error = None
    assert await rounds.join(4) == 40


async def test_who_goes_away_before_the_round_is_not_in_it() -> None:
    book = Book()
    rounds = Rounds(book.write, 0.02)
    await rounds.join(1)
    leaving, staying = (asyncio.create_task(rounds.join(i)) for i in (2, 3))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == 30
    assert book.rounds == [[1], [3]]


async def test_what_was_left_goes_with_the_next_round_and_hears_its_answer() -> None:
    book, heard = Book(), []
    rounds = Rounds(book.write, 0.01)
    rounds.leave("a", 1, heard.append)
    rounds.leave("b", 2, heard.append)
    assert book.rounds == []

    assert await rounds.join(3) == 30

    assert (book.rounds, heard) == ([[3, 1, 2]], [10, 20])


async def test_what_was_left_is_written_when_that_is_asked_for_and_once() -> None:
    book, heard = Book(), []
    rounds = Rounds(book.write, 60)
    rounds.leave("a", 1, heard.append)

    await rounds.flush()
    await rounds.flush()

    assert (book.rounds, heard) == ([[1]], [10])


async def test_what_was_left_lies_on_when_it_could_not_be_written() -> None:
    book, heard = Book(), []
    rounds = Rounds(book.write, 0.01)
    rounds.leave("a", 1, heard.append)
    rounds.leave("b", 2, heard.append)
    book.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await rounds.flush()
    with pytest.raises(ZeroDivisionError):
        await rounds.join(3)
    assert heard == []

    book.error = None
    rounds.leave("a", 4, heard.append)
    await rounds.flush()

    assert (book.rounds, heard) == ([[1, 2], [3, 1, 2], [4, 2]], [40, 20])


async def test_what_is_left_again_takes_the_place_of_what_was_left_before() -> None:
    book, heard = Book(), []
    rounds = Rounds(book.write, 60)
    for item in (1, 2, 3):
        rounds.leave("a", item, heard.append)

    await rounds.flush()

    assert (book.rounds, heard) == ([[3]], [30])


async def test_without_a_pause_each_is_written_at_once() -> None:
    book = Book()
    rounds = Rounds(book.write, 0)

    assert await asyncio.gather(*(rounds.join(i) for i in range(3))) == [0, 10, 20]
    assert book.rounds == [[0], [1], [2]]


class Heard(Store):
    """A store that keeps what it is told of sessions that live, and knows nothing else."""

    def __init__(self) -> None:
        self.signs: list[Sign] = []

    async def session_seq(self, session_id: bytes) -> int | None:
        return session_id[0]

    async def keep_all_alive(self, signs: list[Sign]) -> list[int | None]:
        self.signs += signs
        return [None] * len(signs)


async def test_a_lease_runs_from_when_its_heartbeat_came_however_long_that_waited_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Heard, "__abstractmethods__", frozenset())
    store: Any = Heard()  # type: ignore[abstract]
    sessions = Sessions(store, ManualClock(), 30_000_000, round_seconds=0.2)

    await asyncio.gather(*(sessions.heartbeat(bytes([i]), [], draining=False) for i in (1, 2)))
    await sessions.heartbeat(bytes([3]), [], draining=False)

    waited, *others = sorted(sign.lease_duration_us for sign in store.signs)
    assert all(29_950_000 < lease_us <= 30_000_000 for lease_us in others)
    assert 29_500_000 < waited <= 29_820_000


@pytest.mark.parametrize("urgent", [{"draining": True}, {"checkpoint": True}])
async def test_a_heartbeat_for_which_somebody_waits_is_not_kept_for_a_round(
    monkeypatch: pytest.MonkeyPatch, urgent: dict[str, bool]
) -> None:
    monkeypatch.setattr(Heard, "__abstractmethods__", frozenset())
    store: Any = Heard()  # type: ignore[abstract]
    sessions = Sessions(store, ManualClock(), 30_000_000, round_seconds=60)
    await sessions.heartbeat(bytes([1]), [], draining=False)
    saved = Sighting(b"", 1, checkpoint=Payload(b"so far")) if "checkpoint" in urgent else Sighting(b"", 1)

    async with asyncio.timeout(10):
        await sessions.heartbeat(bytes([2]), [saved], draining="draining" in urgent)

    assert [sign.session_seq for sign in store.signs] == [1, 2]
    sessions._signs._going.cancel()  # type: ignore[union-attr]


def test_a_heartbeat_says_nothing_of_what_was_sent_after_it() -> None:
    session = Session(1, NewSession(b"s", "oven", {"cook": 0}, {}, 5, "", "", 30_000_000))
    key = b"task", 1
    session.hold(Held(1, *key, "cook"))
    session.in_flight[key].sent_us = 1_000
    session.revoke(key, cancelled=True)

    assert session.compare([], heard_us=999, sent_before_us=0) == ([], [], [])
    assert key in session.in_flight, "its credit is not back"
    session.compare([], heard_us=1_000, sent_before_us=0)
    assert key not in session.in_flight
