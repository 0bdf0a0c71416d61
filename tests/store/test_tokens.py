"""API tokens as they are kept."""

from __future__ import annotations

import pytest

from taskq_server.clock import ManualClock
from taskq_server.core.errors import StoreRefused
from taskq_server.store.postgres.store import Postgres
from taskq_server.store.store import Store
from taskq_server.store.verbs import tokens
from taskq_server.store.verbs.tokens import Change, Revocation, Tokens, Use
from tests.store.conftest import Reopen, Servers
from tests.store.given import SECOND, a_token, minutes, tamper


async def change(store: Store, *changes: Change) -> None:
    await store.write(tokens.apply, list(changes))


async def usable(store: Store, known: str | None = None) -> Tokens:
    found = await store.tokens(known)
    assert found is not None
    return found


async def ids(store: Store) -> list[str]:
    return [token.token_id for token in (await usable(store)).found]


async def test_a_token_is_found_as_it_was_made(store: Store, clock: ManualClock) -> None:
    new = a_token("kitchen", "enqueue:kitchen.*", "read", expires_in=minutes(5))
    await change(store, new)
    (token,) = (await usable(store)).found
    assert token[1:5] == new[:4]
    assert (token.create_time_us, token.expire_time_us) == (clock.now_us(), clock.now_us() + minutes(5))
    assert (token.revoke_time_us, token.last_use_time_us) == (None, None)


async def test_one_that_is_revoked_or_has_expired_is_not_among_those_that_may_be_used(
    store: Store, clock: ManualClock
) -> None:
    lasting, short, gone = a_token("lasting"), a_token("short", expires_in=minutes(1)), a_token("gone")
    await change(store, lasting, short, gone)
    assert await ids(store) == [lasting.token_id, short.token_id, gone.token_id]
    await change(store, Revocation((gone.token_id, "tq_000000000000")))
    clock.advance(us=minutes(1))
    assert await ids(store) == [lasting.token_id]


async def test_a_change_that_comes_twice_changes_nothing_more(store: Store, clock: ManualClock) -> None:
    new = a_token()
    await change(store, new, new)
    await change(store, Revocation((new.token_id,)))
    clock.advance(9)
    await change(store, new, Revocation((new.token_id,)))
    assert await ids(store) == []

    def look(tx, nothing):  # type: ignore[no-untyped-def]
        return [tokens.every(tx.connection)]

    ((token,),) = await store.read(look, [None])
    assert token.revoke_time_us == clock.now_us() - 9 * SECOND
    assert token.ended(clock.now_us()) == "revoked"


async def test_who_knows_them_already_is_told_so_until_something_changes(store: Store) -> None:
    before = await usable(store)
    assert await store.tokens(before.mark) is None
    await change(store, a_token())
    after = await usable(store, before.mark)
    assert len(after.found) == 1 and await store.tokens(after.mark) is None
    await change(store, Revocation((a_token().token_id,)))
    assert (await usable(store, after.mark)).found == []


async def test_the_last_use_is_kept_to_the_minute_and_never_goes_back(store: Store, clock: ManualClock) -> None:
    await change(store, a_token("first"), a_token("second"))
    first, second = (token.token_seq for token in (await usable(store)).found)
    start_us = clock.now_us()

    async def used(*uses: Use) -> list[int | None]:
        await store.use_tokens(list(uses))
        return [token.last_use_time_us for token in (await usable(store)).found]

    assert await used(Use(second, start_us)) == [None, start_us]
    assert await used(Use(second, start_us + minutes(1) - 1), Use(first, start_us)) == [start_us, start_us]
    assert await used(Use(second, start_us + minutes(1))) == [start_us, start_us + minutes(1)]
    assert await used(Use(second, start_us)) == [start_us, start_us + minutes(1)]


async def test_one_whose_rights_cannot_be_read_has_none_and_hides_no_other(store: Store) -> None:
    await change(store, a_token("bad"), a_token("good"))
    await tamper(store, "UPDATE token SET rights = '{' WHERE principal = 'bad'")
    assert [token.rights for token in (await usable(store)).found] == [(), ("admin",)]


async def test_there_is_an_end_to_how_many_may_be_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 2)
    await change(store, a_token("first"), a_token("second"))
    with pytest.raises(StoreRefused, match="there are 2 tokens"):
        await change(store, a_token("third"))
    await change(store, Revocation((a_token("first").token_id,)))
    await change(store, a_token("third"))


async def test_they_outlive_the_server(store: Store, reopen: Reopen) -> None:
    await change(store, a_token())
    before = await usable(store)
    assert (await usable(await reopen())).found == before.found


async def test_every_server_finds_what_was_changed(servers: Servers) -> None:
    stores: list[Postgres] = await servers(2)
    here, there = stores
    await change(here, a_token())
    known = await usable(there)
    assert [token.token_id for token in known.found] == [a_token().token_id]
    await change(here, Revocation((a_token().token_id,)))
    assert (await usable(there, known.mark)).found == []
