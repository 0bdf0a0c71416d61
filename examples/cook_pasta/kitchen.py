"""The processes: a server, and cooks that come and go."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEASE = "2s"
"""Short, so that a killed cook is noticed while one watches."""


@dataclass(slots=True)
class Kitchen:
    """Everything that runs, and what the cooks have said."""

    folder: Path
    address: str = ""
    said: list[dict[str, Any]] = field(default_factory=list)
    cooks: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _server: asyncio.subprocess.Process | None = None
    _listeners: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Starts the server on a new file."""
        self._server = await self._start(
            "taskq_server",
            "--listen=127.0.0.1:0",
            "--http-listen=",
            f"--database-url=sqlite:///{self.folder}/kitchen.db",
            f"--lease-duration={LEASE}",
            "--log-level=error",
        )
        assert self._server.stdout is not None
        line = (await self._server.stdout.readline()).decode()
        if "listens on" not in line:
            raise RuntimeError("the server did not start; its reason stands above")
        self.address = line.split()[-1]

    async def hire(self, name: str) -> None:
        """Starts a cook."""
        cook = self.cooks[name] = await self._start("examples.cook_pasta.cooks", name)
        listener = asyncio.create_task(self._listen(name, cook))
        self._listeners.add(listener)
        listener.add_done_callback(self._listeners.discard)

    def kill(self, name: str) -> int:
        """kill -9; answers the process id."""
        cook = self.cooks[name]
        cook.kill()
        return cook.pid

    async def close(self) -> None:
        """The cooks finish, then the server."""
        for process in [*self.cooks.values(), *([self._server] if self._server else [])]:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if self._listeners:
            await asyncio.wait(self._listeners)

    async def _start(self, module: str, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TASKQ_ADDRESS": self.address},
        )

    async def _listen(self, name: str, cook: asyncio.subprocess.Process) -> None:
        assert cook.stdout is not None
        async for line in cook.stdout:
            self.said.append({"cook": name, **json.loads(line)})
        await cook.wait()
