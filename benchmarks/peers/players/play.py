"""A process that plays one system: `python -m benchmarks.peers.players.play PLAYER WHAT JSON`.

It says `ready`, waits for `go` and answers with one line of JSON; so does every role of `benchmarks.roles`. It runs in
the peers' environment and in ours, so it stands on the standard library alone.

A player is a module with a `Player`, whose methods are all plain or all coroutines. Its tasks are two: `noop` takes 100
bytes and does nothing; `timed` takes an instant and notes when it was started.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import random
import struct
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Thread
from typing import Any

PAYLOAD = "x" * 100
"""For those who send text; as bytes it is as long."""
NOTE = struct.Struct("dd")
"""An instant that a task was given, and when it was started: seconds since 1970."""
FIRST = 0.0
"""Stands for the instant of the first no-op that a process has run."""
CALLERS = 64


class Journal:
    """A file that all workers append to, a record of 16 bytes at a time: about a microsecond each."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._pid = 0

    def begun(self) -> None:
        """A no-op was started; only the first in each process is noted."""
        if not self._pid:
            self._pid = os.getpid()
            self.note(FIRST)

    def note(self, instant: float) -> None:
        os.write(self._file, NOTE.pack(instant, time.time()))


def notes(path: Path) -> list[tuple[float, float]]:
    """What a journal holds: the instant that a task was given, and when it was started."""
    data = path.read_bytes()
    return list(NOTE.iter_unpack(data[: len(data) // NOTE.size * NOTE.size]))


def url() -> str:
    """Of the store that was made for it."""
    return os.environ["PEERS_URL"]


def options() -> dict[str, Any]:
    """What field.py says of it."""
    return dict(json.loads(os.environ["PEERS_OPTIONS"]))


def journal() -> Journal:
    return Journal(os.environ["PEERS_JOURNAL"])


def instants(tasks: int, span: float, seed: int) -> list[float]:
    """So many, spread by chance over so many seconds."""
    chance = random.Random(seed)
    return sorted(chance.uniform(0, span) for _ in range(tasks))


class Plain:
    """Tells a player whose methods block. Where many call at once, each is a thread."""

    def __init__(self, player: Any) -> None:
        self._player = player

    def run(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        self._player.open()
        try:
            _wait_for_go()
            return dict(getattr(self, what)(**given))
        finally:
            self._player.close()

    def prepare(self) -> dict[str, Any]:
        self._player.prepare()
        return {}

    def warm(self, tasks: int) -> dict[str, Any]:
        for _ in range(tasks):
            self._player.now()
        return {}

    def enqueue_all(self, tasks: int) -> dict[str, Any]:
        started = time.time()
        self._player.bulk(tasks)
        return {"started": started, "ended": time.time()}

    def one_by_one(self, tasks: int) -> dict[str, Any]:
        turns = iter(range(tasks))  # next() of it is atomic

        def call() -> None:
            for _ in turns:
                self._player.one()

        callers = [Thread(target=call) for _ in range(CALLERS)]
        started = time.time()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return {"started": started, "ended": time.time()}

    def steadily(self, tasks: int, per_second: float) -> dict[str, Any]:
        with ThreadPoolExecutor(CALLERS) as pool:
            started = time.time()
            calls = []
            for i in range(tasks):
                time.sleep(max(0.0, started + i / per_second - time.time()))
                calls.append(pool.submit(self._player.now))
            wait(calls)
        for call in calls:
            call.result()
        return {"started": started, "ended": time.time()}

    def due(self, tasks: int, span: float, seed: int, lead: float) -> dict[str, Any]:
        first = time.time() + lead
        self._player.later([first + after for after in instants(tasks, span, seed)])
        return {"first": first, "ended": time.time()}


class Coroutines:
    """Tells a player whose methods are coroutines. Where many call at once, each is a task of one event loop."""

    def __init__(self, player: Any) -> None:
        self._player = player

    def run(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        return dict(_loop()(self._run(what, given)))

    async def _run(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        await self._player.open()
        try:
            await asyncio.to_thread(_wait_for_go)
            return dict(await getattr(self, what)(**given))
        finally:
            await self._player.close()

    async def prepare(self) -> dict[str, Any]:
        await self._player.prepare()
        return {}

    async def warm(self, tasks: int) -> dict[str, Any]:
        for _ in range(tasks):
            await self._player.now()
        return {}

    async def fill(self, tasks: int) -> dict[str, Any]:
        await self._player.fill(tasks)
        return {}

    async def enqueue_all(self, tasks: int) -> dict[str, Any]:
        started = time.time()
        await self._player.bulk(tasks)
        return {"started": started, "ended": time.time()}

    async def one_by_one(self, tasks: int) -> dict[str, Any]:
        turns = iter(range(tasks))

        async def call() -> None:
            for _ in turns:
                await self._player.one()

        started = time.time()
        await asyncio.gather(*(call() for _ in range(CALLERS)))
        return {"started": started, "ended": time.time()}

    async def steadily(self, tasks: int, per_second: float) -> dict[str, Any]:
        started = time.time()
        calls = []
        for i in range(tasks):
            await asyncio.sleep(max(0.0, started + i / per_second - time.time()))
            calls.append(asyncio.create_task(self._player.now()))
        await asyncio.gather(*calls)
        return {"started": started, "ended": time.time()}

    async def due(self, tasks: int, span: float, seed: int, lead: float) -> dict[str, Any]:
        first = time.time() + lead
        await self._player.later([first + after for after in instants(tasks, span, seed)])
        return {"first": first, "ended": time.time()}


def chunks(values: Iterable[Any], size: int) -> Iterable[list[Any]]:
    chunk: list[Any] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _loop() -> Callable[..., Any]:
    """uvloop's where it is installed: it is among the peers, who recommend it."""
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.run
    return uvloop.run  # type: ignore[no-any-return]


_cpu_seconds_before = 0.0


def _wait_for_go() -> None:
    """Says `ready`, and waits; what it costs from then on is told."""
    global _cpu_seconds_before
    print("ready", flush=True)
    if sys.stdin.readline() != "go\n":
        raise SystemExit("was not told to go")
    _cpu_seconds_before = _cpu_seconds()


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def main() -> None:
    player, what, given = sys.argv[1:]
    played = importlib.import_module(f"benchmarks.peers.players.{player}").Player()
    teller = Coroutines(played) if inspect.iscoroutinefunction(played.bulk) else Plain(played)
    answer = teller.run(what, json.loads(given))
    print(json.dumps({**answer, "cpu_seconds": _cpu_seconds() - _cpu_seconds_before}), flush=True)


if __name__ == "__main__":
    main()
