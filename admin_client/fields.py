"""`--fields`: of what is shown only what somebody wants to see, by the names that the contract gives it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from admin_client.output import Column, Facts, Table
from admin_client.words import Words, duration, enum

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields by their names, `task_id` or `taskId`; `last_failure.message` where one name has several places.

    names   as they were given: what columns are called
    """

    names: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Fields:
        """From `state,due_time`."""
        names = tuple(name for part in text.split(",") if (name := part.strip()))
        if not names:
            raise click.BadParameter("is empty; must name fields, such as task_id,state", param_hint="--fields")
        return cls(names)

    def look_for(self, kind: Any) -> None:
        """UsageError when one of them is not in messages of this kind."""
        for name in self.names:
            _place(kind, name)

    def only(self, message: Any) -> Any:
        """A message of the same kind with nothing else in it."""
        kept = type(message)()
        kept.CopyFrom(message)
        _prune(kept, {path for _, path in self._places(message)})
        return kept

    def only_items(self, items: Any) -> None:
        """The same of what a page holds."""
        kept = [self.only(item) for item in items]
        del items[:]
        items.extend(kept)

    def facts(self, message: Any, words: Words) -> Facts:
        """What stands in them."""
        return [(name, _text(path, message, words)) for name, path in self._places(message)]

    def table(self, items: Sequence[Any], table: Table) -> Table:
        """A column for each of them, instead of those of a table."""
        columns = [
            Column(name.upper(), partial(_text, path), is_long=not path[-1].endswith("_id"))
            for name, path in self._places(items[0])
        ]
        return Table(columns, table.name, table.nothing)

    def _places(self, message: Any) -> list[tuple[str, Path]]:
        return [(name, _place(message.DESCRIPTOR, name)) for name in self.names]


def _place(kind: Any, name: str) -> Path:
    """The path to the field that is called so: the one that lies least deep, and in no list if there is a choice.
    UsageError when there is none, or two."""
    wanted = name.split(".")
    for is_in_lists in (False, True):
        for _, level in itertools.groupby(_all(kind, is_in_lists), key=len):
            found = [tuple(field.name for field in path) for path in level if _is_called(path, wanted)]
            if len(found) > 1:
                places = " or ".join(map(".".join, found))
                raise click.BadParameter(f"{name!r} has several places; must be {places}", param_hint="--fields")
            if found:
                return found[0]
    known = ", ".join(dict.fromkeys(path[-1].name for path in _all(kind, True)))
    raise click.BadParameter(f"there is no {name!r} in {kind.name}; it has {known}", param_hint="--fields")


def _is_called(path: Sequence[Any], wanted: Sequence[str]) -> bool:
    last = path[-len(wanted) :]
    return len(last) == len(wanted) and all(
        word in (field.name, field.json_name) for field, word in zip(last, wanted, strict=True)
    )


def _all(kind: Any, is_in_lists: bool) -> Iterator[tuple[Any, ...]]:
    """The fields of a message, and of the messages in it, the less deep ones first."""
    level: list[tuple[Any, ...]] = [(field,) for field in kind.fields]
    while level:
        yield from level
        level = [
            (*path, field)
            for path in level
            if _has_own(path[-1]) and (is_in_lists or not path[-1].is_repeated)
            if path[-1].message_type not in [above.containing_type for above in path]
            for field in path[-1].message_type.fields
        ]


def _has_own(field: Any) -> bool:
    """Whether it is a message, or a list of them, of which each field can be named."""
    kind = field.message_type
    return kind is not None and not kind.GetOptions().map_entry and not kind.full_name.startswith("google.protobuf.")


def _prune(message: Any, paths: set[Path]) -> None:
    """Leaves nothing in it but what lies on these paths."""
    for field, value in message.ListFields():
        further = {path[1:] for path in paths if path[0] == field.name}
        if not further:
            message.ClearField(field.name)
        elif () not in further:
            for one in value if field.is_repeated else [value]:
                _prune(one, further)


def _text(path: Path, message: Any, words: Words) -> str:
    return ", ".join(text for text in _texts(path, message, words) if text)


def _texts(path: Path, message: Any, words: Words) -> list[str]:
    name, *way = path
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.has_presence and not message.HasField(name):
        return []
    if way:
        return [text for one in (value if field.is_repeated else [value]) for text in _texts(tuple(way), one, words)]
    if not field.is_repeated:
        return [enum(message, name) if field.enum_type is not None else _one(value, words)]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return [f"{key}={value[key]}" for key in sorted(value)]
    return [_one(one, words) for one in value]


def _one(value: Any, words: Words) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, Message):
        return str(value)
    if value.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        return words.moment(value)  # type: ignore[arg-type]
    if value.DESCRIPTOR.full_name == "google.protobuf.Duration":
        return duration(value)  # type: ignore[arg-type]
    return json_format.MessageToJson(value, indent=None)
