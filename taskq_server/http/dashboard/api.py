"""The contract, method by method, as the server has it; and a form to try one."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from starlette.responses import Response

from taskq.v1 import admin_service_pb2
from taskq_server.core.errors import TaskqError
from taskq_server.http import json_body
from taskq_server.http.dashboard.calls import PACKAGE, NotServed
from taskq_server.http.dashboard.visit import Visit
from taskq_server.rpc.status import CODES

_SERVICES = ("SchedulerService", "ProcessorService", "ScheduleService", "AdminService")
_TYPES = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


async def page(visit: Visit) -> Response:
    pool = admin_service_pb2.DESCRIPTOR.pool
    services = [pool.FindServiceByName(f"{PACKAGE}.{name}") for name in _SERVICES]
    return visit.show("api", services=services, routes=route)


async def one(visit: Visit) -> Response:
    service, name = visit.path("service"), visit.path("method")
    pool = admin_service_pb2.DESCRIPTOR.pool
    found = pool.FindServiceByName(f"{PACKAGE}.{service}") if service in _SERVICES else None
    method = found.methods_by_name.get(name) if found is not None else None
    if method is None:
        raise NotServed(f"{service[:64]}/{name[:64]}")
    called, answer, status, text = f"{service}/{name}", "", 200, "{}"
    # What processors call is theirs: a form here would register one that nobody runs.
    may = visit.may(called) and not method.server_streaming and service != "ProcessorService"
    if visit.request.method == "POST" and may:
        text = (await visit.form()).raw("request")
        answer, status = await _try(visit, called, method, text)
    told: list[Any] = []
    _tell(method.input_type, told, set())
    _tell(method.output_type, told, set())
    return await visit.show_large(
        "api_method",
        status,
        method=method,
        called=called,
        route=route(method),
        may=may,
        text=text,
        answer=answer,
        messages=list({one[0]: one for one in told}.values()),
        grpcurl=f"grpcurl -plaintext -d {shlex.quote(text)} localhost:50051 {PACKAGE}.{called}",
    )


async def _try(visit: Visit, called: str, method: MethodDescriptor, text: str) -> tuple[str, int]:
    """In threads, what is read and what is written: either may be large, and streams go on meanwhile."""
    try:
        request = await asyncio.to_thread(_read, method.input_type, text)
        answer = await visit.call(called, request)
        return await asyncio.to_thread(json_format.MessageToJson, answer), 200
    except TaskqError as error:
        code, reason = CODES.get(type(error), (2, type(error).__name__))
        return json.dumps({"code": code, "reason": reason, "message": str(error)}, indent=2, ensure_ascii=False), 400


def _read(kind: Descriptor, text: str) -> Message:
    """As the JSON API reads it."""
    value = json_body.loads(text.encode() or b"{}", kind.name)
    return json_body.message_of(message_factory.GetMessageClass(kind), value)


def route(method: MethodDescriptor) -> str:
    """Its way over HTTP, where the contract gives it one."""
    for option, value in method.GetOptions().ListFields():
        if option.full_name == "google.api.http":
            verb = value.WhichOneof("pattern")
            return f"{str(verb).upper()} {getattr(value, verb)}"
    return ""


def _tell(message: Descriptor, told: list[Any], seen: set[str]) -> None:
    """This message and those in it: name, and fields with their types."""
    if message.full_name in seen or not message.full_name.startswith(f"{PACKAGE}."):
        return
    seen.add(message.full_name)
    fields = [(field.name, _type(field), field.number, _values(field.enum_type)) for field in message.fields]
    told.append((message.name, fields))
    for field in message.fields:
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            _tell(field.message_type, told, seen)


def _type(field: FieldDescriptor) -> str:
    kind = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{_type(key)}, {_type(value)}>"
    name = kind.name if kind is not None else _TYPES[field.type]
    return f"repeated {name}" if field.is_repeated else name


def _values(enum: EnumDescriptor | None) -> list[str]:
    return [value.name for value in enum.values] if enum is not None else []
