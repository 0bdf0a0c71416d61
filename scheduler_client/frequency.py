"""When a firing of the main scheduler is due: nominal times are multiples of a period, so that all replicas agree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frequency:
    """Every `period_us` microseconds since 1970, shifted by `phase_us`."""

    period_us: int
    phase_us: int = 0

    def __post_init__(self) -> None:
        if self.period_us < 1_000:
            raise ValueError(f"period is {self.period_us} us; must be at least 1 ms")
        if not 0 <= self.phase_us < self.period_us:
            raise ValueError(
                f"phase is {self.phase_us} us; must be at least 0 and less than the period, {self.period_us}"
            )

    def next_after(self, moment_us: int) -> int:
        """The first nominal time after a moment."""
        return ((moment_us - self.phase_us) // self.period_us + 1) * self.period_us + self.phase_us

    def count(self, first_us: int, last_us: int) -> int:
        """How many nominal times there are from `first_us`, which is one, to `last_us`."""
        return max(0, (last_us - first_us) // self.period_us + 1)
