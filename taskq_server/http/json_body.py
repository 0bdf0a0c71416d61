"""Protobuf JSON in and out. What cannot be read is explained, every fault by its field.

The library says what is wrong first, in words of its own. So a message that it refuses is walked once more, field by
field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, NoReturn

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from taskq_server.core.errors import Fault, InvalidFields, MalformedRequest

MOST_VALUES = 200_000
"""They take a second. 4 MiB may be 1,400,000 empty objects, which take eleven, and 300 MiB, to become messages."""
MOST_FAULTS = 1_000
MOST_SHOWN = 64
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}", re.ASCII)
_UNREADABLE = (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError)


def loads(text: bytes, what: str) -> Any:
    """The value of a JSON text; MalformedRequest if it is none."""
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES:  # those in strings, too: they are never so many
        raise MalformedRequest(what, f"must hold at most {MOST_VALUES:,} values")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise MalformedRequest(what, f"must be UTF-8; the byte at {error.start} is not") from None
    except json.JSONDecodeError as error:
        raise MalformedRequest(what, f"must be JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise MalformedRequest(what, "must be JSON of few levels") from None
    except ValueError as error:
        raise MalformedRequest(what, f"must be JSON: {str(error)[:200]}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{_shown(twice)} stands twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def message_of(message_type: type[Message], value: Any, found: Sequence[Fault] = ()) -> Message:
    """The message that a JSON value stands for; `found` is what was found wrong with the request before."""
    name = message_type.DESCRIPTOR.name
    if not isinstance(value, dict):
        raise MalformedRequest(name, "must be a JSON object")
    try:
        message = json_format.ParseDict(value, message_type())
    except _UNREADABLE:
        faults = [*found, *islice(_faults(message_type.DESCRIPTOR, value, ""), MOST_FAULTS)]  # type: ignore[arg-type]
        if not faults:
            raise MalformedRequest(name, "must be JSON of this message, of few levels") from None
        raise InvalidFields(faults) from None
    if faults := [*found, *islice(_not_base64(message_type.DESCRIPTOR, value, ""), MOST_FAULTS)]:  # type: ignore[arg-type]
        raise InvalidFields(faults)
    return message


def text_of(message: Message) -> bytes:
    """A message as JSON: with the fields that have no presence, whether they are set or not."""
    value = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


@cache
def fields_of(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    """The fields of a message by either of their names."""
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


@cache
def _ways_to_bytes(descriptor: Descriptor) -> Sequence[FieldDescriptor]:
    """The fields of a message that are bytes, or lead to some."""
    if _is_well_known(descriptor):
        return []
    return [field for field in descriptor.fields if _leads_to_bytes(field)]


def _leads_to_bytes(field: FieldDescriptor) -> bool:
    inner = field.message_type
    return field.type == FieldDescriptor.TYPE_BYTES or (inner is not None and bool(_ways_to_bytes(inner)))


def _not_base64(descriptor: Descriptor, value: Any, at: str) -> Iterator[Fault]:
    """The library passes over whatever is not base64 in what should be: text would be stored as some other bytes."""
    for field in _ways_to_bytes(descriptor) if isinstance(value, dict) else ():
        item = value.get(field.json_name)
        item = value.get(field.name) if item is None else item
        for i, one in enumerate(item if isinstance(item, list) else [item]):
            here = f"{at}{field.name}[{i}]" if field.is_repeated else f"{at}{field.name}"
            if field.message_type is not None:
                yield from _not_base64(field.message_type, one, f"{here}.")
            elif isinstance(one, str) and not _BASE64.fullmatch(one):
                yield Fault(here, f"must be base64; is {_shown(one)}")


def _faults(descriptor: Descriptor, value: Any, at: str) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(at.rstrip("."), f"must be an object; is {_shown(value)}")
        return
    fields = fields_of(descriptor)
    set_before: dict[str, str] = {}
    for key, item in value.items():
        field = fields.get(key)
        if field is None:
            yield Fault(f"{at}{key[:MOST_SHOWN]}", f"must be absent; {descriptor.name} has no such field")
            continue
        if item is None:
            continue
        holder = field.containing_oneof.full_name if field.containing_oneof is not None else field.full_name
        if (before := set_before.setdefault(holder, key)) != key:
            yield Fault(f"{at}{field.name}", f"must be absent beside {before}")
        yield from _field_faults(field, item, f"{at}{field.name}")


def _field_faults(field: FieldDescriptor, item: Any, at: str) -> Iterator[Fault]:
    inner = field.message_type
    is_map = inner is not None and inner.GetOptions().map_entry
    if field.is_repeated and not is_map:
        if not isinstance(item, list):
            yield Fault(at, f"must be a list; is {_shown(item)}")
            return
        for i, one in enumerate(item):
            if inner is not None and not _is_well_known(inner):
                yield from _faults(inner, one, f"{at}[{i}].")
            else:
                yield from _leaf_faults(field, [one], f"{at}[{i}]")
    elif inner is not None and not is_map and not _is_well_known(inner):
        yield from _faults(inner, item, f"{at}.")
    elif is_map and isinstance(item, dict):
        for name, one in item.items():
            yield from _leaf_faults(field, {name: one}, f"{at}[{_shown(name)}]")
    else:
        yield from _leaf_faults(field, item, at)


def _leaf_faults(field: FieldDescriptor, item: Any, at: str) -> Iterator[Fault]:
    """What is wrong with a value that has no fields of ours: tried alone."""
    assert field.containing_type is not None
    alone = message_factory.GetMessageClass(field.containing_type)()
    try:
        json_format.ParseDict({field.name: item}, alone)
    except _UNREADABLE:
        shown = item[0] if field.is_repeated and isinstance(item, list) else item
        yield Fault(at, f"must be {_kind(field)}; is {_shown(shown)}")


def _is_well_known(descriptor: Descriptor) -> bool:
    return descriptor.full_name.startswith("google.protobuf.")


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            return "an object of strings"
        return _KINDS_OF_MESSAGES.get(field.message_type.name, f"a {field.message_type.name}")
    if field.enum_type is not None:
        return f"a name of {field.enum_type.name}"
    return _KINDS[field.cpp_type] if field.type != FieldDescriptor.TYPE_BYTES else "base64"


_KINDS_OF_MESSAGES = {
    "Timestamp": "a time such as 2026-01-02T03:04:05Z",
    "Duration": "a span in seconds such as 1.5s",
    "Struct": "an object",
}
_KINDS = {
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number of 32 bits, not negative",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of 64 bits, not negative",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "a string of Unicode",
}


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float) or value is None else f"a {type(value).__name__}"
    return ascii(text)[1:-1] if not text.isprintable() else text if len(text) <= MOST_SHOWN else f"{text[:61]}..."
