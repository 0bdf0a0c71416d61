"""Texts in columns, and in what is kept in them as JSON."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Column, and_, func

from taskq_server.core.filter import Text
from taskq_server.store.verbs.asking.question import Condition

_LOWER = {capital: capital + 32 for capital in range(ord("A"), ord("Z") + 1)}


def is_text(column: Column[Any], value: Text) -> Condition:
    if not value.begins:
        return column == value.text
    if not value.text:
        return and_(column.is_not(None), column != "")
    return func.substr(column, 1, len(value.text)) == value.text


def holds(column: Column[Any], part: str) -> Condition:
    """Whether a column holds a text, in whatever case; SQLite knows the cases of ASCII alone."""
    for special in "!%_":
        part = part.replace(special, f"!{special}")
    return column.ilike(f"%{part}%", escape="!")


def in_json(part: str) -> str:
    """A text as it stands within the quotes of a JSON string."""
    return json.dumps(part, ensure_ascii=False)[1:-1]


def fold(words: str) -> str:
    return words.translate(_LOWER)
