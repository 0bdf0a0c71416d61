"""How often and when a failed task is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

SECOND_US = 1_000_000


class Jitter(IntEnum):
    """How delays are spread, so that tasks that failed together do not return together."""

    NONE = 1
    FULL = 2
    EQUAL = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The n-th failure waits `initial_delay * multiplier ** (n - 1)`, at most `max_delay`, spread by `jitter`.

    Full jitter is the default: of the common forms it brings a crowd back with the fewest collisions
    (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
    """

    max_attempts: int = 5
    initial_delay_us: int = 1 * SECOND_US
    multiplier: float = 2.0
    max_delay_us: int = 600 * SECOND_US
    jitter: Jitter = Jitter.FULL
    non_retryable_errors: tuple[str, ...] = ()

    def allows(self, failed_attempts: int, error_type: str) -> bool:
        """Whether a task that has now failed `failed_attempts` times, last with `error_type`, is tried again."""
        return failed_attempts < self.max_attempts and error_type not in self.non_retryable_errors

    def delay_us(self, failed_attempts: int, random: Callable[[], float]) -> int:
        """The wait after failure number `failed_attempts` (from 1); `random` gives [0, 1)."""
        try:
            full = min(float(self.max_delay_us), self.initial_delay_us * self.multiplier ** (failed_attempts - 1))
        except OverflowError:
            full = float(self.max_delay_us if self.initial_delay_us else 0)
        if self.jitter is Jitter.NONE:
            return int(full)
        if self.jitter is Jitter.EQUAL:
            return int(full / 2 + full / 2 * random())
        return int(full * random())


DEFAULT_RETRY_POLICY = RetryPolicy()
