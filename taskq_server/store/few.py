"""A statement holds only so many variables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")

MOST_AT_ONCE = 500


def few(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), MOST_AT_ONCE):
        yield items[start : start + MOST_AT_ONCE]
