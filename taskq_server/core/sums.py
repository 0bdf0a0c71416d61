"""What was done in a span of time, as numbers that can be added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

OF_ALL = ""
"""Stands for all names together."""


@dataclass(slots=True)
class Sums:
    """Counts, and histograms of how long it took, each as long as its bounds and one more."""

    enqueued: int = 0
    leased: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    lateness: list[int] = field(default_factory=list)
    run: list[int] = field(default_factory=list)

    def add(self, other: Sums) -> None:
        self.enqueued += other.enqueued
        self.leased += other.leased
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.cancelled += other.cancelled
        self.retried += other.retried
        self.lateness = [one + more for one, more in zip(self.lateness, other.lateness, strict=True)]
        self.run = [one + more for one, more in zip(self.run, other.run, strict=True)]


class Quantiles(NamedTuple):
    """How spans are spread: so many there are, and half, 95 and 99 in a hundred, and all of them are no longer."""

    many: int
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    longest: float = 0.0


def quantiles(counts: Sequence[int], bounds: Sequence[float]) -> Quantiles:
    """Of a histogram. What is longer than the last bound is taken for that long."""
    total = sum(counts)
    if not total:
        return Quantiles(0)
    tops = (*bounds, bounds[-1])

    def no_longer(share: float) -> float:
        so_far = 0
        for count, top in zip(counts, tops, strict=True):
            so_far += count
            if so_far >= share * total:
                return top
        return tops[-1]

    return Quantiles(total, no_longer(0.5), no_longer(0.95), no_longer(0.99), no_longer(1.0))
