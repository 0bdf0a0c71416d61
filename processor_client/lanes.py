"""How many attempts run at a time, and which is next: in the order in which they came.

A lane is an asyncio task that runs one attempt after another. A handler that does not wait for anything costs no task
of its own: the same lane goes on with the next. When a handler waits, its lane waits with it and another takes over.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

# After so many without a pause a lane lets the loop read the network and send reports.
TURNS_BEFORE_PAUSE = 64

T = TypeVar("T")


class Lanes(Generic[T]):
    """At most `size` lanes, each `await run(item)` at a time; they are started as they are needed."""

    def __init__(self, size: int, run: Callable[[T], Awaitable[None]]) -> None:
        self._size = size
        self._run = run
        self._queue: deque[T] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._lanes: set[asyncio.Task[None]] = set()
        self._successor_comes = False
        self._closed = False
        self._context = contextvars.copy_context()

    def put(self, items: Iterable[T], *, first: bool = False) -> None:
        """Runs these after those that wait already; before them when `first`."""
        if first:
            self._queue.extendleft(reversed(list(items)))
        else:
            self._queue.extend(items)
        self._call_successor()

    async def close(self) -> None:
        """Cancels every lane; what still waits is forgotten."""
        self._closed = True
        self._queue.clear()
        lanes = list(self._lanes)
        for lane in lanes:
            lane.cancel()
        if lanes:
            await asyncio.wait(lanes, timeout=1.0)

    def _call_successor(self) -> None:
        """Has one lane begin in the loop's next turn, if there is anything left to do by then."""
        if self._successor_comes or self._closed or not self._queue:
            return
        if self._idle:
            self._successor_comes = True
            self._idle.pop().set_result(None)
        elif len(self._lanes) < self._size:
            self._successor_comes = True
            # A context each: what a handler sets in one lane is not seen in another.
            lane = asyncio.get_running_loop().create_task(self._drive(), context=self._context.copy())
            self._lanes.add(lane)
            lane.add_done_callback(self._ended)

    async def _drive(self) -> None:
        lane = asyncio.current_task()
        assert lane is not None
        untouched = contextvars.copy_context()
        queue, run, turns = self._queue, self._run, 0
        while True:
            self._successor_comes = False
            while queue:
                item = queue.popleft()
                if queue and not self._successor_comes:
                    self._call_successor()
                await run(item)
                # A handler has left something behind that the next one must not meet. The comparison is of pointers.
                if lane.cancelling() or contextvars.copy_context() != untouched:
                    return
                turns += 1
                if turns >= TURNS_BEFORE_PAUSE:
                    turns = 0
                    await asyncio.sleep(0)
            rest = asyncio.get_running_loop().create_future()
            self._idle.append(rest)
            await rest

    def _ended(self, lane: asyncio.Task[None]) -> None:
        self._lanes.discard(lane)
        self._successor_comes = False
        if not lane.cancelled() and (error := lane.exception()) is not None:
            lane.get_loop().call_exception_handler({"message": "a lane ended", "exception": error, "task": lane})
        self._call_successor()
