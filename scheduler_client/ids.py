"""The ids of tasks, made by the scheduler before the first try: this is what makes trying again safe."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Final
from uuid import UUID

_VERSION_7: Final = 0x7 << 76
_VERSION_8: Final = 0x8 << 76
_VARIANT: Final = 0b10 << 62
_RANDOM: Final = (1 << 62) - 1


def new_task_id() -> str:
    """A UUIDv7 (RFC 9562): ids made later sort later, to about 250 ns; 62 random bits."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    # os.urandom, for a program that seeds `random` must not make the same ids in each run.
    random = int.from_bytes(os.urandom(8)) & _RANDOM
    return _text(milliseconds << 80 | _VERSION_7 | (rest * 4096 // 1_000_000) << 64 | _VARIANT | random)


def firing_task_id(main_scheduler: str, entry: str, nominal_us: int) -> str:
    """The UUIDv8 of one firing: the same in every replica of a main scheduler, so that a firing is one task."""
    # NUL cannot stand in a name, so no two different firings have the same text.
    digest = hashlib.sha256(f"taskq.firing\0{main_scheduler}\0{entry}\0{nominal_us}".encode()).digest()
    bits = int.from_bytes(digest[:16])
    return _text(bits & ~(0xF << 76) & ~(0b11 << 62) | _VERSION_8 | _VARIANT)


def checked_task_id(task_id: str | UUID) -> str:
    """An id that a caller gave, as the server writes it. ValueError when it is not a UUID."""
    if isinstance(task_id, UUID):
        return str(task_id)
    try:
        return str(UUID(task_id))
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"is {task_id!r}; must be a UUID") from None


def _text(value: int) -> str:
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
