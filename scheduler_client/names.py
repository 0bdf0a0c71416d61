"""Who owns which task name in this program: two kinds of task with one name would be run by each other's processors."""

from __future__ import annotations

import sys
from typing import Any

from scheduler_client.fields import checked_name

_owners: dict[str, tuple[str, str]] = {}


def claim(name: str, owner: Any) -> None:
    """Registers the class or function that has the name. TypeError when it is no name, or belongs to another.

    The same definition may come again, by a reload of its module, or as `__main__` and as a module of its own name:
    what counts is its file and its qualified name.
    """
    try:
        checked_name(name)
    except ValueError as fault:
        raise TypeError(f"{owner.__qualname__}: name {fault}") from None
    place = _place(owner)
    holder = _owners.setdefault(name, place)
    if holder != place:
        raise TypeError(f"{place[1]} ({place[0]}): name {name!r} belongs to {holder[1]} ({holder[0]}); must be its own")


def _place(owner: Any) -> tuple[str, str]:
    module = sys.modules.get(owner.__module__)
    return getattr(module, "__file__", None) or owner.__module__, owner.__qualname__
