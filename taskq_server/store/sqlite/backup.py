"""A copy of a SQLite file as it is at one moment, also while a server is at work on it.

It is made by SQLite itself: a file that is copied while somebody writes to it is no database.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from taskq_server.core.errors import StoreRefused

_BUSY_SECONDS = 30
_DISK_FAILS = 74
_NO_SECOND_NAMES = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_ONE_OPENING_LESS = "UPDATE meta SET value = value - 1 WHERE key = 'generation' AND value + 0 > 0"
"""So that it is older than the file itself, and a server that finds it in its place says so."""


def backup(source: Path, target: Path) -> None:
    """Writes `target`, which must not be there yet: it appears whole and sound, on the disk, or not at all.

    The server writes on meanwhile; what it writes waits in the -wal file until this ends.
    """
    half: Path | None = None
    try:
        if target.exists():
            raise FileExistsError
        half = _new_file_beside(target)
        _copy(source, half)
        _to_disk(half)
        _name(half, target)
        _to_disk(target.parent)
    except FileExistsError:
        raise StoreRefused(f"{target} is there already", "name another file", 2) from None
    except OSError as error:
        raise StoreRefused(
            f"{target} cannot be written: {error.strerror}", "look at the disk, or name another file", _DISK_FAILS
        ) from error
    finally:
        if half is not None:
            with contextlib.suppress(OSError):
                half.unlink(missing_ok=True)


def _new_file_beside(target: Path) -> Path:
    """Its owner's alone; another backup to the same name gets another."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.half-", dir=target.parent)
    os.close(descriptor)
    return Path(name)


def _name(half: Path, target: Path) -> None:
    """Where the file system knows no second names, a file that appears between the look and the renaming is lost."""
    try:
        os.link(half, target)
    except OSError as error:
        if error.errno not in _NO_SECOND_NAMES:
            raise
        if target.exists():
            raise FileExistsError from None
        half.rename(target)


def _copy(source: Path, half: Path) -> None:
    reading = f"file:{quote(str(source))}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(reading, uri=True, timeout=_BUSY_SECONDS)) as one,
            closing(sqlite3.connect(half)) as other,
        ):
            one.backup(other)  # all of it in one step, of one snapshot
            other.execute(
                "PRAGMA journal_mode = DELETE"
            )  # one file, that can be read also where nothing can be written
            other.execute(_ONE_OPENING_LESS)
            other.commit()
            (said,) = other.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise StoreRefused(f"SQLite says: {error}", "look at the disk, then try again", _DISK_FAILS) from error
    if said != "ok":
        raise StoreRefused(f"the copy is not sound: {said}", "look at the disk; if the file is damaged too, restore it")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
