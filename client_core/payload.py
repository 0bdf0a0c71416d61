"""Values to bytes and back: JSON by default, bytes as they are, protobuf as Any; never pickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from client_core import shapes
from taskq.v1.task_pb2 import Payload

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
PROTOBUF: Final = "application/protobuf"

MAX_PAYLOAD_BYTES: Final = 256 * 1024
"""The server's limit unless `TASKQ_MAX_PAYLOAD_BYTES` says otherwise."""

T = TypeVar("T")

_codecs: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {}


def register_codec(content_type: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> None:
    """Teaches both sides a content type, or replaces how `application/json` is written and read.

    Register it in the scheduler's and in the processor's program.
    """
    _codecs[_bare(content_type)] = (encode, decode)


def encode(value: object, content_type: str | None = None) -> Payload | None:
    """The payload of a value; None, which is no payload, for None.

    Without a `content_type`: bytes are kept, a protobuf message becomes an Any, everything else becomes JSON: what JSON
    knows, and dataclasses, TypedDicts, pydantic models, msgspec structs, enums, datetimes, UUIDs and Decimals in it.
    TypeError for a value that it cannot write, ValueError for NaN and for text that is not Unicode.
    """
    if value is None:
        return None
    if content_type is not None and _bare(content_type) not in (JSON, BYTES, PROTOBUF):
        return Payload(data=_codec(content_type)[0](value), content_type=content_type)
    if isinstance(value, bytes):
        return Payload(data=value, content_type=content_type or BYTES)
    if isinstance(value, bytearray | memoryview):
        return Payload(data=bytes(value), content_type=content_type or BYTES)
    if isinstance(value, Message):
        packed = any_pb2.Any()
        packed.Pack(value)
        return Payload(data=packed.SerializeToString(deterministic=True), content_type=PROTOBUF)
    return Payload(data=_codec(JSON)[0](value), content_type=content_type or JSON)


@overload
def decode(payload: Payload | None, into: None = None) -> Any: ...
@overload
def decode(payload: Payload | None, into: type[T]) -> T: ...
def decode(payload: Payload | None, into: Any = None) -> Any:
    """The value of a payload; None for an absent one. `into` is the type that it must have.

    ValueError when the bytes are not of their content type, or the value is not of the type.
    """
    if payload is None or (not payload.data and not payload.content_type):
        return None
    kind = _bare(payload.content_type) or BYTES
    if kind == BYTES:
        return _of_type(payload.data, into)
    if kind == PROTOBUF:
        return _of_type(_unpack(payload.data, into), into)
    return shapes.build(into, _codec(kind)[1](payload.data))


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _codec(content_type: str) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    try:
        return _codecs[_bare(content_type)]
    except KeyError:
        known = ", ".join(sorted({BYTES, PROTOBUF, *_codecs}))
        raise ValueError(f"content type is {content_type!r}; must be registered, as are {known}") from None


def _of_type(value: object, into: Any) -> object:
    if into is None or into is object or into is Any or isinstance(value, into):
        return value
    raise ValueError(f"payload is {type(value).__name__}; must be {into.__name__}")


def _unpack(data: bytes, into: Any) -> Message:
    packed = any_pb2.Any()
    try:
        packed.ParseFromString(data)
        kind = into if isinstance(into, type) and issubclass(into, Message) else _message_class(packed.TypeName())
        message: Message = kind()
        if not packed.Unpack(message):
            raise ValueError(f"payload is {packed.TypeName()}; must be {message.DESCRIPTOR.full_name}")
    except DecodeError as error:
        raise ValueError(f"payload is not a protobuf Any: {error}") from error
    return message


def _message_class(name: str) -> type[Message]:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        raise ValueError(f"payload is a {name!r}; must be a message whose module is imported here") from None
    return message_factory.GetMessageClass(descriptor)


_write_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=shapes.to_json_value
).encode


def _encode_json(value: object) -> bytes:
    return _write_json(value).encode()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"payload holds {name}; must be JSON")


def _decode_json(data: bytes) -> Any:
    return json.loads(data, parse_constant=_refuse_constant)


register_codec(JSON, _encode_json, _decode_json)
