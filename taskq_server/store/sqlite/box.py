"""What operators ask of the server that has a SQLite file, and alone may write to it.

A folder beside the file, in which each request is a file of its own. The server does what they say within a second,
commits, and removes them; whoever asked waits for that. A request may be done twice, as when the server was killed
between the two.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import structlog

from taskq_server.core import token as api_token
from taskq_server.core.errors import StoreRefused
from taskq_server.core.rights import Rights
from taskq_server.store.verbs.tokens import Change, NewToken, Revocation

log = structlog.get_logger("taskq.store")

MOST_BYTES = 1 << 20
WAIT_SECONDS = 15.0
LOOK_SECONDS = 0.05
TRY_AGAIN = 75
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Request:
    """A change that somebody asks for."""

    change: Change
    path: Path

    def done(self) -> None:
        """It is committed."""
        self.path.unlink(missing_ok=True)


class Box:
    """The requests to the server that has a file."""

    def __init__(self, database: Path) -> None:
        self.folder = database.with_name(database.name + ".requests")
        self._is_ours = False

    def open(self) -> None:
        """The server takes requests from now on. A folder into which others may write it leaves alone."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            found = self.folder.lstat()
        except OSError as error:
            log.warning("no requests can be taken", folder=str(self.folder), why=error.strerror)
            return
        self._is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS
        if not self._is_ours:
            log.warning("no requests are taken from a folder into which others may write", folder=str(self.folder))

    def requests(self) -> list[Request]:
        """What is asked for now."""
        if not self._is_ours:
            return []
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.suffix == ".json")
        except OSError:
            return []
        return [request for path in paths if (request := _read(path)) is not None]

    def ask(self, change: Change) -> None:
        """Asks for a change and returns once it is committed; StoreRefused when nobody does it in time."""
        path = self.folder / f"{uuid.uuid4().hex}.json"
        try:
            _write(path, change)
        except OSError as error:
            raise StoreRefused(
                f"{self.folder} cannot be written to: {error.strerror}", "ask as the user of the server", TRY_AGAIN
            ) from error
        passing = threading.Event()  # which nobody sets
        for _ in range(round(WAIT_SECONDS / LOOK_SECONDS)):
            if not path.exists():
                return
            passing.wait(LOOK_SECONDS)
        path.unlink(missing_ok=True)
        raise StoreRefused(
            "the server that has the file does not do what it is asked", "look at its log, then try again", TRY_AGAIN
        )


def _write(path: Path, change: Change) -> None:
    """Under its name once it is whole."""
    kind = "create" if isinstance(change, NewToken) else "revoke"
    said = {**change._asdict(), "hash": change.hash.hex()} if isinstance(change, NewToken) else change._asdict()
    whole = json.dumps({kind: said})
    half = path.with_suffix(".half")
    file = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        owner = path.parent.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:  # the server must be able to read it
            os.fchown(file, owner.st_uid, owner.st_gid)
        os.write(file, whole.encode())
        os.fsync(file)
    finally:
        os.close(file)
    half.rename(path)


def _read(path: Path) -> Request | None:
    """None for what is no request, which is removed."""
    try:
        with path.open(encoding="utf-8") as file:
            return Request(_change_of(json.loads(file.read(MOST_BYTES))), path)
    except FileNotFoundError:
        return None  # whoever asked has given up
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("a request cannot be read and is dropped", path=str(path), why=type(error).__name__)
        path.unlink(missing_ok=True)
        return None


def _change_of(said: dict[str, dict[str, object]]) -> Change:
    if (revoked := said.get("revoke")) is not None:
        token_ids = tuple(map(str, list(revoked["token_ids"])))  # type: ignore[call-overload]
        return Revocation(token_ids, str(revoked.get("by", "")))
    made = said["create"]
    new = NewToken(
        str(made["token_id"]),
        bytes.fromhex(str(made["hash"])),
        str(made["principal"]),
        tuple(map(str, list(made["rights"]))),  # type: ignore[call-overload]
        None if made["expire_after_us"] is None else int(str(made["expire_after_us"])),
        str(made.get("by", "")),
    )
    Rights.parse(new.rights)
    if not api_token.ID.fullmatch(new.token_id) or len(new.hash) != 32:
        raise ValueError
    return new
