"""AdminService: convert, call, convert."""

from __future__ import annotations

import platform
from importlib.metadata import version

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq_server.admin import Admin
from taskq_server.clock import Clock
from taskq_server.config import Config
from taskq_server.rpc import convert_admin as convert
from taskq_server.rpc.checks import Faults
from taskq_server.rpc.convert import timestamp
from taskq_server.rpc.pages import fill, page_of
from taskq_server.sessions import microseconds
from taskq_server.store.verbs.listing import Registered

MOST_REASON = 1_024


class AdminService:
    """What administrators call."""

    def __init__(self, admin: Admin, clock: Clock, config: Config) -> None:
        self._admin = admin
        self._clock = clock
        self._lease_us = microseconds(config.lease_duration)
        self._settings = config.told()
        self._start_time_us = clock.now_us()

    async def ListProcessors(self, request: admin_pb2.ListProcessorsRequest) -> admin_pb2.ListProcessorsResponse:
        faults = Faults()
        page = page_of(faults, "processors", request, 0)
        faults.raise_if_any()
        found = await self._admin.processors(page)
        processors, token = fill("processors", page, found, self._processor, lambda one: one.session_seq)
        return admin_pb2.ListProcessorsResponse(
            processors=processors, next_page_token=token, server_time=timestamp(self._clock.now_us())
        )

    def _processor(self, found: Registered) -> admin_pb2.Processor:
        return convert.processor(found, self._lease_us)

    async def DrainProcessor(self, request: admin_pb2.DrainProcessorRequest) -> admin_pb2.DrainProcessorResponse:
        faults = Faults()
        session_id = faults.uuid("session_id", request.session_id)
        faults.text("reason", request.reason, MOST_REASON)
        faults.raise_if_any()
        drained = await self._admin.drain(session_id, request.reason)
        return admin_pb2.DrainProcessorResponse(processor=self._processor(drained))

    async def DisconnectProcessor(
        self, request: admin_pb2.DisconnectProcessorRequest
    ) -> admin_pb2.DisconnectProcessorResponse:
        faults = Faults()
        session_id = faults.uuid("session_id", request.session_id)
        faults.text("reason", request.reason, MOST_REASON)
        faults.raise_if_any()
        return admin_pb2.DisconnectProcessorResponse(released_tasks=await self._admin.disconnect(session_id))

    async def ListCapabilities(self, request: admin_pb2.ListCapabilitiesRequest) -> admin_pb2.ListCapabilitiesResponse:
        faults = Faults()
        page = page_of(faults, "capabilities", request, "")
        faults.raise_if_any()
        found = await self._admin.capabilities(page)
        capabilities, token = fill("capabilities", page, found, convert.capability, lambda one: one.name)
        return admin_pb2.ListCapabilitiesResponse(
            capabilities=capabilities, next_page_token=token, server_time=timestamp(self._clock.now_us())
        )

    async def PauseCapability(self, request: admin_pb2.PauseCapabilityRequest) -> admin_pb2.PauseCapabilityResponse:
        faults = Faults()
        faults.name("name", request.name)
        faults.text("reason", request.reason, MOST_REASON)
        faults.raise_if_any()
        pause = await self._admin.pause(request.name, request.reason)
        return admin_pb2.PauseCapabilityResponse(pause=convert.pause(pause))

    async def ResumeCapability(self, request: admin_pb2.ResumeCapabilityRequest) -> admin_pb2.ResumeCapabilityResponse:
        faults = Faults()
        faults.name("name", request.name)
        faults.text("reason", request.reason, MOST_REASON)
        faults.raise_if_any()
        ended = await self._admin.resume(request.name)
        return admin_pb2.ResumeCapabilityResponse(pause=None if ended is None else convert.pause(ended))

    async def GetServerInfo(self, request: admin_pb2.GetServerInfoRequest) -> admin_pb2.GetServerInfoResponse:
        described = await self._admin.describe()
        return admin_pb2.GetServerInfoResponse(
            version=version("taskq"),
            api_versions=["taskq.v1"],
            python_version=platform.python_version(),
            grpc_version=version("grpcio"),
            start_time=timestamp(self._start_time_us),
            server_time=timestamp(self._clock.now_us()),
            database=convert.database(described),
            servers=convert.servers(described),
            settings=self._settings,
        )
