"""From a request to the message that a call takes: its path, its query and its body, by google.api.http."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from taskq_server.http import json_body
from taskq_server.http.calls import Call
from taskq_server.http.paths import Template, decoded
from taskq_server.rpc.checks import Faults

Way = tuple[FieldDescriptor, ...]
"""From a request to one of its fields: more than one step where that is in a message of its own."""


class Binding:
    """One way to make one call by HTTP: `POST /v1/tasks/{task_id}:cancel`."""

    def __init__(self, call: Call, rule: http_pb2.HttpRule, number: int = 0) -> None:
        self.call = call
        self.number = number
        """Among those of the call."""
        kind = rule.WhichOneof("pattern")
        assert kind in ("get", "put", "post", "delete", "patch"), f"{call.path} is annotated as {kind}"
        self.verb = kind.upper()
        self.template = Template.parse(getattr(rule, kind))
        self.body = rule.body
        """`*` for the whole message, a field's name for that, empty for none."""
        self.request: Descriptor = call.method.input_type
        self.variables = [_way(self.request, name) for name in self.template.variables]

    def message(self, values: Iterable[str], query: str, body: bytes) -> Message:
        """The request, or InvalidFields."""
        value: dict[str, Any] = {}
        if self.body and body:
            found = json_body.loads(body, self.body_name)
            if self.body == "*":
                value = found
            else:
                value[self.body] = found
        faults = Faults()
        if isinstance(value, dict):
            self._add(faults, value, values, query)
        return json_body.message_of(self.call.request_type, value, faults.found)

    @property
    def body_name(self) -> str:
        """Of the message that the body is."""
        if self.body == "*":
            return self.request.name
        inner = self.request.fields_by_name[self.body].message_type
        assert inner is not None, "a body that is no message"
        return inner.name

    def _add(self, faults: Faults, value: dict[str, Any], values: Iterable[str], query: str) -> None:
        for name, text in _pairs(faults, query):
            way = self._query_way(name)
            if way is None:
                faults.add(name[:64], f"must be absent; {self.call.method.name} has no such parameter")
            elif not _put(value, way, text):
                faults.add(name, "must be given once")
        for way, text in zip(self.variables, values, strict=True):
            field = ".".join(step.name for step in way)
            text = decoded(faults, field, text)
            if not _put(value, way, text, same=True):
                faults.add(field, "must be as in the path, or absent")

    def _query_way(self, name: str) -> Way | None:
        """The field that a parameter of this name sets, if it may set one."""
        way = _way(self.request, name)
        if self.body == "*" or not way or way in self.variables or way[0].name == self.body:
            return None
        return way if is_simple(way[-1]) else None


def bindings(call: Call) -> Iterator[Binding]:
    """All that a call is annotated with."""
    rule = call.method.GetOptions().Extensions[annotations_pb2.http]
    for number, one in enumerate((rule, *rule.additional_bindings)):
        if one.WhichOneof("pattern") is not None:
            yield Binding(call, one, number)


def is_simple(field: FieldDescriptor) -> bool:
    """Whether one text says it: a scalar, an enum, a time, a span."""
    inner = field.message_type
    return inner is None or (
        inner.full_name.startswith("google.protobuf.") and inner.name not in ("Struct", "Value", "ListValue", "Any")
    )


def _way(descriptor: Descriptor, name: str) -> Way:
    """Empty if there is no such field."""
    way: list[FieldDescriptor] = []
    inner: Descriptor | None = descriptor
    for step in name.split("."):
        fields = {} if inner is None else json_body.fields_of(inner)
        if (field := fields.get(step)) is None or (way and way[-1].is_repeated):
            return ()
        way.append(field)
        inner = field.message_type
    return tuple(way)


def _pairs(faults: Faults, query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except UnicodeDecodeError:
        faults.add("query", "must be UTF-8")
    except ValueError:
        faults.add("query", "must be name=value&name=value")
    return []


def _put(value: dict[str, Any], way: Way, text: str, same: bool = False) -> bool:
    """Sets what `way` leads to, in JSON. False if it is set; `same` allows it to be set to the same."""
    *steps, last = way
    for step in steps:
        name = step.json_name if step.json_name in value else step.name
        inner = value.get(name)
        if inner is None:
            inner = value[name] = {}
        if not isinstance(inner, dict):
            return True  # which is refused as what it is
        value = inner
    name = last.json_name if last.json_name in value else last.name
    if last.is_repeated:
        value.setdefault(name, []).append(_simple(last, text))
        return True
    if value.get(name) is not None:
        return same and value[name] == text
    value[name] = _simple(last, text)
    return True


def _simple(field: FieldDescriptor, text: str) -> Any:
    """A parameter as JSON: numbers may be strings there, true and false may not."""
    inner = field.message_type
    is_bool = field.type == FieldDescriptor.TYPE_BOOL or (inner is not None and inner.name == "BoolValue")
    return {"true": True, "false": False}.get(text, text) if is_bool else text
