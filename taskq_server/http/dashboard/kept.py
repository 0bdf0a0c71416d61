"""What pages remember from one visit to the next: answers that change only with something that they see anyway."""

from __future__ import annotations

import zlib
from typing import Any

MOST = 500


def spell(key: str, now_us: int, span_us: int) -> int:
    """Which stretch of time it is: for each key they begin at others, so that not all that is kept is read again at
    once."""
    return (now_us + zlib.crc32(key.encode()) * 1_000 % span_us) // span_us


class Kept:
    """Answers by what they are about, each with the version of it that they were about."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[Any, Any]] = {}

    def of(self, key: str, version: object) -> Any:
        """None for what is not known of this version."""
        known, answer = self._all.get(key, (None, None))
        return answer if known == version else None

    def last(self, key: str) -> Any:
        """Of whichever version; None for what is not known at all."""
        return self._all.get(key, (None, None))[1]

    def keep(self, key: str, version: object, answer: Any) -> None:
        self._all.pop(key, None)
        self._all[key] = version, answer
        if len(self._all) > MOST:
            del self._all[next(iter(self._all))]
