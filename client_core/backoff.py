"""How long to wait before trying again: full jitter, so that clients that failed together do not return together."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays drawn from U(0, min(cap, base * 2**n)), n counted from 0 by each `next()`. All in seconds."""

    __slots__ = ("_base", "_cap", "_n", "_uniform")

    def __init__(self, base: float, cap: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._base = base
        self._cap = cap
        self._uniform = uniform
        self._n = 0

    def next(self) -> float:
        """The next delay."""
        # 2**64 is beyond every cap, and a larger exponent would overflow a float in a client that tries for weeks.
        ceiling = min(self._cap, self._base * 2.0 ** min(self._n, 64))
        self._n += 1
        return self._uniform(0.0, ceiling)

    def reset(self) -> None:
        """Begins anew, after a success."""
        self._n = 0
