"""A terminal in which the commands of a page are typed, one after the other, and what they print is read."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.examples import stand_ins
from tests.examples.blocks import Command
from tests.support import grpcurl
from tests.support.process import ROOT

STAYS = re.compile(r"\btaskq (?:server|dev)$")
"""What runs until somebody stops it."""
LIMIT_SECONDS = 60
MAY_RUN = ("awk", "bash", "cat", "chmod", "cp", "curl", "grpcurl", "head", "mkdir", "mkfifo", "rm", "sleep", "touch")
"""Besides `taskq`, of all programs of this machine: nothing that a page says may change it."""
_STAND_IN = """#!/bin/bash
printf '%s\\0' "$0" "$@" >>"$CALLS"; printf '\\n' >>"$CALLS"
case "${0##*/} $*" in
  "docker compose cp "*) cp -r "$COMPOSE_CERTS/." "$4" ;;
  "docker compose exec "*) shift 3; exec "$@" ;;
  "kubectl "*" -- "*) while [ "$1" != -- ]; do shift; done; shift; exec "$@" ;;
  "python3 -m venv "*) mkdir -p "$3/bin"; touch "$3/bin/activate" ;;
esac
"""


class Terminal:
    """A folder, an environment that commands change, and the server that was started last, if one was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address, self.http_address = "127.0.0.1:50051", "127.0.0.1:8080"
        self.others: dict[str, str] = {}
        """What else of a page's text is another thing here."""
        self.on_start: Callable[[], None] = lambda: None
        """What is done once a server has been started."""
        self._calls, self._state = folder / ".calls", folder / ".state"
        self._server: subprocess.Popen[str] | None = None
        tools = folder / ".tools"
        tools.mkdir()
        _write_program(tools / "taskq", f'#!/bin/bash\nexec {sys.executable} -m admin_client.command "$@"\n')
        for name in stand_ins.KNOWN:
            _write_program(tools / name, _STAND_IN)
        for name in MAY_RUN:
            if (program := shutil.which(name, path=f"{os.environ['PATH']}:{grpcurl.BIN}")) is not None:
                (tools / name).symlink_to(program)
        self._calls.touch()
        self._state.touch()
        (folder / ".curlrc").write_text("fail\n")  # what curl was refused is no success
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKQ_")} | {
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / ".config"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'generated'}",
            "PATH": str(tools),
            "CALLS": str(self._calls),
            "GRPC_VERBOSITY": "ERROR",
        }

    def finds(self, address: str, http_address: str = "") -> None:
        """Where the page's server is."""
        self.address = address
        self.http_address = http_address or self.http_address
        with self._state.open("a") as state:
            state.write(f"export TASKQ_ADDRESS={address}\n")

    def types(self, command: Command) -> str:
        """What it prints; it must succeed, unless it stays: then it has begun to listen."""
        text = self.here(command.text)
        if STAYS.search(text.replace("\\\n", "")):
            return self._starts(text)
        script = f'trap "{{ alias -p; export -p; }} >{self._state}" EXIT\nset -e -o pipefail\n{text}'
        ended = subprocess.run(
            self._shell(script), cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=LIMIT_SECONDS, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{text}\nends with {ended.returncode}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def here(self, text: str) -> str:
        """The page's text, about the server that is here."""
        for said, meant in self.others.items():
            text = text.replace(said, meant)
        for host in ("localhost", "127.0.0.1"):
            text = text.replace(f"{host}:50051", f"{host}:{self.address.rpartition(':')[2]}")
            text = text.replace(f"{host}:8080", f"{host}:{self.http_address.rpartition(':')[2]}")
        return text

    def calls(self) -> list[list[str]]:
        """What the stand-ins were called with since this was asked last."""
        lines = self._calls.read_text().splitlines()
        self._calls.write_text("")
        return [[Path(words[0]).name, *words[1:]] for line in lines if (words := line.split("\0")[:-1])]

    def stops(self) -> None:
        """The server that was started last."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGTERM)
            self._server.communicate(timeout=LIMIT_SECONDS)
            self._server = None

    def _starts(self, text: str) -> str:
        self.stops()
        log = self.folder / "server.log"
        is_dev = text.endswith("taskq dev")
        text += " --listen=127.0.0.1:0 --http-listen=127.0.0.1:0" if is_dev else ""
        with log.open("w") as errors:
            self._server = subprocess.Popen(
                self._shell(text), cwd=self.folder, start_new_session=True, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if is_dev else errors,  # there `taskq dev` says its addresses
                env=self.environment | {"TASKQ_LISTEN": "127.0.0.1:0", "TASKQ_HTTP_LISTEN": "127.0.0.1:0"},
            )  # fmt: skip
        assert self._server.stdout is not None
        said: list[str] = []
        while sum(len(re.findall(r"127\.0\.0\.1:\d+", line)) for line in said) < 2:
            said.append(self._server.stdout.readline())
            assert said[-1], f"{text}\nends: {''.join(said)}{log.read_text()}"
        self.finds(*re.findall(r"127\.0\.0\.1:\d+", "".join(said))[:2])
        self.on_start()
        return "".join(said)

    def _shell(self, script: str) -> list[str]:
        return ["bash", "-c", f"shopt -s expand_aliases\n. {self._state}\n{script}"]


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    one = Terminal(folder)
    try:
        yield one
    finally:
        one.stops()


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def missing_for(text: str) -> str:
    """Empty, or which tool is not there that this text takes."""
    for tool in ("bash", *(tool for tool in ("curl",) if re.search(rf"\b{tool} ", text))):
        if shutil.which(tool) is None:
            return f"{tool} is not on the path"
    if "grpcurl " in text:
        try:
            grpcurl.find()
        except grpcurl.NoGrpcurl as none:
            return str(none)
    return ""


_PASSING = re.compile(r"[Tt]ime$|^(sessionId|server)$")
_TOKEN = re.compile(r"tq_[0-9a-f]{12}(_[A-Za-z0-9_-]{50})?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def is_alike(shown: str, printed: str) -> bool:
    """Whether it is the same but for times, ids and tokens, and for what the page leaves out by `…`."""
    try:
        answer = json.loads(printed)
    except ValueError:
        return _plain(shown) == _plain(printed)
    return _is_same(json.loads(shown.replace(", …}", ', "…": 0}').replace("[…]", '["…"]')), answer)


def _plain(text: str) -> list[str]:
    text = _TOKEN.sub(lambda found: "a token" if found[1] else "its id", _TIME.sub("a time", text))
    return [" ".join(line.split()) for line in text.splitlines()]


def _is_same(shown: Any, answer: Any, key: str = "") -> bool:
    if isinstance(shown, dict) and isinstance(answer, dict):
        names = set(shown) - {"…"}
        known = names <= set(answer) if "…" in shown else names == set(answer)
        return known and all(_is_same(shown[name], answer[name], name) for name in names)
    if shown == ["…"]:
        return isinstance(answer, list) and bool(answer)
    if isinstance(shown, list) and isinstance(answer, list):
        return len(shown) == len(answer) and all(map(_is_same, shown, answer))
    return type(shown) is type(answer) and (bool(_PASSING.search(key)) or bool(shown == answer))
