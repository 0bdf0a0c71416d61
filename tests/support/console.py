"""Statements to PostgreSQL from wherever a test stands: in a coroutine, outside of one, in a fixture."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import asyncpg

from tests.support.loop_thread import LoopThread

NAME = "taskq tests"
CONNECT_SECONDS = 10


async def connect(url: str) -> asyncpg.Connection:
    """No statement is kept: the next one may find other tables."""
    settings = {"application_name": NAME}
    return await asyncpg.connect(url, timeout=CONNECT_SECONDS, statement_cache_size=0, server_settings=settings)


class Console:
    """One connection, opened when it is first needed and again when the server was restarted. Each call is a
    transaction; it blocks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._thread = LoopThread("console")
        self._connection: asyncpg.Connection | None = None

    def __enter__(self) -> Self:
        self._thread.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._connection is not None:
                self._thread.call(self._connection.close(timeout=CONNECT_SECONDS))
        finally:
            self._thread.__exit__(kind, error, trace)

    def run(self, sql: str, *arguments: Any) -> None:
        """One statement with `arguments` as $1, $2, …; without them, any number of statements."""
        self._thread.call(self._do("execute", sql, arguments))

    def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._thread.call(self._do("fetch", sql, arguments))]

    def value(self, sql: str, *arguments: Any) -> Any:
        """The first column of the first row; None when there is none."""
        return self._thread.call(self._do("fetchval", sql, arguments))

    async def _do(self, method: str, sql: str, arguments: tuple[Any, ...]) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self.url)
        return await getattr(self._connection, method)(sql, *arguments)
