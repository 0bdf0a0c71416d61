"""The only place that builds things, starts them in order and stops them in reverse."""

from __future__ import annotations

import asyncio
import importlib.util
import resource
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from taskq_server.access import Access
from taskq_server.admin import Admin
from taskq_server.admin_tasks import AdminTasks
from taskq_server.bulk import Bulk
from taskq_server.certificates import Certificates
from taskq_server.clock import Alarm, DatabaseClock, OwnClock, SystemClock
from taskq_server.config import Config
from taskq_server.core.errors import CannotListen, StoreRefused
from taskq_server.core.rights import of_certificates
from taskq_server.dispatcher import Dispatcher
from taskq_server.events import Events
from taskq_server.figures import Figures
from taskq_server.firing import Firer
from taskq_server.gauges import Gauges
from taskq_server.housekeeper import Housekeeper
from taskq_server.http.app import app
from taskq_server.http.calls import all_calls
from taskq_server.http.dashboard.dashboard import Dashboard
from taskq_server.http.dashboard.frame import Frame
from taskq_server.http.json_api import JsonApi
from taskq_server.http.safety import Hosts
from taskq_server.http.server import MOST_FILES, HttpServer
from taskq_server.http.tls import server_context
from taskq_server.metrics import Metrics
from taskq_server.neighbours import Neighbours
from taskq_server.readiness import OWN_QUIET_SECONDS, QUIET_SECONDS, Readiness
from taskq_server.rpc.admin_service import AdminService
from taskq_server.rpc.admin_tasks_service import AdminTasksService
from taskq_server.rpc.audit_service import AuditService
from taskq_server.rpc.bulk_service import BulkService
from taskq_server.rpc.figures_service import FiguresService
from taskq_server.rpc.processor_service import ProcessorService
from taskq_server.rpc.schedule_service import ScheduleService
from taskq_server.rpc.scheduler_service import SchedulerService
from taskq_server.rpc.server import RpcServer
from taskq_server.schedules import Schedules
from taskq_server.session import Session
from taskq_server.sessions import Sessions, microseconds
from taskq_server.stats import Stats
from taskq_server.store.shared import SharedStore
from taskq_server.store.sqlite.store import SQLite
from taskq_server.store.store import Store
from taskq_server.store.transaction import Transaction
from taskq_server.store.verbs.end_batch import Rules
from taskq_server.store.verbs.servers import server_lease_us
from taskq_server.task_queue import TaskQueue
from taskq_server.values import shown

log = structlog.get_logger("taskq.server")

OWN_FILES = 256
"""File descriptors for everything but connections, of clients and over HTTP."""


LONGEST_ROUND_SECONDS = 2.0
"""So long may a heartbeat wait for others: a fifteenth of the default lease, and of a shorter one."""


class Server:
    """A taskq server. `start`, then `stop`; or `run`, which ends when `stopping` is set or storage fails."""

    def __init__(self, config: Config, clock: OwnClock | None = None) -> None:
        self._config = config
        self._is_alone = config.database_url.startswith("sqlite:///")
        self._clock: OwnClock | DatabaseClock = clock or (SystemClock() if self._is_alone else DatabaseClock())
        longest = min(LONGEST_ROUND_SECONDS, config.lease_duration / 15)
        # By a clock that stands nobody waits for others, and nothing lies.
        self._round_seconds = 0.0 if clock is not None else longest
        self._keeps_in_mind = self._is_alone and clock is None
        self._loops: list[asyncio.Task[None]] = []
        self.certificates: Certificates | None = None
        self.address = self.token_address = self.http_address = ""
        self.stopping = asyncio.Event()
        self.stopped = False
        self.fatal: BaseException | None = None

    async def start(self) -> str:
        """Opens the database, takes up living sessions, listens; answers the bound address."""
        config = self._config
        lease_us, retention_us = microseconds(config.lease_duration), microseconds(config.retention)
        if config.tls_cert is not None and config.tls_key is not None:
            self.certificates = Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
        https = server_context(self.certificates) if self.certificates and config.http_listen else None
        self._store = await self._open_store(Rules(retention_us, config.max_lost_leases))
        self.metrics = Metrics()
        self.readiness = Readiness(self._store, OWN_QUIET_SECONDS if self._is_alone else QUIET_SECONDS)
        self._store.on_commit, self._store.on_answer = self._count, self._measure
        self._sessions = Sessions(self._store, self._clock, lease_us, self._round_seconds, alone=self._keeps_in_mind)
        self.events = Events(self._store, self._clock)
        self.figures = Figures(self._store, self._clock, self.events, self._build_of)
        self.metrics.on_pushed, self.metrics.on_ran = self.figures.pushed, self.figures.ran
        self._sessions.on_keep = self._meet
        dispatch, housekeeping = Alarm(self._clock), Alarm(self._clock)
        self.housekeeper = Housekeeper(
            self._store,
            self._sessions,
            self._clock,
            housekeeping,
            dispatch.ring,
            lease_us,
            retention_us,
            microseconds(config.audit_retention),
        )
        told = self._clock, dispatch, self.housekeeper.expect, self.metrics
        self.dispatcher = Dispatcher(self._store, self._sessions, *told)
        self._tasks = TaskQueue(self._store, self._sessions, *told)
        self.firer = Firer(self._store, self._sessions, self._clock, Alarm(self._clock), self.metrics)
        self.access = self._guard(self._store)
        self._processors = ProcessorService(
            self._tasks, self._sessions, self.access, self._clock, dispatch, config, self.metrics
        )
        self.neighbours: Neighbours | None = None
        if isinstance(self._store, SharedStore):
            looking = Alarm(self._clock)
            self.neighbours = Neighbours(
                self._store, self._sessions, self._tasks, self._clock, looking, dispatch.ring, self.firer.hear,
                self.events.hear,
            )  # fmt: skip
        self.bulk = Bulk(self._store, self._sessions, self._clock, Alarm(self._clock))
        admin = AdminService(Admin(self._store, self._sessions), self._clock, config)
        scheduler = SchedulerService(self._tasks, self.access, self._clock, config)
        schedules = ScheduleService(
            Schedules(self._store, self._sessions, self.firer, self._clock), self.access, self._clock, config
        )
        figures = FiguresService(self._store, Stats(self._store, self._clock), self.events, self._clock)
        admin_tasks = AdminTasksService(AdminTasks(self._store, self._sessions), self.access, self._clock)
        self.servicers: list[object] = [
            *(scheduler, self._processors, schedules, admin, admin_tasks),
            *(BulkService(self.bulk, config), AuditService(self._store), figures),
        ]
        self._rpc = RpcServer(
            self.servicers,
            self.access,
            self.metrics,
            _affordable(
                config.max_connections, MOST_FILES if config.http_listen else 0, 2 if config.token_listen else 1
            ),
        )
        self.gauges = Gauges(self._store, self._sessions, self._clock, self.readiness, self.certificates, self.metrics)
        self._api = JsonApi(all_calls(self.servicers, self.metrics, self.access), self.access)
        self._dashboard = Dashboard(self.servicers, self.access, self._clock, Frame.of(config))
        hosts = Hosts(config.http_listen, config.http_hosts, any_name=config.auth_required)
        api, dashboard = (self._api, self._dashboard) if config.serves_calls_by_http else (None, None)
        around = self.access, self.metrics, self.gauges, self.readiness, hosts
        self._http = HttpServer(app(*around, api, dashboard, config.http_base_path), https)
        await self.access.start()
        await self.housekeeper.tick()  # spares the restored sessions before anybody could end them
        try:
            if config.http_listen:  # first: whoever finds gRPC there finds this, too
                self.http_address = await self._http.start(config.http_listen)
            self.address = self._rpc.listen(config.listen, self.certificates)
            if config.token_listen:
                self.token_address = self._rpc.listen(
                    config.token_listen, self.certificates, asks=False, setting="TASKQ_TOKEN_LISTEN"
                )
            await self._rpc.start()
        except CannotListen:
            await self._http.stop()
            await self._store.close()
            raise
        self.readiness.on_change = self._rpc.tell
        await self.readiness.start()
        loops = [
            self.housekeeper.run(),
            self.dispatcher.run(),
            self.firer.run(),
            self.readiness.run(),
            self.events.run(),
            self.bulk.run(),
        ]
        if config.http_listen:
            loops += [self.gauges.run(), self.gauges.run_lag()]
        if self.neighbours is not None:
            loops.append(self.neighbours.run())
        if self.certificates is not None:
            loops.append(self.certificates.run())
        self._loops = [self._keep(loop) for loop in loops]
        self._guarding = self._keep(self.access.run())
        self._writing = self._keep(self.figures.run())
        log.info(
            "server started",
            address=self.address,
            **({"token_address": self.token_address} if self.token_address else {}),
            http=self.http_address,
            database=shown(config.database_url),
            auth=self.access.required,
        )
        if not self.access.required and not config.on_loopback:
            log.warning("whoever reaches this server may do everything, as TASKQ_AUTH is off")
        if config.is_exposed:
            log.warning("plaintext beyond this machine: whoever is on the way can read and change tasks")
        return self.address

    def _guard(self, store: Store) -> Access:
        config = self._config
        return Access(
            store,
            self._clock,
            required=config.auth_required,
            certificates=of_certificates(config.cert_rights),
            most_streams=config.max_streams,
        )

    async def _open_store(self, rules: Rules) -> Store:
        config = self._config
        if not self._is_alone:
            if importlib.util.find_spec("asyncpg") is None:
                raise StoreRefused("the driver of PostgreSQL is not installed", "pip install 'taskq[postgres]'")
            from taskq_server.store.postgres.store import Postgres

            lease_us = server_lease_us(microseconds(config.lease_duration))
            return await Postgres.open(
                config.database_url, self._clock, rules, pooler=config.pgbouncer, server_lease_us=lease_us
            )
        path = Path(config.database_url.removeprefix("sqlite:///"))
        assert not isinstance(self._clock, DatabaseClock)
        return await SQLite.open(path, self._clock, rules, self._fail, allow_network=config.network_file_system)

    async def run(self) -> None:
        """Serves until `stopping` is set, then stops; raises what made storage fail."""
        await self.stopping.wait()
        await self.stop()
        if self.fatal is not None:
            raise self.fatal

    async def stop(self) -> None:
        """NOT_SERVING first; then no more dispatches; streams are drained, and what runs in the store is finished."""
        log.info("server stopping", grace_seconds=self._config.stop_grace)
        await self.readiness.stop()
        await self._rpc.stop_serving()
        housekeeping, _, *looking = self._loops
        for loop in (housekeeping, *looking):
            loop.cancel()
        self.dispatcher.stop()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._processors.stop()
        self._tasks.stop()
        self.events.stop()
        self._sessions.drain_streams("the server is stopping")
        grace = 0 if self.fatal else self._config.stop_grace
        await asyncio.gather(self._rpc.stop(grace), self._api.stop(grace))
        self._guarding.cancel()  # until here credentials may end
        self.figures.stop()
        await asyncio.gather(self._guarding, self._writing, return_exceptions=True)
        self._dashboard.stop()
        await self._http.stop()  # last: it says until then that the server is not ready
        await self._store.close()
        self.stopped = True
        log.info("server stopped")

    def _count(self, transaction: Transaction) -> None:
        self.metrics.committed(transaction.items)
        if transaction.added:
            self.metrics.enqueued(transaction.added)
        if transaction.ended:
            self.metrics.ended(transaction.ended)
        self.figures.committed(transaction)

    def _meet(self, session: Session) -> None:
        self.metrics.names.register(session.capabilities)
        self.figures.register(session.capabilities)

    def _build_of(self, session_seq: int) -> str:
        session = self._sessions.by_seq(session_seq)
        return "" if session is None else session.build_id

    def _measure(self, verb: str, seconds: float | None) -> None:
        self.readiness.heard(seconds)
        if seconds is None:
            self.metrics.unanswered(verb)
        else:
            self.metrics.answered(verb, seconds)

    def _keep(self, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(loop)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, loop: asyncio.Task[None]) -> None:
        if not loop.cancelled() and (error := loop.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Nothing that happens after this could be trusted: end, and say so by the exit code."""
        log.critical("the server cannot go on", error=str(error), exc_info=error)
        if self.fatal is None:
            self.fatal = error
        self.stopping.set()


def _affordable(connections: int, http: int = 0, addresses: int = 1) -> int:
    """So many connections of each address, or as many as there are file descriptors for beside those over HTTP: to be
    out of them is worse than to refuse."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = OWN_FILES + http
    if limit == resource.RLIM_INFINITY or connections * addresses + own <= limit:
        return connections
    affordable = max(1, (limit - own) // addresses)
    log.warning("too few file descriptors for max_connections; raise ulimit -n", limit=limit, connections=affordable)
    return affordable
