"""The processor under test, in a process of its own: its environment, its signals, its end, and what it said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LAST_WORDS = 3


class Program:
    """A command. `ended` is called when it has ended, for whatever reason."""

    def __init__(self, command: Sequence[str], log: Path, ended: Callable[[], None]) -> None:
        self._command = command
        self._log = log
        self._ended = ended
        self._process: asyncio.subprocess.Process | None = None
        self._end: asyncio.Task[int] | None = None

    async def start(self, settings: Mapping[str, str]) -> None:
        """Starts it with these settings of a client's, and none that the kit's own environment may have."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TASKQ_")}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**inherited, **settings},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._end = asyncio.create_task(self._process.wait())
        self._end.add_done_callback(lambda _: self._ended())

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal has ended it."""
        return None if self._process is None else self._process.returncode

    @property
    def last_words(self) -> str:
        """The last lines that it wrote."""
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return " | ".join(line.strip() for line in lines[-LAST_WORDS:])[:300]

    def terminate(self) -> None:
        """SIGTERM, to it alone."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def kill(self) -> None:
        """SIGKILL, to it and to whatever it has started."""
        if self._process is None or self._end is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._end
