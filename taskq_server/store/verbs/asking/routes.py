"""What is asked of names and of what tasks require: a route has both, and routes are few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select

from taskq_server.core.filter import Term, Text
from taskq_server.core.matching import Route
from taskq_server.store import schema
from taskq_server.store.memory import Memory
from taskq_server.store.transaction import Transaction


def learn_routes(memory: Memory, tx: Transaction) -> None:
    """Other servers may have stored routes that this one has not heard of."""
    if tx.connection.execute(select(func.count()).select_from(schema.route)).scalar() != len(memory.routes):
        memory.learn_routes(tx.connection)


def is_of(route: Route, terms: list[Term]) -> bool:
    """Whether all these terms are true of a route."""
    return all(any(OF_ROUTE[term.key](route, value) for value in term.values) != term.negated for term in terms)


def _has_name(route: Route, value: Any) -> bool:
    return bool(value.matches(route.name))


def _requires(route: Route, value: Text) -> bool:
    if value.begins:
        return bool(route.requires)
    return any(value.text in (requirement.key, str(requirement)) for requirement in route.requires)


OF_ROUTE: dict[str, Callable[[Route, Any], bool]] = {"name": _has_name, "requires": _requires}
