"""What processes cost, as the kernel counts it, and what they run on."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    return sum(_times(pid)[:2]) / _TICKS


def cpu_seconds_of_family(pid: int) -> float:
    """Of a process and its children, also of those that have ended."""
    return (sum(_times(pid)) + sum(sum(_times(child)[:2]) for child in children(pid))) / _TICKS


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def peak_mib(pid: int) -> float:
    """The most memory that a process has held."""
    return _kib(f"/proc/{pid}/status", "VmHWM") / 1024


def shared_mib(pids: Iterable[int]) -> float:
    """What processes hold together now; what they share counts once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            total += _kib(f"/proc/{pid}/smaps_rollup", "Pss")
    return total / 1024


def allow_files() -> None:
    """Lets this process and those that it starts open as many as they may: each processor is two connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def facts() -> dict[str, str | int | None]:
    named = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = {"cpu": named[0]} if named else {}  # not every kind of machine says it
    return {"cores": os.cpu_count(), **cpu, "linux": platform.release(), "python": platform.python_version()}


def versions(*packages: str) -> dict[str, str]:
    return {name: version(name) for name in packages}


def _times(pid: int) -> tuple[int, ...]:
    """Ticks in user mode and in the kernel, its own and of children that have ended; none of one that is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(map(int, words[11:15]))


def _kib(path: str, name: str) -> int:
    return next(int(line.split()[1]) for line in _lines(path) if line.startswith(f"{name}:"))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
