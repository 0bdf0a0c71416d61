"""Reflection: the server says itself what it can be asked. grpcurl asks by v1, evans only by v1alpha.

grpcio-reflection has v1alpha alone. The messages of the two are the same on the wire, so one servicer answers both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
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
        async def until_the_caller_is_content() -> None:
            responses: Any = servicer.ServerReflectionInfo(requests, context)
            async for response in responses:
                await context.write(response)

        await standing.run(until_the_caller_is_content(), context)

    method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        answer,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, V1ALPHA)]
