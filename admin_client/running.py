"""Programs of ours and of yours, each a process of its own: `python -m admin_client.running KIND WHAT`.

KIND is `server`, with the server's flags; `processor` or `scheduler`, with the place of one, `module:name`. With
`--under-parent` it ends, as by SIGTERM, when whoever started it has gone: its standard input says so.
"""

from __future__ import annotations

import importlib
import logging
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from admin_client.errors import USAGE


class CannotRun(Exception):
    """There is no such program."""


def command(kind: str, *what: str) -> list[str]:
    """How one is started under this process."""
    return [sys.executable, "-m", "admin_client.running", "--under-parent", kind, *what]


def become(kind: str, app: str, environment: Mapping[str, str], reload: bool, *flags: str) -> NoReturn:
    """Runs a program of somebody's instead of this one; or, to start it anew when files change, under it."""
    if reload:
        from admin_client import supervising

        sys.exit(supervising.run_reloading(command(kind, app, *flags), environment))
    own = [sys.executable, "-m", "admin_client.running", kind, app, *flags]
    os.execve(sys.executable, own, dict(environment))


def find(kind: str, place: str) -> Any:
    """What stands at `module:name`; without a name the only one of its kind there. CannotRun when there is none."""
    module_name, _, name = place.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (module_name == missing.name or module_name.startswith(f"{missing.name}.")):
            raise CannotRun(f"there is no module {missing.name!r} in {Path.cwd()}, nor installed") from None
        raise
    if name:
        try:
            return getattr(module, name)
        except AttributeError:
            raise CannotRun(f"module {module_name!r} has no {name!r}") from None
    wanted = _class_of(kind)
    found = {key: value for key, value in vars(module).items() if isinstance(value, wanted)}
    if len(set(map(id, found.values()))) != 1:
        which = f"has {', '.join(found)}; say which: {module_name}:{next(iter(found))}" if found else "has none"
        raise CannotRun(f"module {module_name!r} must have one {wanted.__name__}, and {which}")
    return next(iter(found.values()))


def _class_of(kind: str) -> type[Any]:
    if kind == "processor":
        from processor_client import Processor

        return Processor
    from scheduler_client import MainScheduler

    return MainScheduler


def _run(kind: str, place: str, flags: list[str]) -> None:
    thing, wanted = find(kind, place), _class_of(kind)
    if kind == "processor" and not isinstance(thing, wanted):
        concurrency = int(flags[0].partition("=")[2]) if flags else 8
        tasks = thing if isinstance(thing, list | tuple) else [thing]
        try:
            thing = wanted(tasks=tasks, concurrency=concurrency)
        except (TypeError, ValueError) as fault:
            raise CannotRun(f"{place} is no Processor, and cannot be run by one: {fault}") from None
    if not isinstance(thing, wanted):
        raise CannotRun(f"{place} is {type(thing).__name__}; must be a {wanted.__name__}")
    thing.run()


def _end_with_parent() -> None:
    """A pipe from whoever started us is at its end when they have gone, however they went."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="end-with-parent").start()


def main(arguments: list[str]) -> int:
    if arguments[0] == "--under-parent":
        arguments = arguments[1:]
        _end_with_parent()
    kind, *what = arguments
    if kind == "server":
        sys.argv = ["taskq server", *what]
        runpy.run_module("taskq_server", run_name="__main__")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        _run(kind, what[0], what[1:])
    except CannotRun as fault:
        print(f"taskq: {fault}", file=sys.stderr)
        return USAGE
    except Exception:  # noqa: BLE001 - theirs: shown to them
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
