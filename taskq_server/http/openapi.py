"""OpenAPI 3.1, from the same descriptors as the paths themselves. The protos' comments are its prose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.rpc import code_pb2

from taskq_server.core.rights import MET_BY
from taskq_server.http.binding import Binding, is_simple
from taskq_server.http.body import JSON
from taskq_server.http.comments import comments
from taskq_server.http.errors import STATUS
from taskq_server.http.schemas import Schema, Schemas

ABOUT = """Every unary call of taskq's gRPC services as JSON over HTTP.

Bodies are protobuf JSON: fields in lowerCamelCase (the names of the protos are taken, too), 64-bit numbers as strings,
times as RFC 3339, spans in seconds (`1.5s`), bytes in base64. A field that is not known is refused.

Errors are those of gRPC, as AIP-193 has them; `details` begin with a `google.rpc.ErrorInfo`, whose `reason` is for
programs."""

ERROR: Schema = {
    "type": "object",
    "description": "An error, by AIP-193.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The status of HTTP."},
                "message": {"type": "string", "description": "For people."},
                "status": {
                    "type": "string",
                    "enum": [code_pb2.Code.Name(code) for code in STATUS if code],
                    "description": "The code of gRPC.",
                },
                "details": {
                    "type": "array",
                    "description": "google.rpc.ErrorInfo always; BadRequest where fields are at fault; RetryInfo where "
                    "it is worth trying again.",
                    "items": {
                        "type": "object",
                        "properties": {"@type": {"type": "string"}},
                        "required": ["@type"],
                    },
                },
            },
        }
    },
}
_ERROR_LINE = re.compile(r"^  ([A-Z_]+) ([A-Z_]+(?:, [A-Z_]+)*): (.*)$")
_CODES = set(code_pb2.Code.keys())
_SENTENCE_END = re.compile(r"(?<=[.:])\s")


def document(bindings: Iterable[Binding], authenticated: bool, base_path: str = "") -> dict[str, Any]:
    """The whole of it; `authenticated` where callers must show who they are, `base_path` before every path."""
    bindings = list(bindings)
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for binding in bindings:
        names = {
            name: way[-1].json_name for name, way in zip(binding.template.variables, binding.variables, strict=True)
        }
        operations = paths.setdefault(binding.template.plain(names), {})
        operations[binding.verb.lower()] = _operation(binding, schemas, authenticated)
    services = {binding.call.method.containing_service.full_name: binding for binding in bindings}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "taskq", "version": version("taskq"), "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, **dict(sorted(schemas.found.items()))},
            "responses": {"Error": {"description": "Any other error.", **_error_content()}},
        },
        "tags": [_tag(binding.call.method.containing_service) for binding in services.values()],
    }
    if base_path:
        found["servers"] = [{"url": base_path}]
    if authenticated:
        bearer = {"type": "http", "scheme": "bearer", "description": "An API token: `taskq token create`."}
        found["components"]["securitySchemes"] = {"token": bearer}
        found["security"] = [{"token": []}]
    return found


def _tag(service: ServiceDescriptor) -> dict[str, str]:
    return {"name": service.name, "description": comments().get(service.full_name, "")}


def _operation(binding: Binding, schemas: Schemas, authenticated: bool) -> dict[str, Any]:
    method = binding.call.method
    prose, errors = _split(comments().get(method.full_name, ""))
    _, common = _split(comments().get(method.containing_service.full_name, ""))
    if authenticated:
        right = MET_BY.get(binding.call.need)
        prose += f"\n\nNeeds a right: `{right}`." if right else ""
        errors = [*errors, *common]
    operation: dict[str, Any] = {
        "operationId": f"{method.containing_service.name}_{method.name}{binding.number or ''}",
        "tags": [method.containing_service.name],
        "summary": _SENTENCE_END.split(" ".join(prose.split()), maxsplit=1)[0],
        "description": prose,
        "parameters": [*_path_parameters(binding, schemas), *_query_parameters(binding, schemas)],
        "responses": _responses(method.output_type, errors, schemas),
    }
    if binding.body:
        body = method.input_type if binding.body == "*" else method.input_type.fields_by_name[binding.body].message_type
        assert body is not None
        operation["requestBody"] = {"content": {JSON: {"schema": schemas.of_message(body)}}}
    return operation


def _path_parameters(binding: Binding, schemas: Schemas) -> Iterator[dict[str, Any]]:
    for way in binding.variables:
        schema = schemas.of_field(way[-1])
        description = schema.pop("description", "")
        schema["minLength"] = 1
        yield {"name": way[-1].json_name, "in": "path", "required": True, "description": description, "schema": schema}


def _query_parameters(binding: Binding, schemas: Schemas) -> Iterator[dict[str, Any]]:
    if binding.body == "*":
        return
    bound = {way[0] for way in binding.variables}
    for field in binding.request.fields:
        if field not in bound and field.name != binding.body:
            yield from _query_parameter(field, "", schemas)


def _query_parameter(field: FieldDescriptor, before: str, schemas: Schemas) -> Iterator[dict[str, Any]]:
    name = f"{before}{field.json_name}"
    if is_simple(field):
        schema = schemas.of_field(field)
        description = schema.pop("description", "")
        yield {"name": name, "in": "query", "description": description, "schema": schema}
    elif not field.is_repeated and (inner := field.message_type) is not None and inner.file.package == "taskq.v1":
        for one in inner.fields:
            yield from _query_parameter(one, f"{name}.", schemas)


def _responses(answer: Descriptor, errors: list[tuple[int, str]], schemas: Schemas) -> dict[str, Any]:
    told: dict[int, list[str]] = {}
    for status, text in errors:
        told.setdefault(status, []).append(text)
    content = {JSON: {"schema": schemas.of_message(answer)}}
    found: dict[str, Any] = {
        "200": {"description": comments().get(answer.full_name, "The answer."), "content": content}
    }
    for status, texts in sorted(told.items()):
        found[str(status)] = {"description": "\n".join(f"- {text}" for text in texts), **_error_content()}
    found["default"] = {"$ref": "#/components/responses/Error"}
    return found


def _error_content() -> dict[str, Any]:
    return {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _split(comment: str) -> tuple[str, list[tuple[int, str]]]:
    """A comment's prose, and the errors that it lists, by their status."""
    prose, errors = [], []
    is_listing = False
    for line in comment.splitlines():
        if (match := _ERROR_LINE.match(line)) is not None and match[1] in _CODES:
            status = STATUS[code_pb2.Code.Value(match[1])]
            errors.append((status, f"{match[1]} `{match[2].replace(', ', '`, `')}`: {match[3]}"))
        elif errors and line.startswith("    "):
            status, text = errors[-1]
            errors[-1] = (status, f"{text} {line.strip()}")
        else:
            is_listing = is_listing or line in ("Errors:",) or line.startswith("Where callers must show who they are")
            if not is_listing:
                prose.append(line)
    return "\n".join(prose).strip(), errors
