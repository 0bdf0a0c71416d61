"""Which of somebody's programs have changed on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

INTERVAL_SECONDS: Final = 0.5

_NOT_THEIRS: Final = {"__pycache__", "node_modules", "site-packages"}


class Files:
    """The .py files below a folder, but for hidden ones and environments, by when they were changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._look()

    def changed(self) -> list[str]:
        """Those that have come, gone or changed since the last look."""
        before, self._known = self._known, self._look()
        return sorted({path for path, _ in before.items() ^ self._known.items()})

    def _look(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, folders, names in os.walk(self._folder):
            folders[:] = [one for one in folders if _is_theirs(Path(folder), one)]
            for name in names:
                if name.endswith(".py"):
                    path = Path(folder, name)
                    try:
                        found[str(path.relative_to(self._folder))] = path.stat().st_mtime_ns
                    except OSError:
                        continue  # gone meanwhile
        return found


def _is_theirs(parent: Path, name: str) -> bool:
    return not name.startswith(".") and name not in _NOT_THEIRS and not (parent / name / "pyvenv.cfg").exists()
