"""What the store knows without asking the database: routes, the next number, what falls due when."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from taskq_server.core.matching import Route
from taskq_server.store import schema
from taskq_server.store.rows import route_columns, route_from
from taskq_server.store.transaction import Transaction
from taskq_server.store.waiting import Waiting


class Memory:
    """Filled at the start, kept true by the verbs. Written by the writing thread alone."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.routes: dict[int, Route] = {}
        self.next_expiry_us: int | None = None
        """No scheduled task expires earlier."""
        self._route_ids: dict[Route, int] = {}
        self._unwritten: dict[int, Route] = {}
        """Routes whose transaction failed. They keep their numbers, which sessions may have seen."""
        self._next_seq = 1

    def fill(self, connection: Connection) -> None:
        task = schema.task
        for route_id, name, requires in connection.execute(select(schema.route)):
            self._learn(route_id, route_from(name, requires))
        self._next_seq = (connection.execute(select(func.max(task.c.seq))).scalar() or 0) + 1
        for route_id in self.routes:
            for priority in range(10):
                due = connection.execute(
                    select(task.c.due_time_us)
                    .where(schema.IS_SCHEDULED, task.c.route_id == route_id, task.c.priority == priority)
                    .order_by(task.c.due_time_us)
                    .limit(1)
                ).scalar()
                if due is not None:
                    self.waiting.note(route_id, priority, due)
        self.next_expiry_us = connection.execute(
            select(task.c.expire_time_us).where(schema.IS_EXPIRING).order_by(task.c.expire_time_us).limit(1)
        ).scalar()

    def take_seq(self) -> int:
        seq = self._next_seq
        self._next_seq += 1
        return seq

    def route_id(self, tx: Transaction, route: Route) -> int:
        """The number of a route, which is written down when it is new."""
        route_id = self._route_ids.get(route)
        if route_id is None:
            route_id = len(self.routes) + 1
            self._learn(route_id, route)
            self._unwritten[route_id] = route
        if self._unwritten:
            self._write_routes(tx)
        return route_id

    def _write_routes(self, tx: Transaction) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        tx.undo.append(lambda: self._unwritten.update(unwritten))
        for route_id, route in unwritten.items():
            name, requires = route_columns(route)
            tx.connection.execute(schema.route.insert().values(route_id=route_id, name=name, requires=requires))

    def note_expiry(self, expire_time_us: int | None) -> None:
        if expire_time_us is not None and (self.next_expiry_us is None or expire_time_us < self.next_expiry_us):
            self.next_expiry_us = expire_time_us

    def _learn(self, route_id: int, route: Route) -> None:
        self._route_ids[route] = route_id
        self.routes = {**self.routes, route_id: route}  # replaced, never changed: other threads iterate over it
