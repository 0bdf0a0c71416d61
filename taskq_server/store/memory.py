"""What the store knows without asking the database: routes, what falls due or expires when, and what is paused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

from sqlalchemy import Connection, select

from taskq_server.core.matching import Route
from taskq_server.store import schema
from taskq_server.store.many import Many
from taskq_server.store.offer import Offer
from taskq_server.store.rows import route_columns, route_from
from taskq_server.store.transaction import Transaction
from taskq_server.store.waiting import Waiting

ANYWHERE = 0, 0
_INSERT_ROUTE = Many.insert(
    schema.route, ("name", "requires"), order_by=("name", "requires"), end="ON CONFLICT (name, requires) DO NOTHING"
)


class Pauses:
    """The names of which nothing is dispatched, as far as this server has heard. It may be wrong: a lease decides by
    what the database says, and this one learns it from that lease, or from the next look."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._changes = 0

    def change(self, *, paused: Iterable[str] = (), resumed: Iterable[str] = ()) -> None:
        """It is committed that these are paused from now on, and those no longer."""
        self._changes += 1
        self.names = self.names.difference(resumed).union(paused)

    def look(self) -> Callable[[frozenset[str]], bool]:
        """Begins a look at the database. Call what it gives with the names that were found: it answers whether some
        are paused no longer. What was changed here meanwhile may not be in what was found, and counts."""
        before = self._changes

        def end(found: frozenset[str]) -> bool:
            if self._changes != before:
                return False
            resumed, self.names = bool(self.names - found), found
            return resumed

        return end


class Memory:
    """Filled at the start, kept true by the verbs, which tell it only of what is committed."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.routes: dict[int, Route] = {}
        """By number, in the order in which they were learned."""
        self.expiring = Waiting()
        """When the first scheduled task expires, wherever it waits."""
        self.pauses = Pauses()
        self.offer: Offer | None = None
        """Seats for what is due as soon as it is stored."""
        self._route_ids: dict[Route, int] = {}
        self._learning = threading.Lock()

    def learn_routes(self, connection: Connection, *, known_to: Iterable[int] | None = None) -> None:
        """Reads the routes: all, or those with these numbers."""
        table = schema.route
        where = [] if known_to is None else [table.c.route_id.in_(sorted(known_to))]
        found = connection.execute(select(table).where(*where).order_by(table.c.route_id))
        self._learn({route_from(name, requires): route_id for route_id, name, requires in found})

    def _learn(self, found: dict[Route, int]) -> None:
        with self._learning:
            new = {route: route_id for route, route_id in found.items() if route_id not in self.routes}
            self._route_ids = {**self._route_ids, **new}
            # replaced, never changed: other threads iterate over it
            self.routes = {**self.routes, **{route_id: route for route, route_id in new.items()}}

    def route(self, connection: Connection, route_id: int) -> Route:
        """A route by its number, which another server may have given it."""
        if route_id not in self.routes:
            self.learn_routes(connection, known_to=[route_id])
        return self.routes[route_id]

    def route_ids(self, tx: Transaction, routes: set[Route]) -> dict[Route, int]:
        """The numbers of routes, which are written down when they are new."""
        unknown = [route for route in routes if route not in self._route_ids]
        if not unknown:
            return self._route_ids
        found = self._write_routes(tx, unknown)
        tx.after_commit.append(partial(self._learn, found))
        return self._route_ids | found

    def _write_routes(self, tx: Transaction, unknown: list[Route]) -> dict[Route, int]:
        table = schema.route
        columns = {route_columns(route): route for route in unknown}
        _INSERT_ROUTE.run(tx.connection, sorted(columns))
        named = tx.sql.among(table.c.name, {name for name, _ in columns})
        found = tx.connection.execute(select(table).where(named))
        return {columns[name, requires]: route_id for route_id, name, requires in found if (name, requires) in columns}

    def next_due_us(self, route_ids: Iterable[int]) -> int | None:
        """When the first task of any of these routes falls due that is not paused; None when none waits."""
        if paused := self.pauses.names:
            routes = self.routes
            route_ids = [one for one in route_ids if one in routes and routes[one].name not in paused]
        return self.waiting.next_due_us(route_ids)

    @property
    def next_expiry_us(self) -> int | None:
        """No scheduled task expires earlier."""
        return self.expiring.next_due_us([ANYWHERE[0]])

    def note_expiry(self, expire_time_us: int) -> None:
        """A committed task expires then, unless it has been started."""
        self.expiring.note(*ANYWHERE, expire_time_us)
