"""What a client says to PostgreSQL in a transaction, and when it commits."""

from __future__ import annotations

from tests.support.postgres_wire import Message

COMMITS = {b"COMMIT", b"END"}


class Conversation:
    """Follows simple queries, and statements that were prepared, bound and executed, each in messages of their own."""

    def __init__(self) -> None:
        self._statements: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        self._said: list[bytes] = []

    def has_said(self, words: bytes) -> bool:
        """In a statement of this transaction, also one that was prepared long before, or in a value."""
        return any(words in part for part in self._said)

    def asks(self, message: Message) -> bool:
        """Takes note of what the client says; whether it makes the server commit."""
        self._said.append(message.body)
        match message.kind:
            case b"Q":
                return _commits(message.body)
            case b"P":
                name, sql, _ = message.body.split(b"\0", 2)
                self._statements[name] = sql
            case b"B":
                portal, name, _ = message.body.split(b"\0", 2)
                self._portals[portal] = self._statements.get(name, b"")
                self._said.append(self._portals[portal])
            case b"E":
                return _commits(self._portals.get(message.body.split(b"\0", 1)[0], b""))
        return False

    def hears(self, message: Message) -> None:
        """Takes note of what the server says: after ReadyForQuery, whether it is in a transaction."""
        if message.kind == b"Z" and message.body == b"I":
            self._said.clear()


def _commits(sql: bytes) -> bool:
    statements = [statement.split() for statement in sql.rstrip(b"\0").upper().split(b";")]
    return any(words[0] in COMMITS for words in statements if words)
