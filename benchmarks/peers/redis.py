"""A Redis of its own, on a free port of loopback, with its own folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import database

FSYNC = {"appendonly": "yes", "appendfsync": "always"}
"""Every command on disk before it is answered; the default is no log at all, and a snapshot every minute or later."""
KEPT = ".aof", ".rdb"
START_SECONDS = 10
MISSING = "needs redis-server (apt-get install redis-server; brew install redis), or --only systems that do without"


def version() -> str:
    """Of the program. SystemExit with what to do where there is none."""
    if shutil.which("redis-server") is None:
        raise SystemExit(MISSING)
    words = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout.split()
    return next(word.removeprefix("v=") for word in words if word.startswith("v="))


class Redis:
    """One that runs."""

    def __init__(self, port: int, pid: int, folder: Path) -> None:
        self.pid = pid
        self._folder = folder
        self.url = f"redis://127.0.0.1:{port}"
        self._port = port

    def count(self, *words: str, of: int = 0) -> int:
        """What a command answers with a number, asked of that database."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=START_SECONDS) as connection:
            connection.sendall(_request("SELECT", str(of)) + _request(*words))
            with connection.makefile("rb") as answers:
                selected, number = answers.readline(), answers.readline()
        if selected != b"+OK\r\n" or not number.startswith(b":"):
            raise ValueError(f"{' '.join(words)} was answered {number!r}; must be a number")
        return int(number[1:])

    def kept_kib(self) -> float:
        """Its files: the log if there is one, and the snapshot."""
        return sum(file.stat().st_size for file in self._folder.rglob("*.*") if file.suffix in KEPT) / 1024


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Redis]:
    """With the defaults of the program, and with those settings."""
    port = database.free_port()
    flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *flags]
    with (folder / "redis.log").open("wb") as log:
        # a session of its own: the terminal's Ctrl-C is for the benchmark, which then ends this one
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    redis = Redis(port, process.pid, folder)
    try:
        _wait_until_ready(redis, folder / "redis.log")
        yield redis
    finally:
        process.kill()  # its data are not looked at again
        process.wait()


def _wait_until_ready(redis: Redis, log: Path) -> None:
    ends_at = time.monotonic() + START_SECONDS
    while True:
        try:
            redis.count("DBSIZE")
            return
        except OSError as error:
            if time.monotonic() > ends_at:
                raise TimeoutError(log.read_text(errors="replace")) from error
            time.sleep(0.02)


def _request(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
    return "".join(parts).encode()
