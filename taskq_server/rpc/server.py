"""The gRPC server: its options, and what stands once around every call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2_grpc

from taskq.v1 import admin_service_pb2, processor_service_pb2, schedule_service_pb2, scheduler_service_pb2
from taskq_server.access import Access
from taskq_server.certificates import Certificates
from taskq_server.core.errors import CannotListen, TaskqError
from taskq_server.metrics import Metrics
from taskq_server.rpc import malformed, origin, reflection
from taskq_server.rpc.admin_service import AdminService
from taskq_server.rpc.admin_tasks_service import AdminTasksService
from taskq_server.rpc.audit_service import AuditService
from taskq_server.rpc.auth import Guard
from taskq_server.rpc.bulk_service import BulkService
from taskq_server.rpc.figures_service import FiguresService
from taskq_server.rpc.health import Health
from taskq_server.rpc.metering import Meter
from taskq_server.rpc.processor_service import ProcessorService
from taskq_server.rpc.schedule_service import ScheduleService
from taskq_server.rpc.scheduler_service import SchedulerService
from taskq_server.rpc.standing import Standing
from taskq_server.rpc.status import to_status
from taskq_server.rpc.tls import server_credentials

log = structlog.get_logger("taskq.rpc")

READINESS = "taskq.readiness"
"""The name under which probes ask for the health of the whole."""
WRITE_SECONDS = 30
"""A stream whose peer reads nothing for this long is given up."""

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_send_message_length", 4 << 20),
    ("grpc.max_metadata_size", 8_192),
    ("grpc.absolute_max_metadata_size", 16_384),
    ("grpc.max_concurrent_streams", 100),  # RFC 9113, section 6.5.2: no smaller than 100
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # below the clients' 20 s: equal values and jitter would count as strikes
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.max_connection_age_ms", 7_200_000),
    # longer than a task stream lives: each is drained and renewed on a new connection before its old one is cut
    ("grpc.max_connection_age_grace_ms", 2_700_000),
    ("grpc.so_reuseport", 0),  # a second server must fail to bind, not take half the calls
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small frame must not become a large message
    ("grpc.enable_channelz", 0),
]

SERVICES: dict[type, ServiceDescriptor] = {
    SchedulerService: scheduler_service_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
    ProcessorService: processor_service_pb2.DESCRIPTOR.services_by_name["ProcessorService"],
    ScheduleService: schedule_service_pb2.DESCRIPTOR.services_by_name["ScheduleService"],
    AdminService: admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    BulkService: admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    AuditService: admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    AdminTasksService: admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    FiguresService: admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
}
"""A service may be answered by several, each of which knows one subject."""


def answered(servicers: Iterable[object]) -> Iterator[tuple[object, MethodDescriptor]]:
    """The methods of their services that these servicers answer, each with who does."""
    for servicer in servicers:
        for method in _service_of(servicer).methods:
            if hasattr(servicer, method.name):
                yield servicer, method


def _service_of(servicer: object) -> ServiceDescriptor:
    return next(SERVICES[kind] for kind in type(servicer).__mro__ if kind in SERVICES)


class RpcServer:
    """Listens, answers, and says whether it is healthy."""

    def __init__(
        self,
        servicers: list[object],
        access: Access,
        metrics: Metrics,
        max_connections: int,
    ) -> None:
        """`max_connections` is for each address."""
        guards = [Guard(access)] if access.required else []
        # One more than this is hung up on at once, before it has cost a handshake.
        limit = ("grpc.max_allowed_incoming_connections", max_connections)
        self._server = grpc.aio.server(interceptors=guards, options=[*OPTIONS, limit])
        self._standing = Standing()
        self._health = Health(self._standing)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = ["", READINESS]
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for servicer, method in answered(servicers):
            handlers = services.setdefault(method.containing_service.full_name, {})
            handlers[method.name] = _handler(servicer, method, access, metrics)
        self._names += services
        for name, handlers in services.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        listed = [*services, health.SERVICE_NAME]
        self._server.add_generic_rpc_handlers(tuple(reflection.handlers(listed, self._standing)))

    def listen(
        self,
        address: str,
        certificates: Certificates | None = None,
        *,
        asks: bool = True,
        setting: str = "TASKQ_LISTEN",
    ) -> str:
        """Binds, in plaintext without certificates; answers the bound address, or raises CannotListen, which names the
        setting. Unless it `asks`, clients need no certificate, also where there is a client CA."""
        try:
            if certificates is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, server_credentials(certificates, asks=asks))
        except RuntimeError as error:  # gRPC does not say more; it writes the reason to stderr
            raise CannotListen(address, setting) from error
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        """Serves where it listens."""
        await self._health.tell(self._names, serving=False)
        await self._server.start()

    async def tell(self, is_ready: bool) -> None:
        """Tells those who ask whether calls should come here."""
        await self._health.tell(self._names, serving=is_ready)

    async def stop_serving(self) -> None:
        """Tells those who ask that no more calls should come."""
        await self._health.stop()

    async def stop(self, grace_seconds: float) -> None:
        """Takes no further calls and ends when those under way have ended, at the latest after the grace."""
        self._standing.end()
        await self._server.stop(grace_seconds)


def _handler(
    servicer: object, method: MethodDescriptor, access: Access, metrics: Metrics
) -> grpc.RpcMethodHandler[Any, Any]:
    behaviour = getattr(servicer, method.name)
    meter = Meter(metrics, method)
    request_type = message_factory.GetMessageClass(method.input_type)

    def parse(data: bytes) -> Message | TaskqError:
        """Never raises: an error raised here would reach the caller as an INTERNAL without a reason."""
        try:
            return request_type.FromString(data)
        except DecodeError:
            return malformed.explain(request_type, data)

    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(meter.around(_stream(behaviour)), parse, _serialize)
    # Made into bytes by the handler: gRPC keeps what a handler returns until its peer has read it, and 100 answers of a
    # peer that never reads would be kept as messages and as bytes.
    teller = origin.Teller(method, access) if origin.is_audited(method) else None
    return grpc.unary_unary_rpc_method_handler(meter.around(_unary(behaviour, teller)), parse, None)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _unary(
    behaviour: Callable[[Any], Awaitable[Message]], teller: origin.Teller | None
) -> Callable[..., Awaitable[bytes]]:
    async def call(request: Message | TaskqError, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            if isinstance(request, TaskqError):
                raise request
            if teller is not None:
                teller.tell_grpc(request, context)
            return _serialize(await behaviour(request))
        except Exception as error:
            await context.abort_with_status(to_status(error))
            raise  # never reached

    return call


def _stream(behaviour: Callable[[Any], AsyncIterator[Message]]) -> Callable[..., Awaitable[None]]:
    async def call(request: Message | TaskqError, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            if isinstance(request, TaskqError):
                raise request
            messages = behaviour(request)
            try:
                async for message in messages:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await context.write(message)
            except grpc.aio.InternalError as broken:
                log.info("a stream broke while it was written", error=str(broken))  # as when its peer goes away
            finally:
                await messages.aclose()  # type: ignore[attr-defined]
        except TimeoutError:
            await context.abort(grpc.StatusCode.CANCELLED, f"nothing was read for {WRITE_SECONDS} s")
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a status
            await context.abort_with_status(to_status(error))

    return call
