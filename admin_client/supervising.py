"""Processes that run under this one: started, started anew when files change, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from admin_client.errors import INTERRUPTED
from admin_client.reload import INTERVAL_SECONDS, Files

PATIENCE_SECONDS: Final = 35.0
"""How long a program may take to end: processors drain for 30 s."""

IMPATIENCE_SECONDS: Final = 5.0
"""The same where it only makes room for its successor."""


class Program:
    """A process that is started again and again. Ctrl-C does not reach it by itself: who started it ends it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, is_heard: bool = False) -> None:
        self._command = command
        # Python takes a file that has changed within the second, and not in its size, for the one that it compiled.
        self._environment = {**environment, "PYTHONDONTWRITEBYTECODE": "1"}
        self._is_heard = is_heard
        self.process: Process | None = None

    async def start(self) -> Process:
        self.process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,  # whose end tells it that we have gone
            stdout=PIPE if self._is_heard else None,
            env=self._environment,
            start_new_session=True,
        )
        return self.process

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def end(self, patience: float = PATIENCE_SECONDS) -> None:
        """SIGTERM; once more when that takes too long; then SIGKILL."""
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGTERM, 2.0), (signal.SIGKILL, None)):
            if self.process is None or self.process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                self.process.send_signal(number)
                await asyncio.wait_for(self.process.wait(), seconds)


class Stop:
    """SIGINT and SIGTERM: the first asks for an end in order, the second for one at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.asked_twice = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._come)

    def _come(self) -> None:
        (self.asked_twice if self.asked.is_set() else self.asked).set()

    async def until(self, *works: asyncio.Task[Any]) -> bool:
        """Until one of these is done, or a stop was asked for: then True."""
        asked = asyncio.create_task(self.asked.wait())
        await asyncio.wait({asked, *works}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        return self.asked.is_set()

    async def ending(self, *programs: Program) -> int:
        """Ends programs, one after the other; answers the exit code."""
        work = asyncio.create_task(_end_all(programs))
        twice = asyncio.create_task(self.asked_twice.wait())
        await asyncio.wait({work, twice}, return_when=asyncio.FIRST_COMPLETED)
        twice.cancel()
        if work.done():
            work.result()
            return 0
        work.cancel()
        for program in programs:
            if program.is_running and program.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    program.process.kill()
                await program.process.wait()
        return INTERRUPTED


async def keep(program: Program, folder: Path | None) -> int:
    """Runs a program, and answers its exit code; of a folder, anew at each change of its files, for ever."""
    if folder is None:
        return await (await program.start()).wait()
    files = Files(folder)
    while True:
        await program.start()
        changed = await _changed(files)
        click.echo(f"taskq: {', '.join(changed[:3])} has changed: anew", err=True)
        began = time.monotonic()
        await program.end(IMPATIENCE_SECONDS)
        if (took := time.monotonic() - began) > 1:
            click.echo(f"taskq: its predecessor took {took:.1f} s to end", err=True)


def run_reloading(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a program anew at each change of the files in this folder, until a signal."""

    async def run() -> int:
        stop = Stop()
        program = Program(command, environment)
        keeping = asyncio.create_task(keep(program, Path.cwd()))
        await stop.until(keeping)
        keeping.cancel()
        await asyncio.wait({keeping})
        return await stop.ending(program)

    return asyncio.run(run())


async def _changed(files: Files) -> list[str]:
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        if changed := await asyncio.to_thread(files.changed):
            return changed


async def _end_all(programs: Sequence[Program]) -> None:
    for program in programs:
        await program.end()
