"""Connections to PostgreSQL: any libpq-style URL, through SQLAlchemy and asyncpg, with limits on all that may hang.

asyncpg reads the URL itself, so what libpq's users know works: several hosts, `sslmode`, `sslrootcert`, a socket folder
as `?host=`, and the PG* variables.
"""

from __future__ import annotations

import os
import socket
from importlib import metadata
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from taskq_server.store.postgres.plans import PlanningConnection

CONNECT_SECONDS = 5
COMMAND_SECONDS = 6
"""More than the server's own limit: this one only finds a connection that is dead, and that before callers give up."""

SETTINGS = {
    "TimeZone": "UTC",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    # A server that is stopped in the middle holds locks for so long, for which the others wait.
    "idle_in_transaction_session_timeout": "3s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "jit": "off",
}
PLANS = {
    # Every statement of ours is meant for an index; statistics that lag behind must not talk the planner out of it.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}


def engine_of(
    url: str,
    *,
    pooler: bool = False,
    settings: dict[str, str] | None = None,
    limited: bool = True,
    **options: Any,
) -> AsyncEngine:
    """An engine whose connections are opened and closed by whoever uses them.

    With `pooler`, behind PgBouncer in transaction mode: no statement outlives its transaction, and no settings are sent
    at the start, which it would refuse; whoever begins a transaction sets them.
    """

    async def connect(**further: Any) -> asyncpg.Connection:
        return await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS if limited else None,
            connection_class=asyncpg.Connection if pooler else PlanningConnection,
            statement_cache_size=0,
            target_session_attrs="any" if pooler else "read-write",
            server_settings=None if pooler else {**(SETTINGS if settings is None else settings), **_name()},
            **further,
        )

    # SQLAlchemy keeps none of what it prepares; who connects does.
    arguments: dict[str, Any] = {"async_creator_fn": connect, "prepared_statement_cache_size": 0}
    if pooler:
        arguments["prepared_statement_name_func"] = lambda: ""
    return create_async_engine("postgresql+asyncpg://", connect_args=arguments, poolclass=NullPool, **options)


def _name() -> dict[str, str]:
    return {"application_name": f"taskq/{_version()} {socket.gethostname()}:{os.getpid()}"[:63]}


def _version() -> str:
    try:
        return metadata.version("taskq")
    except metadata.PackageNotFoundError:
        return "0"
