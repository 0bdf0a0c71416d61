"""A program of ours in a process of its own: its start, its signals, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.process import ROOT

READY = "ready"


class Program:
    """`python -m module flags…`; `start` returns once it has said that it is ready."""

    def __init__(self, module: str, name: str, folder: Path, **flags: object) -> None:
        self.module = module
        self.name = name
        self.log = folder / f"{name}.log"
        self.flags = [f"--{flag.replace('_', '-')}={value}" for flag, value in {"name": name, **flags}.items()]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Program:
        """Starts it; without `wait` it may not be ready yet."""
        command = [sys.executable, "-m", self.module, *self.flags]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'generated'}"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=ROOT)
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        if (line := self._process.stdout.readline().decode().strip()) != READY:
            self.kill()
            raise AssertionError(f"{self.name} did not start ({line!r}): {self.read_log()}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 60) -> int:
        """Its exit code."""
        assert self._process is not None
        code = self._process.wait(timeout)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM; answers the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, if it still lives; also when it is stopped."""
        if self._process is not None:
            if self.is_alive:
                self.signal(signal.SIGKILL)
            self.wait()

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""
