"""Where something was opened: no channel survives a fork, and an asyncio one belongs to one event loop."""

from __future__ import annotations

import asyncio
import os


class Home:
    """Remembers the process, and the event loop if one runs, in which it was made."""

    __slots__ = ("_loop", "_pid", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()
        self._loop = _running_loop()

    def check(self) -> None:
        """Raises RuntimeError when called from another process or another event loop."""
        pid = os.getpid()
        if pid != self._pid:
            raise RuntimeError(
                f"{self._what} was opened by process {self._pid} before it forked process {pid}; "
                "must be opened after the fork (start children by 'spawn')"
            )
        if self._loop is not None and _running_loop() is not self._loop:
            raise RuntimeError(f"{self._what} belongs to another event loop; must be used in the one that opened it")

    @property
    def is_gone(self) -> bool:
        """True when its event loop is closed, as after `asyncio.run`: nothing opened in it can be used again."""
        return self._pid == os.getpid() and self._loop is not None and self._loop.is_closed()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
