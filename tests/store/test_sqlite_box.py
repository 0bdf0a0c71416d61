"""What operators leave in the box beside a SQLite file, for the server that has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from taskq_server.core.errors import StoreRefused
from taskq_server.store.sqlite import box as sqlite_box
from taskq_server.store.sqlite.box import Box
from taskq_server.store.store import Store
from taskq_server.store.verbs import tokens
from taskq_server.store.verbs.tokens import Change, Revocation
from tests.store.conftest import SQLiteFile
from tests.store.given import a_token, minutes


@pytest.fixture
def database(sqlite_database: SQLiteFile) -> SQLiteFile:
    return sqlite_database


@pytest.fixture
def box(database: SQLiteFile) -> Box:
    return Box(database.path)


def ask(box: Box, change: Change) -> Path:
    """As an operator does, without waiting."""
    before = set(box.folder.iterdir())
    sqlite_box._write(box.folder / f"{len(before)}.json", change)
    (path,) = set(box.folder.iterdir()) - before
    return path


async def ids(store: Store) -> list[str]:
    found = await store.tokens(None)
    assert found is not None
    return [token.token_id for token in found.found]


async def test_what_is_asked_for_is_done_and_then_told(store: Store, box: Box) -> None:
    path = ask(box, a_token(expires_in=minutes(1)))
    tell = await store.take_requests()
    assert await ids(store) == [a_token().token_id]
    assert path.exists(), "whoever asked goes on only when the server knows the token"
    tell()
    assert not path.exists()

    ask(box, Revocation((a_token().token_id,)))
    (await store.take_requests())()
    assert await ids(store) == []


async def test_one_that_is_refused_holds_no_other_up(store: Store, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 1)
    ask(box, a_token("first"))
    ask(box, a_token("one too many"))
    ask(box, Revocation((a_token("first").token_id,)))
    (await store.take_requests())()
    assert await ids(store) == []
    assert list(box.folder.iterdir()) == []


async def test_a_request_that_was_done_before_the_server_was_killed_may_be_done_again(store: Store, box: Box) -> None:
    ask(box, a_token())
    await store.take_requests()
    (await store.take_requests())()
    assert await ids(store) == [a_token().token_id]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"create": {}}', '{"revoke": {"token_ids": 1}}', "\ufffd",
        json.dumps({"create": {**a_token()._asdict(), "hash": "00", "rights": ["admin"]}}),
        json.dumps({"create": {**a_token()._asdict(), "hash": "00" * 32, "rights": ["root"]}}),
        json.dumps({"create": {**a_token()._asdict(), "hash": "00" * 32, "token_id": "x"}}),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_dropped_and_holds_nothing_up(store: Store, box: Box, text: str) -> None:
    (box.folder / "0.json").write_text(text)
    ask(box, a_token("good"))
    with structlog.testing.capture_logs() as logged:
        (await store.take_requests())()
    assert [one["event"] for one in logged] == ["a request cannot be read and is dropped"]
    assert await ids(store) == [a_token("good").token_id]
    assert list(box.folder.iterdir()) == []


async def test_nobody_else_may_read_or_write_the_box(store: Store, box: Box) -> None:
    assert box.folder.stat().st_mode & 0o077 == 0
    assert ask(box, a_token()).stat().st_mode & 0o077 == 0


async def test_a_folder_into_which_others_may_write_is_left_alone(database: SQLiteFile, clock, box: Box) -> None:  # type: ignore[no-untyped-def]
    box.folder.mkdir(mode=0o700)
    box.folder.chmod(0o777)
    store = await database.open(clock)
    ask(box, a_token())
    await store.take_requests()
    assert await ids(store) == []


def test_whoever_asks_is_told_when_nobody_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_box, "WAIT_SECONDS", 0.1)
    box = Box(tmp_path / "taskq.db")
    with pytest.raises(StoreRefused, match="cannot be written to"):
        box.ask(a_token())
    box.folder.mkdir()
    with pytest.raises(StoreRefused, match="does not do what it is asked"):
        box.ask(a_token())
    assert list(box.folder.iterdir()) == [], "nor is it done later"
