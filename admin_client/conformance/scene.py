"""One promise's stage: a server that goes by script, a processor under test, and words for what must be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from admin_client.conformance.program import Program
from admin_client.conformance.promise import Broken
from admin_client.conformance.server import HEARTBEAT_SECONDS, Beat, Report, ScriptedServer
from admin_client.conformance.stream import Stream
from admin_client.conformance.work import Sleeper, key, ref
from taskq.v1.processor_service_pb2 import AssignedTask

LOOK_SECONDS = 0.05
AFTERMATH_BEATS = 3
"""For so many heartbeats a script looks whether what must not happen happens."""


class Scene:
    """What a script has. A processor that ends unasked breaks whatever it was to do."""

    def __init__(self, command: Sequence[str], folder: Path, patience: float, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.server = ScriptedServer(**settings)
        self.environment: dict[str, str] = {}
        self.program = Program(command, folder / "processor.log", self.server.changes)
        self._patience = patience

    async def start(self) -> None:
        """Starts the processor; whether the server listens yet is the script's affair."""
        await self.program.start({"TASKQ_ADDRESS": self.server.address, **self.environment})

    async def opened(self) -> Stream:
        """Starts both, and waits for the first stream."""
        await self.server.listen()
        await self.start()
        return await self.stream(1)

    async def close(self) -> None:
        """Ends both, at once."""
        await self.program.kill()
        await self.server.go_away()

    # What must be.

    async def until(self, condition: Callable[[], Any], must: str, patience: float | None = None) -> None:
        """Waits until the condition holds. `must` completes the sentence "it must …"."""
        patience = patience or self._patience
        deadline = time.monotonic() + patience
        while not condition():
            self._must_live(f"must {must}")
            if time.monotonic() > deadline:
                raise Broken(f"it did not within {patience:g} s; must {must}")
            await self.server.changed(LOOK_SECONDS)

    async def stream(self, number: int, must: str = "") -> Stream:
        """The stream that it opens as the `number`th."""
        usual = "open its stream" if number == 1 else "open another stream"
        await self.until(lambda: len(self.server.streams) >= number, must or usual)
        return self.server.streams[number - 1]

    async def result(self, task: AssignedTask, outcome: str = "succeeded", must: str = "") -> Report:
        """The first report of the attempt, which must be of this outcome and from the session that has it."""
        await self.until(lambda: self.reports_of(task), must or f"report {task.name} as {outcome}")
        report = self.reports_of(task)[0]
        self.must(report.outcome == outcome, f"{task.name} was reported as {report.outcome}; must be {outcome}")
        return report

    async def begun(self, *sleepers: Sleeper) -> None:
        """Waits until their handlers run."""
        await self.until(lambda: all(each.begun for each in sleepers), "run conformance.sleep, which writes `begin`")

    async def beats(self, count: int = AFTERMATH_BEATS) -> list[Beat]:
        """So many heartbeats that came from now on, after one that may have been under way."""
        seen = len(self.server.beats) + 1
        await self.until(lambda: len(self.server.beats) >= seen + count, "send heartbeats")
        return self.server.beats[seen : seen + count]

    async def listed(self, *tasks: AssignedTask) -> None:
        """Waits for a heartbeat that lists all of these."""
        wanted = {key(task) for task in tasks}
        await self.until(lambda: wanted <= self._last_keys(), f"list all {len(tasks)} that it holds in its heartbeats")

    async def dropped(self, *tasks: AssignedTask) -> None:
        """Waits for a heartbeat that lists none of these."""
        gone = {key(task) for task in tasks}
        seen = len(self.server.beats)
        await self.until(
            lambda: len(self.server.beats) > seen and not gone & self._last_keys(),
            "no longer list in its heartbeats what it no longer holds",
        )

    async def draining(self) -> None:
        """Waits for a heartbeat that says so."""
        beats = self.server.beats
        await self.until(lambda: beats and beats[-1].request.draining, "say in a heartbeat that it drains")

    async def ended(self) -> None:
        """Waits until the processor has ended by itself, which must be without a fault."""
        await self.until(lambda: self.program.exit_code is not None, "end after SIGTERM")
        self.must(self.program.exit_code == 0, f"its exit code was {self.program.exit_code}; must be 0")

    def must(self, holds: object, otherwise: str) -> None:
        """The promise is broken unless it holds."""
        if not holds:
            raise Broken(otherwise)

    def same(self, what: str, seen: object, expected: object) -> None:
        """The promise is broken unless the one is the other."""
        self.must(seen == expected, f"{what} is {seen!r:.100}; must be {expected!r:.100}")

    async def aftermath(self, seconds: float = 0.0) -> None:
        """Lets some heartbeats, and so many seconds, pass. Who has died meanwhile could do nothing wrong any more."""
        await asyncio.sleep(max(seconds, AFTERMATH_BEATS * HEARTBEAT_SECONDS))
        self._must_live("must go on")

    def reports_of(self, task: AssignedTask) -> list[Report]:
        """What was reported of the attempt, and not refused."""
        return [report for report in self.server.reports if report.key == key(task)]

    # What the script does.

    def sleeper(self, seconds: float, task_id: str | None = None, attempt: int = 1) -> Sleeper:
        """A task that sleeps."""
        return Sleeper(self.folder, seconds, task_id, attempt)

    def lose(self, task: AssignedTask) -> None:
        """The lease of the attempt has ended; heartbeats that list it are told."""
        self.server.lost[key(task)] = ref(task)

    def cancel(self, task: AssignedTask) -> None:
        """The attempt is cancelled; heartbeats that list it are told."""
        self.server.cancelled[key(task)] = ref(task)

    def terminate(self) -> None:
        """SIGTERM."""
        self.program.terminate()

    def _must_live(self, otherwise: str) -> None:
        if self.program.exit_code is not None:
            said = self.program.last_words
            raise Broken(f"it ended with exit code {self.program.exit_code}; {otherwise}" + (said and f" ({said})"))

    def _last_keys(self) -> set[tuple[str, int]]:
        return self.server.beats[-1].keys if self.server.beats else set()
