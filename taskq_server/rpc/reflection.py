"""Reflection: the server says itself what it can be asked. grpcurl asks by v1, evans only by v1alpha.

grpcio-reflection has v1alpha alone. The messages of the two are the same on the wire, so one servicer answers both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from functools import lru_cache
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from taskq_server.rpc.standing import Standing

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace("v1alpha", "v1")


def handlers(names: Iterable[str], standing: Standing) -> list[grpc.GenericRpcHandler]:
    """What answers reflection of these services. v1 itself is not listed: who lists it is asked for its descriptor,
    which no package has."""
    servicer = reflection.aio.ReflectionServicer([*names, V1ALPHA])

    async def answer(
        requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        responses: Any = servicer.ServerReflectionInfo(standing.each(requests), context)
        async for response in responses:
            _add_json_names(response)
            await context.write(response)
        if standing.has_ended:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        answer,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, V1ALPHA)]


def _add_json_names(response: reflection_pb2.ServerReflectionResponse) -> None:
    """Generated Python has lost them: without, grpcurl prints `task_id` where by the protos it prints `taskId`."""
    if response.HasField("file_descriptor_response"):
        files = response.file_descriptor_response.file_descriptor_proto
        files[:] = [_with_json_names(file) for file in files]


@lru_cache(maxsize=64)
def _with_json_names(file: bytes) -> bytes:
    described = descriptor_pb2.FileDescriptorProto.FromString(file)
    for message in _messages(described.message_type):
        for field in message.field:
            if not field.json_name:
                first, *others = field.name.split("_")
                field.json_name = first + "".join(word[:1].upper() + word[1:] for word in others)
    return described.SerializeToString()


def _messages(messages: Iterable[descriptor_pb2.DescriptorProto]) -> Iterator[descriptor_pb2.DescriptorProto]:
    for message in messages:
        yield message
        yield from _messages(message.nested_type)
