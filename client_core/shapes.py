"""JSON values to the types that a program declares, and back: so that handlers get what their signatures promise."""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NoReturn, Union, get_args, get_origin
from uuid import UUID

from google.protobuf.message import Message


def to_json_value(value: object) -> object:
    """What JSON can write in place of a value that it cannot; TypeError when there is nothing."""
    kind: Any = value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(kind, "model_dump"):  # pydantic
        return kind.model_dump(mode="json")
    if hasattr(kind, "__struct_fields__"):  # msgspec
        return {name: getattr(kind, name) for name in kind.__struct_fields__}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r:.100} cannot be written as JSON")


def build(into: Any, value: Any) -> Any:
    """`value`, which came from JSON, as `into`. ValueError that names the place and the type when it does not fit."""
    if into is None or into is Any or into is object:
        return value
    return _build(into, value, "payload")


def _build(into: Any, value: Any, place: str) -> Any:
    if into is Any or into is object:
        return value
    if isinstance(into, type) and get_origin(into) is None:
        return _build_class(into, value, place)
    origin, arguments = get_origin(into), get_args(into)
    if origin is Union or origin is types.UnionType:
        return _build_union(arguments, value, place)
    if origin is Literal:
        if value not in arguments:
            _refuse(into, value, place)
        return value
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return _build(arguments[0], value, place)
    if isinstance(origin, type):
        return _build_generic(origin, arguments, value, place)
    raise TypeError(f"{place} cannot be made into {into!r}")


def _build_class(into: type[Any], value: Any, place: str) -> Any:
    if hasattr(into, "model_validate"):  # pydantic
        return into.model_validate(value)
    if hasattr(into, "__struct_fields__"):
        return _build_struct(into, value, place)
    if typing.is_typeddict(into):
        return _build_typed_dict(into, value, place)
    if dataclasses.is_dataclass(into) and not isinstance(value, into):
        return _build_dataclass(into, value, place)
    if issubclass(into, Message) and isinstance(value, dict):
        return into(**value)
    return _build_plain(into, value, place)


def _build_plain(into: type[Any], value: Any, place: str) -> Any:
    if into is float and type(value) is int:
        return float(value)
    if isinstance(value, into) and not (into is int and isinstance(value, bool)):
        return value
    try:
        if issubclass(into, enum.Enum):
            return into(value)
        if issubclass(into, datetime | date | time) and isinstance(value, str):
            return into.fromisoformat(value)
        if issubclass(into, UUID | Decimal) and isinstance(value, str):
            return into(value)
    except (ValueError, ArithmeticError):
        _refuse(into, value, place)
    if into in (tuple, set, frozenset) and isinstance(value, list):
        return into(value)
    _refuse(into, value, place)


def _build_generic(origin: Any, arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    if not issubclass(origin, Collection):
        return _build_class(origin, value, place)
    if issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _build(arguments[1], each, f"{place}.{key}") for key, each in value.items()}
    if not isinstance(value, list | tuple):
        _refuse(origin, value, place)
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            _refuse(origin, value, place)
        return tuple(
            _build(kind, each, f"{place}[{i}]") for i, (kind, each) in enumerate(zip(arguments, value, strict=True))
        )
    built = [_build(arguments[0], each, f"{place}[{i}]") for i, each in enumerate(value)]
    return built if origin in (list, Sequence) else origin(built)


def _build_union(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    faults = []
    for kind in kinds:
        try:
            return _build(kind, value, place)
        except ValueError as fault:
            faults.append(str(fault))
    raise ValueError("; or ".join(faults))


def _build_dataclass(into: type[Any], value: Any, place: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(into) if field.init}
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return into(**_build_entries(into, value, place, required))


def _build_typed_dict(into: Any, value: Any, place: str) -> Any:
    # The class itself overlooks NotRequired where annotations are text (from __future__ import annotations).
    wrappers = {name: get_origin(hint) for name, hint in _hints(into).items()}
    required = {
        name
        for name, wrapper in wrappers.items()
        if wrapper is typing.Required or (name in into.__required_keys__ and wrapper is not typing.NotRequired)
    }
    return _build_entries(into, value, place, required)


def _build_entries(into: Any, value: Any, place: str, required: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(into, value, place)
    hints = _hints(into)
    missing, further = sorted(required - value.keys()), sorted(value.keys() - hints.keys())
    if missing or further:
        faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(further)}"] * bool(further)
        raise ValueError(f"{place} {' and '.join(faults)}; must be {into.__name__}")
    return {key: _build(hints[key], each, f"{place}.{key}") for key, each in value.items()}


def _build_struct(into: type[Any], value: Any, place: str) -> Any:
    # The type is msgspec's, so msgspec is imported; we do not depend on it.
    msgspec: Any = sys.modules["msgspec"]
    try:
        return msgspec.convert(value, into)
    except msgspec.ValidationError as fault:
        raise ValueError(f"{place}: {fault}") from fault


@lru_cache(maxsize=1_024)
def _hints(into: Any) -> dict[str, Any]:
    return typing.get_type_hints(into, include_extras=True)


def _refuse(into: Any, value: Any, place: str) -> NoReturn:
    raise ValueError(f"{place} is {type(value).__name__} {value!r:.100}; must be {getattr(into, '__name__', into)}")
