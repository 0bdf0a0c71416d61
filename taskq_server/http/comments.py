"""What the protos say in comments. Generated Python has lost it; `make proto` keeps it beside, in a descriptor set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from google.protobuf import descriptor_pb2

SET = "descriptors.binpb"

_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
"""Numbers of fields of FileDescriptorProto; those below are of what stands in them."""
_FIELD, _NESTED, _NESTED_ENUM, _VALUE, _METHOD = 2, 3, 4, 2, 2

Way = tuple[int, ...]


@cache
def comments() -> Mapping[str, str]:
    """The comment before everything that has a name, by that, in full: `taskq.v1.Task.due_time`."""
    found = descriptor_pb2.FileDescriptorSet.FromString(files("taskq.v1").joinpath(SET).read_bytes())
    return {name: text for file in found.file for name, text in _of(file)}


def _of(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name is not None and location.leading_comments:
            lines = (line.removeprefix(" ").rstrip() for line in location.leading_comments.splitlines())
            yield name, "\n".join(lines).strip()


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[Way, str]]:
    package = file.package
    for i, message in enumerate(file.message_type):
        yield from _in_message(message, (_MESSAGE, i), f"{package}.{message.name}")
    for i, enum in enumerate(file.enum_type):
        yield from _in_enum(enum, (_ENUM, i), f"{package}.{enum.name}")
    for i, service in enumerate(file.service):
        name = f"{package}.{service.name}"
        yield (_SERVICE, i), name
        for j, method in enumerate(service.method):
            yield (_SERVICE, i, _METHOD, j), f"{name}.{method.name}"


def _in_message(message: descriptor_pb2.DescriptorProto, way: Way, name: str) -> Iterator[tuple[Way, str]]:
    yield way, name
    for i, field in enumerate(message.field):
        yield (*way, _FIELD, i), f"{name}.{field.name}"
    for i, nested in enumerate(message.nested_type):
        yield from _in_message(nested, (*way, _NESTED, i), f"{name}.{nested.name}")
    for i, enum in enumerate(message.enum_type):
        yield from _in_enum(enum, (*way, _NESTED_ENUM, i), f"{name}.{enum.name}")


def _in_enum(enum: descriptor_pb2.EnumDescriptorProto, way: Way, name: str) -> Iterator[tuple[Way, str]]:
    yield way, name
    for i, value in enumerate(enum.value):
        yield (*way, _VALUE, i), f"{name}.{value.name}"
