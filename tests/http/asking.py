"""Requests by HTTP as a program sends them, and the two forms in which a call may be made."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from google.api import annotations_pb2
from google.protobuf import any_pb2, json_format, message_factory
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from tests.rpc.wire import METHODS

MOST_PATH = 60_000
JSON, PROTO = "application/json", "application/proto"


@dataclass(frozen=True)
class Asked:
    """A request, before it is sent."""

    verb: str
    path: str
    body: bytes = b""
    kind: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """Of an error, in either form."""
        for detail in self.error.details:
            if detail.TypeName() == "google.rpc.ErrorInfo":
                return json_format.MessageToDict(detail)["reason"]  # type: ignore[no-any-return]
        return ""

    @property
    def error(self) -> status_pb2.Status:
        """The error as gRPC has it."""
        told = self.json
        if "error" in told:
            told = told["error"]
            assert told["code"] == self.status
            details = [json_format.ParseDict(one, any_pb2.Any()) for one in told["details"]]
            return status_pb2.Status(code=code_pb2.Code.Value(told["status"]), message=told["message"], details=details)
        code = {"canceled": "cancelled"}.get(told["code"], told["code"]).upper()
        details = [
            any_pb2.Any(
                type_url=f"type.googleapis.com/{one['type']}",
                value=base64.b64decode(one["value"] + "=" * (-len(one["value"]) % 4)),
            )
            for one in told["details"]
        ]
        return status_pb2.Status(code=code_pb2.Code.Value(code), message=told["message"], details=details)


def ask_now(address: str, asked: Asked) -> Answered:
    """Blocks."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=20)) as connection:
        headers = dict(asked.headers)
        if asked.kind:
            headers["content-type"] = asked.kind
        body = asked.body if asked.body or asked.kind else None
        connection.request(asked.verb, asked.path, body, headers)
        answer = connection.getresponse()
        return Answered(answer.status, answer.headers, answer.read())


async def ask(address: str, verb: str, path: str, body: Any = None, **headers: str) -> Answered:
    """Sends JSON, unless `body` is bytes; underscores in the names of headers are hyphens."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    kind = given.pop("content-type", JSON if body is not None else "")
    return await asyncio.to_thread(ask_now, address, Asked(verb, path, data, kind, given))


def by_connect(name: str, request: Message, kind: str = JSON) -> Asked:
    path = f"/{METHODS[name].containing_service.full_name}/{METHODS[name].name}"
    body = json_format.MessageToJson(request).encode() if kind == JSON else request.SerializeToString()
    return Asked("POST", path, body, kind)


def by_rest(name: str, request: Message) -> Iterator[Asked]:
    """Each way in which the call's annotation lets this request be sent; none if a variable of the path is empty, or
    longer than the head of a request may be."""
    rule = METHODS[name].GetOptions().Extensions[annotations_pb2.http]
    for one in (rule, *rule.additional_bindings):
        verb = one.WhichOneof("pattern")
        if verb is None:
            continue
        values = json_format.MessageToDict(request, preserving_proto_field_name=True)
        path = getattr(one, verb)
        for variable, pattern in re.findall(r"\{([^=}]+)(=[^}]+)?\}", path):
            value = _taken(values, variable.split("."))
            path = re.sub(r"\{[^}]+\}", quote(value, safe="/" if pattern else "").replace("\\", "\\\\"), path, count=1)
        if "//" in path or "/:" in path or path.endswith("/"):
            continue
        body = values if one.body == "*" else values.pop(one.body, {}) if one.body else None
        query = {} if one.body == "*" else dict(_flat(values))
        path += f"?{urlencode(query, doseq=True)}" if query else ""
        if len(path) > MOST_PATH:
            continue
        yield Asked(
            verb.upper(), path, b"" if body is None else json.dumps(body).encode(), "" if body is None else JSON
        )


def _taken(values: dict[str, Any], way: list[str]) -> str:
    for step in way[:-1]:
        values = values.get(step, {})
    return str(values.pop(way[-1], ""))


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value).lower() if isinstance(value, bool) else value


def response_of(name: str, answered: Answered, kind: str = JSON) -> Message:
    """The message that was answered."""
    assert answered.status == 200, answered.body
    assert answered.headers["content-type"] == kind
    message = message_factory.GetMessageClass(METHODS[name].output_type)()
    if kind == PROTO:
        message.ParseFromString(answered.body)
    else:
        json_format.Parse(answered.body, message)
    return message
