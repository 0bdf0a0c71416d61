"""The messages as JSON Schema, as OpenAPI 3.1 holds them."""

from __future__ import annotations

from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from taskq_server.http.comments import comments

Schema = dict[str, Any]

PACKAGE = "taskq.v1."
INT32, UINT32 = 1 << 31, 1 << 32

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte", "contentEncoding": "base64"},
}
_OF_32_BITS = {"type": "integer", "format": "int32", "minimum": -INT32, "maximum": INT32 - 1}
_OF_32_BITS_UNSIGNED = {"type": "integer", "format": "uint32", "minimum": 0, "maximum": UINT32 - 1}
_OF_64_BITS = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_OF_64_BITS_UNSIGNED = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
"""Strings: JSON's own numbers lose digits beyond 2^53."""
_NUMBERS: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: _OF_32_BITS,
    FieldDescriptor.CPPTYPE_UINT32: _OF_32_BITS_UNSIGNED,
    FieldDescriptor.CPPTYPE_INT64: _OF_64_BITS,
    FieldDescriptor.CPPTYPE_UINT64: _OF_64_BITS_UNSIGNED,
}
_WELL_KNOWN: dict[str, Schema] = {
    "Timestamp": {"type": "string", "format": "date-time"},
    "Duration": {
        "type": "string",
        "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$",
        "description": "A span in seconds.",
        "examples": ["1.5s"],
    },
    "Struct": {"type": "object", "additionalProperties": True},
    "Value": {},
    "ListValue": {"type": "array"},
    "FieldMask": {"type": "string"},
    "Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
    "Empty": {"type": "object", "additionalProperties": False},
    "StringValue": {"type": "string"},
    "BoolValue": {"type": "boolean"},
    "Int32Value": _OF_32_BITS,
    "UInt32Value": _OF_32_BITS_UNSIGNED,
    "Int64Value": _OF_64_BITS,
    "UInt64Value": _OF_64_BITS_UNSIGNED,
    "DoubleValue": {"type": "number"},
    "FloatValue": {"type": "number"},
    "BytesValue": {"type": "string", "contentEncoding": "base64"},
}


class Schemas:
    """Those that were asked for, and what they hold, by name."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}

    def of_message(self, descriptor: Descriptor) -> Schema:
        """A reference to the schema of a message."""
        if descriptor.full_name.startswith("google.protobuf."):
            return _WELL_KNOWN[descriptor.name]
        name = descriptor.full_name.removeprefix(PACKAGE)
        if name not in self.found:
            schema = self.found[name] = described(descriptor.full_name, {"type": "object"})
            schema["properties"] = {field.json_name: self.of_field(field) for field in descriptor.fields}
            schema["additionalProperties"] = False
            if required := [field.json_name for field in descriptor.fields if behaves(field, "REQUIRED")]:
                schema["required"] = required
        return {"$ref": f"#/components/schemas/{name}"}

    def of_field(self, field: FieldDescriptor) -> Schema:
        """A field with its comment, and with how many there may be of it."""
        schema = self.of_value(field)
        if _is_map(field):
            inner = field.message_type
            assert inner is not None
            schema = {"type": "object", "additionalProperties": self.of_value(inner.fields_by_name["value"])}
        elif field.is_repeated:
            schema = {"type": "array", "items": schema}
        schema = described(field.full_name, schema)
        oneof = field.containing_oneof
        if oneof is not None and (others := [one.json_name for one in oneof.fields if one is not field]):
            beside = f"Never beside {', '.join(others)}."
            schema["description"] = "\n\n".join(filter(None, [schema.get("description"), beside]))
        if behaves(field, "OUTPUT_ONLY"):
            schema["readOnly"] = True
        if field.GetOptions().deprecated:
            schema["deprecated"] = True
        return schema

    def of_value(self, field: FieldDescriptor) -> Schema:
        """One value of a field."""
        if _is_map(field):
            return {"type": "object"}
        if field.message_type is not None:
            return self.of_message(field.message_type)
        if field.enum_type is not None:
            return self._of_enum(field.enum_type)
        if (scalar := _SCALARS.get(field.type)) is not None:
            return scalar
        return _NUMBERS[field.cpp_type]

    def _of_enum(self, enum: EnumDescriptor) -> Schema:
        name = enum.full_name.removeprefix(PACKAGE)
        if name not in self.found:
            names = [value.name for value in enum.values]
            schema = self.found[name] = described(enum.full_name, {"type": "string", "enum": names})
            told = comments()
            lines = [f"- `{one}`: {' '.join(told.get(f'{enum.full_name}.{one}', '').split())}" for one in names]
            schema["description"] = "\n\n".join(filter(None, [schema.get("description"), "\n".join(lines)]))
        return {"$ref": f"#/components/schemas/{name}"}


def described(full_name: str, schema: Schema) -> Schema:
    """The schema with what the protos say of it."""
    text = comments().get(full_name)
    return {**schema, "description": text} if text else dict(schema)


def behaves(field: FieldDescriptor, behaviour: str) -> bool:
    """Whether the contract says so of a field."""
    found = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.FieldBehavior.Value(behaviour) in found


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
