"""Real processes, to be stopped, continued and killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


def taskq_db(*arguments: str, folder: Path = ROOT) -> subprocess.Popen[str]:
    """`taskq db` with these arguments, by the program that stands in `folder`; already started."""
    command = [sys.executable, "-m", "taskq_server.database", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


class ServerProcess:
    """`python -m taskq_server`, which keeps its port when it is started again."""

    def __init__(self, database_url: str, **settings: str) -> None:
        self.database_url = database_url
        self.settings = settings
        self.address = "127.0.0.1:0"
        self.http_address = ""
        """Where it answers HTTP, if `http_listen` is among its settings."""
        self.token_address = ""
        """Where it takes tokens without certificates, if `token_listen` is among them."""
        self.prefix: list[str] = []  # what to run it under
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Starts it and answers its address once it listens."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        command = [*self.prefix, sys.executable, "-m", "taskq_server", f"--listen={self.address}", *flags]
        environment = {**os.environ, "TASKQ_DATABASE_URL": self.database_url, "TASKQ_HTTP_LISTEN": ""}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment, cwd=ROOT)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if "listens on" not in line:
            self.kill()
            raise AssertionError(f"the server did not start: {self.read_log()}")
        self.address = line.split()[-1]
        if "token_listen" in self.settings:
            told, _, self.token_address = self._process.stdout.readline().decode().strip().rpartition(" ")
            assert told == "taskq server takes tokens without certificates on"
        if "http_listen" in self.settings:
            self.http_address = self._process.stdout.readline().decode().strip().partition("://")[2]
        return self.address

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 30) -> int:
        """Its exit code."""
        assert self._process is not None
        code = self._process.wait(timeout)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM; answers the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, if it still lives."""
        if self._process is not None:
            if self._process.poll() is None:
                self.signal(signal.SIGKILL)
            self.wait()

    def restart(self) -> None:
        """SIGKILL, then start again on the same port."""
        self.kill()
        self.start()

    def read_log(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")
