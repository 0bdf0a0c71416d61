"""Changes of tasks from the server: ids that are watched at about the same time share one stream.

A connection carries a bounded number of streams, and a call beyond it waits silently. So streams are few: eight of a
size become one of the next size, and each FULL ids cost one stream however they came together.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import grpc

from client_core.backoff import Backoff
from client_core.errors import HandshakeFailed, InvalidArgument, NotFound, TaskqError, Unavailable, from_rpc_error
from scheduler_client.calls import Explain, delay_before_retry, log
from taskq.v1.scheduler_service_pb2 import WatchTaskRequest
from taskq.v1.task_pb2 import Task, TaskState

if TYPE_CHECKING:
    from taskq.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub

FULL: Final = 1_000
"""The most ids on one stream, by the contract."""

_FANOUT: Final = 8
_STREAMS_PER_LINE: Final = 48  # the server allows 64 on one connection
_FINISHED: Final = frozenset(
    {TaskState.TASK_STATE_SUCCEEDED, TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_CANCELLED}
)
_LASTING: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class Watch:
    """One caller's interest in one task."""

    __slots__ = ("_changed", "_error", "_latest", "_seen", "stream", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.stream: Stream | None = None
        self._latest: Task | None = None
        self._seen: Task | None = None
        self._error: TaskqError | None = None
        self._changed: asyncio.Future[None] | None = None

    async def next(self) -> Task:
        """The task as it stands, once that differs from what was answered before. Quick changes come as one."""
        while self._latest is None or self._latest == self._seen:
            if self._error is not None:
                raise self._error
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        self._seen = self._latest
        return self._latest

    def show(self, task: Task) -> None:
        """Tells the caller how the task stands."""
        self._latest = task
        self._wake()

    def fail(self, error: TaskqError) -> None:
        """Tells the caller that there is nothing to see."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


class Stream:
    """One WatchTask call and those who look at it, opened anew until all of its tasks are finished."""

    def __init__(self, watches: Iterable[Watch], line: int) -> None:
        self.line = line
        self.watches: dict[str, list[Watch]] = {}
        for watch in watches:
            self.watches.setdefault(watch.task_id, []).append(watch)
            watch.stream = self
        self.reader: asyncio.Task[None] | None = None

    @property
    def level(self) -> int:
        """0 for up to 8 ids, 1 for up to 64, 2 for up to 512, 3 beyond."""
        return next((level for level in range(3) if len(self.watches) <= _FANOUT ** (level + 1)), 3)

    def show(self, task: Task) -> None:
        """Passes a task on; one that is finished will not change again."""
        finished = task.state in _FINISHED
        for watch in self.watches.pop(task.task_id, ()) if finished else self.watches.get(task.task_id, ()):
            watch.show(task)

    def fail(self, error: TaskqError) -> None:
        """Tells everybody."""
        for watch in self.everyone():
            watch.fail(error)
        self.watches.clear()

    def drop(self, watch: Watch) -> None:
        """Forgets one who no longer looks; nobody left: nothing to read."""
        lookers = self.watches.get(watch.task_id, [])
        if watch in lookers:
            lookers.remove(watch)
            if not lookers:
                del self.watches[watch.task_id]
        if not self.watches and self.reader is not None:
            self.reader.cancel()

    def everyone(self) -> list[Watch]:
        """All who look."""
        return [watch for lookers in self.watches.values() for watch in lookers]


class Watcher:
    """All streams of one scheduler. `stub` gives the stub of a line, which is a connection, counted from 0."""

    def __init__(self, stub: Callable[[int], SchedulerServiceAsyncStub], explain: Explain) -> None:
        self._stub = stub
        self._explain = explain
        self._new: list[Watch] = []
        self._streams: list[Stream] = []

    def watch(self, task_id: str) -> Watch:
        """Begins to watch a task; `drop` ends it."""
        if not self._new:
            # Called once those who run now have all asked.
            asyncio.get_running_loop().call_soon(self._open_new)
        watch = Watch(task_id)
        self._new.append(watch)
        return watch

    def drop(self, watch: Watch) -> None:
        """Ends the interest in a task."""
        if watch.stream is not None:
            watch.stream.drop(watch)
        elif watch in self._new:
            self._new.remove(watch)

    async def close(self) -> None:
        """Ends every stream; those who still wait are told."""
        readers = [stream.reader for stream in self._streams if stream.reader is not None]
        for stream in self._streams:
            stream.fail(Unavailable("the scheduler was closed"))
        for reader in readers:
            reader.cancel()
        if readers:
            await asyncio.wait(readers)

    def _open_new(self) -> None:
        new, self._new = self._new, []
        self._open(new)
        self._compact()

    def _open(self, watches: list[Watch]) -> None:
        by_id: dict[str, list[Watch]] = {}
        for watch in watches:
            by_id.setdefault(watch.task_id, []).append(watch)
        ids = list(by_id)
        for start in range(0, len(ids), FULL):
            lookers = (watch for task_id in ids[start : start + FULL] for watch in by_id[task_id])
            stream = Stream(lookers, self._free_line())
            self._streams.append(stream)
            stream.reader = asyncio.create_task(self._read(stream))

    def _free_line(self) -> int:
        taken = Counter(stream.line for stream in self._streams)
        return next(line for line in itertools.count() if taken[line] < _STREAMS_PER_LINE)

    def _compact(self) -> None:
        for level in range(3):
            peers = [stream for stream in self._streams if stream.level == level]
            if len(peers) >= _FANOUT:
                watches = [watch for stream in peers for watch in stream.everyone()]
                for stream in peers:
                    self._close(stream)
                self._open(watches)

    def _close(self, stream: Stream) -> None:
        stream.watches.clear()
        self._streams.remove(stream)
        if stream.reader is not None:
            stream.reader.cancel()

    async def _read(self, stream: Stream) -> None:
        backoff = Backoff(0.1, 5.0)
        try:
            while stream.watches:
                try:
                    await self._read_once(stream, backoff)
                    delay = backoff.next() if stream.watches else 0.0
                except grpc.RpcError as failure:
                    error = await self._explain(from_rpc_error(failure))
                    if error.code in _LASTING or isinstance(error, HandshakeFailed):
                        self._isolate(stream, error)
                        continue
                    delay = delay_before_retry(backoff, error)
                    log.info("watch of %d tasks was interrupted, is opened again: %s", len(stream.watches), error)
                await asyncio.sleep(delay)
        finally:
            if stream in self._streams:
                self._streams.remove(stream)

    async def _read_once(self, stream: Stream, backoff: Backoff) -> None:
        ids = list(stream.watches)
        call = self._stub(stream.line).WatchTask(WatchTaskRequest(task_id=ids[0], task_ids=ids[1:]))
        try:
            async for response in call:
                backoff.reset()
                stream.show(response.task)
                if not stream.watches:
                    return
        finally:
            call.cancel()

    def _isolate(self, stream: Stream, error: TaskqError) -> None:
        """Fails the one task that an error is about, and lets the others be watched on."""
        guilty = error.metadata.get("task_id", "")
        if isinstance(error, NotFound | InvalidArgument) and len(stream.watches) > 1:
            if guilty in stream.watches:
                for watch in stream.watches.pop(guilty):
                    watch.fail(error)
            else:  # somebody in here: each half for itself
                watches = stream.everyone()
                stream.watches.clear()
                self._open(watches[: len(watches) // 2])
                self._open(watches[len(watches) // 2 :])
        else:
            stream.fail(error)
