"""Which field of a message that cannot be parsed is not UTF-8.

Protobuf refuses a string that is not UTF-8 without saying where it is. Here the same message is parsed once more with
every string taken as bytes, which tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message

from taskq_server.core.errors import Fault, InvalidFields, MalformedRequest, TaskqError

_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES


def explain(message_type: type[Message], data: bytes) -> TaskqError:
    """The error for a request that is not a `message_type`."""
    name = message_type.DESCRIPTOR.name
    try:
        twin = _twin(message_type.DESCRIPTOR.full_name, message_type.DESCRIPTOR.file)()
        twin.ParseFromString(data)
    except DecodeError:
        return MalformedRequest(name)
    real = cast(Descriptor, message_type.DESCRIPTOR)
    faults = [Fault(path, "must be UTF-8") for path in _not_utf8(twin, real, "")]
    return InvalidFields(faults) if faults else MalformedRequest(name)


@cache
def _twin(full_name: str, file: FileDescriptor) -> type[Message]:
    pool = descriptor_pool.DescriptorPool()
    _add(pool, file, set())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(full_name))


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, done: set[str]) -> None:
    if file.name in done:
        return
    done.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, done)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for message in proto.message_type:
        _strings_to_bytes(message)
    pool.Add(proto)


def _strings_to_bytes(message: descriptor_pb2.DescriptorProto) -> None:
    message.options.ClearField("map_entry")  # on the wire a map is a list of entries; as one, its keys may be bytes
    for field in message.field:
        if field.type == _STRING:
            field.type = _BYTES
    for nested in message.nested_type:
        _strings_to_bytes(nested)


def _not_utf8(twin: Message, real: Descriptor | None, path: str) -> Iterator[str]:
    assert real is not None
    for field, value in twin.ListFields():
        original = real.fields_by_name[field.name]
        here = f"{path}{field.name}"
        for at, item in _items(field, value, here):
            if isinstance(item, Message):
                yield from _not_utf8(item, original.message_type, f"{at}.")
            elif original.type == FieldDescriptor.TYPE_STRING and not _is_utf8(item):
                yield at


def _items(field: FieldDescriptor, value: object, here: str) -> Iterator[tuple[str, object]]:
    if field.is_repeated:
        yield from ((f"{here}[{i}]", item) for i, item in enumerate(value))  # type: ignore[arg-type,var-annotated]
    else:
        yield here, value


def _is_utf8(value: object) -> bool:
    try:
        return isinstance(value, bytes) and value.decode("utf-8") is not None
    except UnicodeDecodeError:
        return False
