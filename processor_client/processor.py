"""The processor: what it runs, and its life from start to stop."""

import asyncio
import logging
import os
import random
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from client_core.access import TLS, Access, PathLike
from client_core.channel import NO_PROBE, address_from_environment, open_blocking_channel, open_channel
from client_core.errors import TaskqError
from client_core.home import Home
from client_core.knock import explain
from client_core.times import Span, to_seconds
from processor_client import tracing
from processor_client.handler import Handler, handlers_of, of_function
from processor_client.registration import Registration
from processor_client.runner import Middleware, Runner
from processor_client.server_clock import ServerClock
from processor_client.session import Session
from processor_client.signals import StopSignals
from processor_client.task import Executor
from processor_client.winding_up import wind_up

logger = logging.getLogger("taskq.processor")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# A server that has lost its sessions is not asked for new ones by everybody at once.
REREGISTER_SPREAD_SECONDS = 0.5


class Processor:
    """Runs tasks. Nothing is opened before it is started, so it may stand at the top of a module.

    address        `host:port`, of several servers `ip:port,ip:port`; default `TASKQ_ADDRESS`, or 127.0.0.1:50051
    tls            True or a TLS: encrypted; False: not; absent: as `TASKQ_TLS_CA` and its like say
    tls_ca         a PEM file: TLS with a server whose certificate this CA has signed
    token          what the server knows it by; absent: `TASKQ_TOKEN`, or what stands in `TASKQ_TOKEN_FILE`
    tasks          Task classes and declared functions; others are added by `@processor.task(name)`
    labels         what it says of itself, matched against a task's `requires`
    concurrency    the most tasks at a time, 1 to 10,000
    name           for people; default the host's name and the process id
    build_id       the version of the code that it runs, for people
    drain_timeout  how long running tasks may take to end once it is told to stop
    middleware     each `async def (ctx, call_next)`, the first one outermost

    Two handlers for one capability are a ValueError.
    """

    def __init__(
        self,
        address: str | None = None,
        tasks: Iterable[Any] = (),
        *,
        tls: TLS | bool | None = None,
        tls_ca: PathLike | None = None,
        token: str | None = None,
        labels: Mapping[str, str] | None = None,
        concurrency: int = 8,
        name: str | None = None,
        build_id: str = "",
        drain_timeout: Span = 30,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        if not 1 <= concurrency <= 10_000:
            raise ValueError(f"concurrency is {concurrency}; must be from 1 to 10,000")
        self.name = name or _host_name()
        self._address = address
        self._access = Access(tls, tls_ca, token)
        self._labels = dict(labels or {})
        self._concurrency = concurrency
        self._build_id = build_id
        self._drain_seconds = to_seconds(drain_timeout)
        self._middleware = list(middleware)
        self._handlers: dict[str, Handler] = {}
        self._home = Home("this processor")
        self._session: Session | None = None
        self._runner: Runner | None = None
        self._life: asyncio.Task[None] | None = None
        self._is_drained = False
        for source in tasks:
            for handler in handlers_of(source):
                self._add(handler)

    @property
    def capabilities(self) -> list[str]:
        """The task names that it runs."""
        return list(self._handlers)

    def task(
        self, name: str, *, max_in_flight: int = 0, executor: Executor | None = None
    ) -> Callable[[FunctionT], FunctionT]:
        """Makes the function below it the handler of `name`. The function itself stays as it is."""

        def register(function: FunctionT) -> FunctionT:
            self._add(of_function(name, function, max_in_flight=max_in_flight, executor=executor))
            return function

        return register

    def _add(self, handler: Handler) -> None:
        if self._life is not None:
            raise RuntimeError(f"{handler.name!r} comes too late; must be added before the processor is started")
        if handler.name in self._handlers:
            raise ValueError(f"{handler.name!r} has two handlers; must have one")
        self._handlers[handler.name] = handler

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then drains and returns. A second signal stops it now, by SystemExit."""
        asyncio.run(self.run_async())

    async def run_async(self) -> None:
        """As `run`, in a loop that runs already."""
        with StopSignals() as signals:
            work = asyncio.create_task(self._work())
            try:
                await signals.wait(work, times=1)
                if work.done():
                    work.result()
                stopping = asyncio.create_task(self.stop())
                await signals.wait(stopping, times=2)
                if not stopping.done():
                    stopping.cancel()
                    await asyncio.wait({stopping})
                    raise SystemExit(signals.exit_code)
                stopping.result()
            finally:
                work.cancel()
                await self.stop(drain=False)

    async def start(self) -> None:
        """Registers, and begins to run tasks. Waits for a server that is away."""
        self._home.check()
        if self._life is not None:
            raise RuntimeError("the processor is started already")
        if not self._handlers:
            raise ValueError("the processor runs nothing; must have at least one task")
        clock = ServerClock()
        self._runner = Runner(self._concurrency, clock, [*tracing.middleware(), *self._middleware])
        registered = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(self._runner, clock, registered), name="taskq-processor")
        try:
            await asyncio.wait({self._life, registered}, return_when=asyncio.FIRST_COMPLETED)
            if self._life.done():
                self._life.result()
        except BaseException:
            await self.stop(drain=False)
            raise

    async def stop(self, *, drain: bool = True) -> None:
        """Ends it: takes nothing more, lets running tasks end within `drain_timeout`, reports them, and unregisters.
        Without `drain` they are stopped and given back at once. Safe to repeat."""
        life, self._life = self._life, None
        if life is None:
            return
        life.cancel()
        await asyncio.wait({life})
        session, runner = self._session, self._runner
        self._session = self._runner = None
        assert runner is not None
        try:
            if session is not None:
                await wind_up(session, runner, self._drain_seconds if drain else 0.0)
        finally:
            if session is not None:
                await session.close(unregister=True)
            await runner.close()
        logger.info("processor %s has stopped", self.name)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(drain=error is None)

    async def _work(self) -> None:
        await self.start()
        assert self._life is not None
        life = self._life
        await asyncio.wait({life})
        # Cancelled means that somebody has called stop(); anything else is a fault of ours.
        if not life.cancelled():
            life.result()

    async def _live(self, runner: Runner, clock: ServerClock, registered: asyncio.Future[None]) -> None:
        address = self._address or address_from_environment()
        opening = partial(open_channel, address, access=self._access)
        registration = Registration(
            opening,
            self._why_unreachable,
            name=self.name,
            handlers=self._handlers.values(),
            labels=self._labels,
            concurrency=self._concurrency,
            build_id=self._build_id,
        )
        while True:
            answer = await registration.register()
            session = self._session = Session(
                answer,
                self._handlers,
                runner,
                clock,
                opening,
                partial(open_blocking_channel, address, further=NO_PROBE, access=self._access),
                self._drained_by_administrator,
            )
            session.start()
            logger.info("processor %s runs %s in session %s", self.name, ", ".join(self._handlers), session.id)
            if self._is_drained:
                session.drain()
            if not registered.done():
                registered.set_result(None)
            await session.ended.wait()
            await session.close(unregister=False)
            self._session = None
            await asyncio.sleep(random.uniform(0.0, REREGISTER_SPREAD_SECONDS))

    async def _why_unreachable(self, error: TaskqError) -> TaskqError:
        error, _ = await explain(error, self._address or address_from_environment(), self._access)
        return error

    def _drained_by_administrator(self) -> None:
        if not self._is_drained:
            logger.warning("an administrator drains this processor: it finishes what runs and takes nothing more")
        self._is_drained = True
        if self._session is not None:
            self._session.drain()


def _host_name() -> str:
    host = re.sub(r"[^A-Za-z0-9._/-]", "-", socket.gethostname()) or "processor"
    return f"{host[:100]}-{os.getpid()}"
