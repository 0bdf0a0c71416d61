"""The calls as their descriptors say them: every field of every request can be walked, set, and sent as raw bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import grpc
from google.api import field_behavior_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from taskq.v1 import admin_service_pb2, processor_service_pb2, schedule_service_pb2, scheduler_service_pb2
from tests.rpc.support import soon


def _named() -> dict[str, MethodDescriptor]:
    """By their names; of two services that have a method of one name, that of the later with its service before it."""
    found: dict[str, MethodDescriptor] = {}
    for file in (scheduler_service_pb2, processor_service_pb2, schedule_service_pb2, admin_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found[f"{service.name}.{method.name}" if method.name in found else method.name] = method
    return found


METHODS = _named()


def request_type(method: str) -> type[Message]:
    return message_factory.GetMessageClass(METHODS[method].input_type)


async def send(channel: grpc.aio.Channel, method: str, request: bytes) -> Message:
    """Sends these very bytes; answers the response, of a stream the first."""
    descriptor = METHODS[method]
    path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
    parse = message_factory.GetMessageClass(descriptor.output_type).FromString
    if descriptor.server_streaming:
        call = channel.unary_stream(path, None, parse)(request)
        response = await soon(call.read())
        call.cancel()
    else:
        response = await soon(channel.unary_unary(path, None, parse)(request))
    return response  # type: ignore[no-any-return]


def fields(method: str) -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field of a request that is no message of ours, by its path: `tasks[0].dedup.key`."""
    yield from _fields(METHODS[method].input_type, "")


OF_EACH_FIRING = {f"schedule.task.{name}" for name in ("task_id", "due_time", "delay", "expire_time", "dedup")}
"""What the task of a schedule must not have at all."""


def _fields(descriptor: Descriptor, at: str) -> Iterator[tuple[str, FieldDescriptor]]:
    for field in descriptor.fields:
        behaviour = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if field_behavior_pb2.OUTPUT_ONLY in behaviour or f"{at}{field.name}" in OF_EACH_FIRING:
            continue
        inner = field.message_type
        here = f"{at}{field.name}"
        if inner is None or inner.GetOptions().map_entry or not inner.full_name.startswith("taskq."):
            yield here, field
        else:
            yield from _fields(inner, f"{here}[0]." if field.is_repeated else f"{here}.")


def put(message: Any, path: str, value: Any) -> None:
    """Sets a field, whatever stood there. Lists and maps are replaced whole; a list may be of messages."""
    *way, last = path.split(".")
    for step in way:
        name, index = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", step).groups()  # type: ignore[union-attr]
        message = getattr(message, name)
        if index is not None:
            while len(message) <= int(index):
                message.add()
            message = message[int(index)]
    message.SetInParent()
    if isinstance(value, list):
        message.ClearField(last)
        for item in value:
            if isinstance(item, dict):
                getattr(message, last).add(**item)
            else:
                getattr(message, last).append(item)
    elif isinstance(value, dict):
        message.ClearField(last)
        getattr(message, last).update(value)
    elif isinstance(value, Message):
        getattr(message, last).CopyFrom(value)
    else:
        setattr(message, last, value)
