"""Tasks to the server, in batches: what is enqueued while requests are on their way goes into the next one, at once.

Every task has its id before the first try, so a request that may or may not have arrived is simply sent again.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, cast

import grpc

from client_core.backoff import Backoff
from client_core.errors import DeadlineExceeded, Internal, InvalidArgument, TaskqError, Unavailable, from_rpc_error
from scheduler_client.calls import (
    CALL_TIMEOUT,
    FIRST_DELAY,
    LONGEST_DELAY,
    Explain,
    delay_before_retry,
    is_transient,
    log,
)
from scheduler_client.errors import Conflict, Rejected
from taskq.v1.scheduler_service_pb2 import (
    ENQUEUE_OUTCOME_CONFLICT,
    ENQUEUE_OUTCOME_REJECTED,
    EnqueueRequest,
    EnqueueResponse,
    EnqueueResult,
    NewTask,
)

if TYPE_CHECKING:
    from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub

MOST_SENDERS: Final = 2
"""Of single tasks: while the request of one is at the server, that of the other is made here. With one alone, half of
two cores is idle: with 64 callers, two gave 2 to 20 % more tasks a second. A third makes batches small, and gains
nothing."""
LEAST_SHARE: Final = 16
"""Fewer tasks than two of these go in one request: a second would cost more than it gains."""
MAX_TASKS: Final = 500
MAX_BYTES: Final = 1_000_000
_FIELD_OF_TASK: Final = re.compile(r"tasks\[(\d+)\](?:\.(.+))?", re.ASCII)


class Waiting:
    """One task on its way, and the answer that its caller waits for."""

    __slots__ = ("answer", "deadline", "message")

    def __init__(self, message: NewTask, answer: asyncio.Future[EnqueueResult], deadline: float) -> None:
        self.message = message
        self.answer = answer
        self.deadline = deadline

    def fail(self, error: TaskqError) -> None:
        """Answers with a copy of the error: a raised error collects the traceback of whoever raised it."""
        if not self.answer.done():
            twin = copy.copy(error)
            twin.metadata = {"task_id": self.message.task_id, **error.metadata}
            self.answer.set_exception(twin)
            self.answer.exception()  # a caller that was cancelled never asks, and asyncio would complain


class Enqueuer:
    """Collects single tasks into requests, and sends batches until each task has its answer."""

    def __init__(self, stub: Callable[[], SchedulerServiceAsyncStub], timeout: float | None, explain: Explain) -> None:
        self._stub = stub
        self._explain = explain
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Waiting] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._on_their_way = 0
        """Senders that wait for an answer; the others are about to look at the queue."""
        self._is_there = False
        """The server has answered the last request."""
        self._trying = asyncio.Lock()
        """Is held by the one that tries whether the server is there."""
        self._has_warned = False
        """That the server is away stands in the log, since it was there last."""

    def wait_for(self, message: NewTask) -> Waiting:
        """A task that has until the total deadline, counted from now."""
        deadline = self._loop.time() + self._timeout if self._timeout is not None else float("inf")
        return Waiting(message, self._loop.create_future(), deadline)

    async def enqueue(self, message: NewTask) -> EnqueueResult:
        """Sends one task together with whatever else is being enqueued now."""
        waiting = self.wait_for(message)
        self._queue.append(waiting)
        self._start_sender()
        try:
            async with asyncio.timeout_at(waiting.deadline if self._timeout is not None else None):
                return await waiting.answer
        except TimeoutError as late:
            if isinstance(late, TaskqError):
                raise
            raise DeadlineExceeded(
                f"no answer within {self._timeout:g} s; the task may be stored, or not",
                metadata={"task_id": message.task_id},
            ) from late

    async def deliver(self, batch: Sequence[Waiting], *, in_turn: bool = False) -> None:
        """Sends one batch, again and again, until every task of it is answered; while the server is away, `in_turn`, so
        that one batch tries and the others wait for what comes of it. Raises nothing but cancellation."""
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        try:
            while any(not waiting.answer.done() for waiting in batch):
                async with self._trying if in_turn and not self._is_there else nullcontext():
                    if live := [waiting for waiting in batch if not waiting.answer.done()]:
                        await self._try(live, backoff)
        except Exception as bug:
            for waiting in batch:
                waiting.fail(Internal(f"the client failed: {bug!r}"))
            raise
        finally:
            for waiting in batch:  # only when this was cancelled is any of them left
                waiting.fail(Unavailable("the scheduler was closed; the task may be stored, or not"))

    async def _try(self, live: Sequence[Waiting], backoff: Backoff) -> None:
        try:
            response = await self._request(live)
        except grpc.RpcError as failure:
            await self._handle(live, await self._explain(from_rpc_error(failure)), backoff)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            # The channel was closed under the call: another request has found that it leads nowhere.
            await self._handle(live, Unavailable("the connection was closed under the call"), backoff)
        else:
            self._has_warned, self._is_there = False, True
            _settle(live, response)

    async def close(self, grace: float) -> None:
        """Gives what is on its way `grace` seconds, then fails it."""
        end = self._loop.time() + grace
        while self._senders and (left := end - self._loop.time()) > 0:  # one that ends may have started another
            await asyncio.wait(self._senders, timeout=left)
        for sender in self._senders:
            sender.cancel()
        if self._senders:
            await asyncio.wait(self._senders)
        self._senders.clear()  # what was cancelled before it had begun is still there, and so is what it was to send
        self._fail_queue()

    def _start_sender(self) -> None:
        """Until the server is there, one at a time: requests that wait for a connection would be sent in any order."""
        most = MOST_SENDERS if self._is_there else 1
        if len(self._senders) == self._on_their_way < most:
            # A task of its own: it starts once the callers that run now have all put theirs into the queue.
            self._senders.add(self._loop.create_task(self._send_queue()))

    async def _send_queue(self) -> None:
        try:
            while self._queue:
                await self._send(self._take())
        finally:
            self._senders.discard(cast(asyncio.Task[None], asyncio.current_task()))
            if not self._senders:
                self._fail_queue()

    def _fail_queue(self) -> None:
        for waiting in self._queue:  # only when senders were cancelled, or have failed, is any of them left
            waiting.fail(Unavailable("the scheduler was closed; the task was not sent"))
        self._queue.clear()

    async def _send(self, batch: list[Waiting]) -> None:
        self._on_their_way += 1
        try:
            if self._queue:
                self._start_sender()
            await self.deliver(batch, in_turn=True)
        finally:
            self._on_their_way -= 1

    def _take(self) -> list[Waiting]:
        """The next batch, which leaves a share for a request that could be on its way as well."""
        share = len(self._queue)
        if self._is_there and not self._on_their_way and share >= MOST_SENDERS * LEAST_SHARE:
            share = -(-share // MOST_SENDERS)
        batch = next(batches(itertools.islice(self._queue, share)))
        for _ in batch:
            self._queue.popleft()
        return batch

    def _request(self, live: Sequence[Waiting]) -> grpc.aio.UnaryUnaryCall[EnqueueRequest, EnqueueResponse]:
        left = max(waiting.deadline for waiting in live) - self._loop.time()
        return self._stub().Enqueue(
            EnqueueRequest(tasks=[waiting.message for waiting in live]),
            timeout=max(0.001, min(CALL_TIMEOUT, left)),
        )

    async def _handle(self, live: Sequence[Waiting], error: TaskqError, backoff: Backoff) -> None:
        if _fail_guilty(live, error):
            return
        if not is_transient(error):
            for waiting in live:
                waiting.fail(error)
            return
        if not self._has_warned:
            log.warning("enqueue of %d tasks failed, is repeated until it succeeds or times out: %s", len(live), error)
        self._has_warned, self._is_there = True, False
        left = max(waiting.deadline for waiting in live) - self._loop.time()
        await asyncio.sleep(min(delay_before_retry(backoff, error), max(0.0, left)))
        for waiting in live:
            if waiting.deadline <= self._loop.time():
                waiting.fail(error)


def batches(tasks: Iterable[Waiting]) -> Iterator[list[Waiting]]:
    """Cuts tasks into batches that one request can carry. A task larger than MAX_BYTES travels alone."""
    batch: list[Waiting] = []
    size = 0
    for waiting in tasks:
        weight = _weight(waiting)
        if batch and (len(batch) == MAX_TASKS or size + weight > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(waiting)
        size += weight
    if batch:
        yield batch


def _is_cancelled() -> bool:
    """Whether somebody wants the running task to end; gRPC raises the same error for a channel that was closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _weight(waiting: Waiting) -> int:
    return waiting.message.ByteSize() + 5  # its tag and its length


def _settle(live: Sequence[Waiting], response: EnqueueResponse) -> None:
    if len(response.results) != len(live):
        fault = Internal(f"the server answered {len(response.results)} results for {len(live)} tasks")
        for waiting in live:
            waiting.fail(fault)
        return
    for waiting, result in zip(live, response.results, strict=True):
        outcome = result.outcome
        if outcome == ENQUEUE_OUTCOME_CONFLICT:
            waiting.fail(Conflict(result.task_id))
        elif outcome == ENQUEUE_OUTCOME_REJECTED:
            waiting.fail(Rejected(waiting.message.dedup.key, result.task_id))
        elif not waiting.answer.done():
            waiting.answer.set_result(result)


def _fail_guilty(live: Sequence[Waiting], error: TaskqError) -> bool:
    """Fails the tasks that the server names, each with its own faults. False when it names none of them."""
    if not isinstance(error, InvalidArgument):
        return False
    faults: dict[int, list[tuple[str, str]]] = {}
    for field, description in error.fields:
        match = _FIELD_OF_TASK.fullmatch(field)
        if match and int(match[1]) < len(live):
            faults.setdefault(int(match[1]), []).append((match[2] or "task", description))
    for place, fields in faults.items():
        name = live[place].message.name
        live[place].fail(
            InvalidArgument(
                f"task {name!r} cannot be enqueued", reason=error.reason, metadata=error.metadata, fields=fields
            )
        )
    return bool(faults)
