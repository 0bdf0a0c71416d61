"""`--fields`: of what is shown only what somebody wants to see, by the names that the contract gives it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from admin_client.output import Column, Facts, Table
from admin_client.words import Words, duration, enum


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

    def only(self, message: Any) -> Any:
        """A message of the same kind with nothing else in it."""
        kept = type(message)()
        FieldMask(paths=[path for _, path in self._places(message)]).MergeMessage(message, kept)
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
            Column(name.upper(), partial(_text, path), is_long=not path.endswith("_id"))
            for name, path in self._places(items[0])
        ]
        return Table(columns, table.name, table.nothing)

    def _places(self, message: Any) -> list[tuple[str, str]]:
        return [(name, _place(message.DESCRIPTOR, name)) for name in self.names]


def _place(kind: Any, name: str) -> str:
    """The path to the field that is called so: the one that lies least deep. UsageError when there is none, or two."""
    wanted = name.split(".")
    for _, level in itertools.groupby(_all(kind), key=lambda path: len(path)):
        found = [".".join(field.name for field in path) for path in level if _is_called(path, wanted)]
        if len(found) > 1:
            places = " or ".join(found)
            raise click.BadParameter(f"{name!r} has several places; must be {places}", param_hint="--fields")
        if found:
            return found[0]
    known = ", ".join(dict.fromkeys(path[-1].name for path in _all(kind)))
    raise click.BadParameter(f"there is no {name!r} in {kind.name}; it has {known}", param_hint="--fields")


def _is_called(path: Sequence[Any], wanted: Sequence[str]) -> bool:
    last = path[-len(wanted) :]
    return len(last) == len(wanted) and all(
        word in (field.name, field.json_name) for field, word in zip(last, wanted, strict=True)
    )


def _all(kind: Any) -> Iterator[tuple[Any, ...]]:
    """The fields of a message, and of the messages in it, the less deep ones first. What is a list is one thing."""
    level: list[tuple[Any, ...]] = [(field,) for field in kind.fields]
    while level:
        yield from level
        level = [
            (*path, field)
            for path in level
            if path[-1].message_type is not None and not path[-1].is_repeated and _is_ours(path[-1].message_type)
            if path[-1].message_type not in [above.containing_type for above in path]
            for field in path[-1].message_type.fields
        ]


def _is_ours(kind: Any) -> bool:
    return not kind.full_name.startswith("google.protobuf.")


def _text(path: str, message: Any, words: Words) -> str:
    *way, name = path.split(".")
    for step in way:
        if not message.HasField(step):
            return ""
        message = getattr(message, step)
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return ", ".join(f"{key}={value[key]}" for key in sorted(value))
        return ", ".join(one if isinstance(one, str) else _json(one) for one in value)
    if field.has_presence and not message.HasField(name):
        return ""
    if field.enum_type is not None:
        return enum(message, name)
    return _one(value, words)


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
    return _json(value)


def _json(value: Any) -> str:
    return json_format.MessageToJson(value, indent=None) if isinstance(value, Message) else str(value)
