"""API tokens in the database: made and revoked by `taskq token`, and read by every server that lets nobody else in.

What changes them also leaves another mark in `meta`, so that a server need not read them all to know that nothing has.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Row, bindparam, select, text, update

from taskq_server.core.errors import StoreRefused
from taskq_server.core.origin import Origin, Source
from taskq_server.store import schema
from taskq_server.store.rows import to_json
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.auditing import Facts, entry, time_text, write

MOST_TOKENS = 10_000
"""That may be used: a server keeps them all in memory, and so needs to ask nobody about one that is not known."""
USE_US = 60_000_000
"""The last use of a token is written down so often at most."""
REFUSED = 65

_table = schema.token
_READ_MARK = text("SELECT value FROM meta WHERE key = 'tokens'")
_WRITE_MARK = text(
    "INSERT INTO meta (key, value) VALUES ('tokens', :mark) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_USE = (
    update(_table)
    .where(_table.c.token_seq == bindparam("seq"))
    .where(
        _table.c.last_use_time_us.is_(None)
        | (_table.c.last_use_time_us + USE_US <= bindparam("time_us", type_=BigInteger))
    )
    .values(last_use_time_us=bindparam("time_us", type_=BigInteger))
)


class NewToken(NamedTuple):
    """A token to be kept, without its secret."""

    token_id: str
    hash: bytes
    principal: str
    rights: tuple[str, ...]
    expire_after_us: int | None
    by: str = ""
    """Who has run the command, as the operating system knows them."""


class Revocation(NamedTuple):
    """Tokens that shall not be used any more."""

    token_ids: tuple[str, ...]
    by: str = ""


Change = NewToken | Revocation


class Token(NamedTuple):
    """A token as it stands."""

    token_seq: int
    token_id: str
    hash: bytes
    principal: str
    rights: tuple[str, ...]
    create_time_us: int
    expire_time_us: int | None
    revoke_time_us: int | None
    last_use_time_us: int | None

    @property
    def grants(self) -> tuple[object, ...]:
        """What whoever shows it may do, as whom, and until when."""
        return self.principal, self.rights, self.expire_time_us

    def ended(self, now_us: int) -> str:
        """Why it may not be used; empty when it may."""
        if self.revoke_time_us is not None:
            return "revoked"
        return "expired" if self.expire_time_us is not None and self.expire_time_us <= now_us else ""


class Use(NamedTuple):
    """A token was used then."""

    token_seq: int
    time_us: int


class Tokens(NamedTuple):
    """Those that may be used, as of a mark."""

    mark: str
    found: list[Token]


def change(connection: Connection, changes: Sequence[Change], now_us: int) -> None:
    """Keeps and revokes tokens. What was done already is done: a change may come twice."""
    for one in changes:
        if isinstance(one, NewToken):
            _keep(connection, one, now_us)
        else:
            named = _table.c.token_id.in_(one.token_ids), _table.c.revoke_time_us.is_(None)
            revoke = update(_table).where(*named).values(revoke_time_us=now_us)
            for row in connection.execute(revoke.returning(_table.c.token_id, _table.c.principal)).all():
                _audit(connection, one, now_us, row.token_id, {"principal": row.principal}, None)
    connection.execute(_WRITE_MARK, {"mark": uuid.uuid4().hex})


def _keep(connection: Connection, new: NewToken, now_us: int) -> None:
    if connection.execute(select(_table.c.token_id).where(_table.c.token_id == new.token_id)).first() is not None:
        return
    if len(usable(connection, now_us)) >= MOST_TOKENS:
        raise StoreRefused(f"there are {MOST_TOKENS:,} tokens that may be used", "revoke some of them first", REFUSED)
    insert = _table.insert().values(
        token_id=new.token_id,
        hash=new.hash,
        principal=new.principal,
        rights=to_json(list(new.rights)),
        create_time_us=now_us,
        expire_time_us=None if new.expire_after_us is None else now_us + new.expire_after_us,
    )
    connection.execute(insert)
    expires = None if new.expire_after_us is None else time_text(now_us + new.expire_after_us)
    told = {"principal": new.principal, "rights": list(new.rights), "expire_time": expires}
    _audit(connection, new, now_us, new.token_id, None, told)


def _audit(connection: Connection, change: Change, now_us: int, token_id: str, before: Facts, after: Facts) -> None:
    command = "create" if isinstance(change, NewToken) else "revoke"
    origin = Origin(Source.DATABASE, f"taskq token {command}", principal=change.by)
    write(connection, [entry(origin, now_us, "token", token_id, before, after)])


def every(connection: Connection) -> list[Token]:
    """All of them, also those that may not be used any more, in the order in which they were made."""
    return [_token(row) for row in connection.execute(select(_table).order_by(_table.c.token_seq))]


def usable(connection: Connection, now_us: int) -> list[Token]:
    """Those that may be used."""
    in_time = _table.c.expire_time_us.is_(None) | (_table.c.expire_time_us > now_us)
    found = select(_table).where(_table.c.revoke_time_us.is_(None), in_time).order_by(_table.c.token_seq)
    return [_token(row) for row in connection.execute(found)]


def _token(row: Row[Any]) -> Token:
    """Without rights when they cannot be read: one bad row must not hide the others."""
    try:
        rights = tuple(map(str, json.loads(row.rights)))
    except (TypeError, ValueError):
        rights = ()
    return Token(
        row.token_seq,
        row.token_id,
        row.hash,
        row.principal,
        rights,
        row.create_time_us,
        row.expire_time_us,
        row.revoke_time_us,
        row.last_use_time_us,
    )


def current(tx: Transaction, marks: list[str | None]) -> list[Tokens | None]:
    """Those that may be used; None to whoever has read them as of the mark that is there now."""
    # The mark first: what is committed in between is read, and read again.
    mark = tx.connection.execute(_READ_MARK).scalar() or ""
    if all(known == mark for known in marks):
        return [None] * len(marks)
    return [Tokens(str(mark), usable(tx.connection, tx.now_us))] * len(marks)


def apply(tx: Transaction, changes: list[Change]) -> list[None]:
    """Keeps and revokes tokens."""
    change(tx.connection, changes, tx.now_us)
    return [None] * len(changes)


def use(tx: Transaction, uses: list[Use]) -> list[None]:
    """Writes down when tokens were used last, unless another server has within a minute."""
    in_order = [{"seq": one.token_seq, "time_us": one.time_us} for one in sorted(uses)]
    tx.connection.execute(_USE, in_order)
    return [None] * len(uses)
