"""Connect's unary protocol: `POST /taskq.v1.SchedulerService/Enqueue`, the paths of gRPC, by plain HTTP.

https://connectrpc.com/docs/protocol
"""

from __future__ import annotations

import base64
import json
import re

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2
from starlette.datastructures import Headers

from taskq_server.http import json_body
from taskq_server.http.body import JSON, PROTO
from taskq_server.http.calls import Call
from taskq_server.http.errors import Failure, Refusal
from taskq_server.rpc import malformed

VERSION = "1"
CONTENT_TYPES = JSON, PROTO
_TIMEOUT = re.compile(r"[0-9]{1,10}", re.ASCII)
_NAMES = {"CANCELLED": "canceled"}
"""The one code that Connect spells otherwise."""


def check(headers: Headers) -> None:
    """Refuses what another version of the protocol would send."""
    if (version := headers.get("connect-protocol-version", VERSION)) != VERSION:
        message = f"connect-protocol-version must be {VERSION}; is {version[:64]!r}"
        raise Refusal(400, code_pb2.INVALID_ARGUMENT, "UNSUPPORTED_PROTOCOL", message)


def timeout_seconds(headers: Headers) -> float | None:
    """How long the caller waits; None if that is not said."""
    if (shown := headers.get("connect-timeout-ms")) is None:
        return None
    if not _TIMEOUT.fullmatch(shown):
        message = f"connect-timeout-ms must be 1 to 10 digits; is {shown[:64]!r}"
        raise Refusal(400, code_pb2.INVALID_ARGUMENT, "INVALID_TIMEOUT", message)
    return int(shown) / 1000


def request_of(call: Call, kind: str, body: bytes) -> Message:
    """The request in a body of this kind."""
    if kind == PROTO:
        try:
            return call.request_type.FromString(body)
        except DecodeError:
            raise malformed.explain(call.request_type, body) from None
    value = json_body.loads(body, call.method.input_type.name) if body else {}
    return json_body.message_of(call.request_type, value)


def response_of(message: Message, kind: str) -> bytes:
    return message.SerializeToString() if kind == PROTO else json_body.text_of(message)


def error_of(failure: Failure) -> bytes:
    """Always JSON, whatever was asked in."""
    code = _NAMES.get(failure.code, failure.code.lower())
    details = [_detail(detail) for detail in failure.message.details]
    return json.dumps({"code": code, "message": failure.message.message, "details": details}).encode()


def _detail(detail: AnyMessage) -> dict[str, object]:
    name = detail.TypeName()
    value = base64.b64encode(detail.value).decode().rstrip("=")
    found = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))()
    detail.Unpack(found)
    return {"type": name, "value": value, "debug": json_format.MessageToDict(found)}
