"""Domain -> wire: what administrators are answered."""

from __future__ import annotations

from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq_server import task_id
from taskq_server.rpc.convert import timestamp
from taskq_server.store.verbs.describing import Description
from taskq_server.store.verbs.listing import Registered, Supply
from taskq_server.store.verbs.pausing import Pause


def processor(one: Registered, lease_us: int) -> admin_pb2.Processor:
    message = admin_pb2.Processor(
        session_id=task_id.to_text(one.session_id),
        processor_name=one.processor_name,
        labels=one.labels,
        max_in_flight=one.max_in_flight,
        in_flight=one.many_held,
        build_id=one.build_id,
        client=one.client,
        register_time=timestamp(one.register_time_us),
        heartbeat_time=timestamp(max(one.register_time_us, one.alive_until_us - lease_us)),
        lease_expire_time=timestamp(one.alive_until_us),
        server=one.server_name,
    )
    for name, limit in one.capabilities.items():
        message.capabilities.add(name=name, max_in_flight=limit)
    for held in one.held:
        message.held_tasks.add(
            task_id=task_id.to_text(held.task_id),
            attempt=held.attempt,
            name=held.name,
            lease_time=timestamp(held.lease_time_us),
        )
    if one.drain_time_us is not None:
        message.drain.reason = one.drain_reason
        message.drain.drain_time.CopyFrom(timestamp(one.drain_time_us))
    return message


def capability(one: Supply) -> admin_pb2.CapabilityView:
    return admin_pb2.CapabilityView(
        name=one.name,
        due_tasks=one.due,
        later_tasks=one.later,
        first_due_time=None if one.first_due_us is None else timestamp(one.first_due_us),
        running_tasks=one.running,
        processors=one.processors,
        free_credits=one.free,
        pause=None if one.pause is None else pause(one.pause),
    )


def pause(one: Pause) -> admin_pb2.CapabilityPause:
    return admin_pb2.CapabilityPause(reason=one.reason, pause_time=timestamp(one.pause_time_us))


def database(one: Description) -> admin_pb2.DatabaseInfo:
    return admin_pb2.DatabaseInfo(kind=one.kind, version=one.version, schema_version=one.schema_version)


def servers(one: Description) -> list[admin_pb2.LivingServer]:
    return [admin_pb2.LivingServer(name=name, start_time=timestamp(since_us)) for name, since_us in one.servers]
