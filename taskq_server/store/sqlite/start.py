"""What must hold before a server may use a SQLite file: it is alone, the file is sound, the schema known, commits last.

Exit codes follow sysexits: 78 (configuration) for what an operator must change, 75 (try again) for a file in use.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog
from sqlalchemy import Connection

from taskq_server.core.errors import StoreRefused
from taskq_server.store import migrate
from taskq_server.store.copying import mark as copy_mark

log = structlog.get_logger("taskq.store")

NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "ceph",
    "glusterfs",
    "afs",
    "vboxsf",
}
SAFE_SQLITE = "3.51.3"


@dataclass(slots=True)
class Lock:
    """The right to be the only server on a file, held until released or until the process dies."""

    path: Path
    file: IO[str]
    last_generation: int
    """How often the database had been opened when this lock was last held; 0 when never."""

    def write_generation(self, generation: int) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time()), "generation": generation}
        self.file.seek(0)
        self.file.truncate()
        self.file.write(json.dumps(holder))
        self.file.flush()

    def release(self) -> None:
        self.file.close()


def take(path: Path, *, allow_network: bool = False) -> Lock:
    """Makes the folder if need be and locks `path`.lock; the database itself is never opened, since closing it would
    drop SQLite's own locks."""
    if path.is_dir():
        raise StoreRefused(f"{path} is a folder", "name a file: sqlite:///folder/taskq.db")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreRefused(f"the folder of {path} cannot be made: {error.strerror}", "name another file") from error
    kind = file_system_of(path.parent)
    if kind in NETWORK_FILE_SYSTEMS and not allow_network:
        raise StoreRefused(
            f"{path} is on a network file system ({kind}), where locks and fsync may not hold",
            "use a local disk, or set TASKQ_NETWORK_FILE_SYSTEM=true at your own risk",
        )
    lock_path = path.with_name(path.name + ".lock")
    file = os.fdopen(os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        time.sleep(0.05)  # it may have locked only now; its name follows
        holder = _holder(file)
        file.close()
        raise StoreRefused(
            f"{path} is in use by pid {holder.get('pid', '?')} on {holder.get('host', '?')}",
            "stop that server, or give this one another database",
            exit_code=75,
        ) from None
    generation = _holder(file).get("generation", 0)
    lock = Lock(path, file, generation if isinstance(generation, int) else 0)
    lock.write_generation(lock.last_generation)
    return lock


def _holder(file: IO[str]) -> dict[str, object]:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def file_system_of(folder: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds `folder`, as the kernel names it; empty when unknown."""
    if mounts is None:
        table = Path("/proc/self/mounts")
        mounts = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
    resolved = str(folder.resolve())
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def check(connection: Connection, lock: Lock) -> None:
    """Checks the file, upgrades its schema, and counts this opening."""
    _check_settings(connection)
    _check_soundness(connection, lock)
    with connection.begin():
        migrate.to_head(connection)
        copy_mark.refuse_half_copied(connection)
    with connection.begin():
        generation = int(_meta(connection, "generation") or 0)
        if generation < lock.last_generation:
            log.error(
                "the database is older than when it was last used; was its -wal file deleted, or a backup restored?",
                path=str(lock.path),
                opened=generation,
                expected=lock.last_generation,
            )
        _set_meta(connection, "generation", str(max(generation, lock.last_generation) + 1))
    lock.write_generation(max(generation, lock.last_generation) + 1)


def _check_settings(connection: Connection) -> None:
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    version = str(connection.exec_driver_sql("SELECT sqlite_version()").scalar())
    connection.rollback()
    if mode != "wal":
        raise StoreRefused(f"journal_mode is {mode}", "must be wal; the file system must allow shared memory")
    if synchronous != 2:
        raise StoreRefused(f"synchronous is {synchronous}", "must be 2 (FULL), or answered tasks could be lost")
    if _numbers(version) < _numbers(SAFE_SQLITE):
        log.debug("this SQLite needs its single writer to stay sound", version=version, sound_since=SAFE_SQLITE)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _check_soundness(connection: Connection, lock: Lock) -> None:
    empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0
    found = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    connection.rollback()
    if found != ["ok"]:
        raise StoreRefused(f"{lock.path} is corrupt: {'; '.join(found)}", "restore it from a backup")
    if empty and lock.last_generation:
        raise StoreRefused(
            f"{lock.path} is empty, but was used before",
            f"restore it from a backup, or remove {lock.path}.lock to start anew",
        )


def high_water_us(connection: Connection) -> int:
    """The last time that was saved by a server on this file."""
    return int(_meta(connection, "high_water_us") or 0)


def save_high_water(connection: Connection, now_us: int) -> None:
    _set_meta(connection, "high_water_us", str(now_us))


def _meta(connection: Connection, key: str) -> str | None:
    value = connection.exec_driver_sql("SELECT value FROM meta WHERE key = ?", (key,)).scalar()
    return None if value is None else str(value)


def _set_meta(connection: Connection, key: str, value: str) -> None:
    connection.exec_driver_sql(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
