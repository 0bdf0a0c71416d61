"""What a caller sees and may do; whose a session is; and when a credential ends."""

from __future__ import annotations

import grpc
import pytest

from taskq.v1 import event_pb2
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.rpc import auth
from tests.conftest import StartServer
from tests.rpc.callers import revoke, show
from tests.rpc.house import House
from tests.rpc.support import (
    ACCEPTED,
    LEASE_LOST,
    NOT_FOUND,
    OK,
    REREGISTER,
    RUNNING,
    UNKNOWN_ID,
    RawAdmin,
    RawProcessor,
    RawScheduler,
    Refusal,
    a_result,
    a_task,
    refusal_of,
    refused,
    soon,
    span,
)
from tests.store.given import tamper
from tests.support import truth

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


async def end_of(call: grpc.aio.Call) -> Refusal:
    """How a stream ends by itself."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await soon(call.read()) is not grpc.aio.EOF:
            pass
    return refusal_of(caught.value)


# ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_task_that_may_not_be_seen_is_answered_as_if_it_did_not_exist(house: House) -> None:
    cook, bake = await house.scheduler("enqueue:kitchen.cook*"), await house.scheduler("enqueue:kitchen.bake")
    task_id = await bake.enqueue("kitchen.bake", b"secret")

    for call in (cook.get, cook.cancel, lambda task_id: cook.watch(task_id).next()):
        hidden, missing = await refused(call(task_id)), await refused(call(UNKNOWN_ID))
        assert hidden.code is grpc.StatusCode.NOT_FOUND
        hidden.message = hidden.message.replace(task_id, UNKNOWN_ID)
        hidden.facts["task_id"] = UNKNOWN_ID
        assert hidden == missing
    assert (await bake.get(task_id)).state == 1, "and it was not cancelled"


async def test_read_shows_a_task_without_what_it_carries_and_came_to(house: House) -> None:
    cook = await house.scheduler("enqueue:cook")
    task_id = await cook.enqueue("cook", b"eggs", tags=["breakfast"])
    processor = await house.processor(await house.token("process:cook"), "cook")
    await processor.open()
    await processor.succeed(await processor.take_one(), b"omelette")

    seen = await (await house.scheduler("read")).get(task_id)
    assert (seen.name, list(seen.tags), seen.HasField("payload"), seen.HasField("result")) == (
        "cook", ["breakfast"], False, False,
    )  # fmt: skip
    (seen,) = await (await house.scheduler("read")).watch(task_id).rest()
    assert not seen.HasField("payload") and not seen.HasField("result")
    for whole in (await cook.get(task_id), await (await house.scheduler("payload:read")).get(task_id)):
        assert (whole.payload.data, whole.result.data) == (b"eggs", b"omelette")


async def test_whoever_may_see_but_not_enqueue_a_task_is_told_why_it_cannot_be_cancelled(house: House) -> None:
    task_id = await (await house.scheduler("enqueue:cook")).enqueue("cook")
    refusal = await refused((await house.scheduler("read", "enqueue:bake")).cancel(task_id))
    assert (refusal.code, refusal.reason) == (DENIED, "PERMISSION_DENIED")
    assert refusal.facts == {"principal": "kitchen", "needs": "enqueue:cook", "fields": "task_id"}


async def test_a_batch_is_refused_whole_and_names_the_fields_and_the_right(house: House) -> None:
    cook = await house.scheduler("enqueue:cook", "enqueue:kitchen.*")
    names = ["cook", "kitchen.wash", "bake", "cooks", "kitchen", "bake"]
    refusal = await refused(cook.enqueue_all(*map(a_task, names)))
    assert refusal.code is DENIED
    assert refusal.facts == {
        "principal": "kitchen",
        "needs": "enqueue:bake, enqueue:cooks, enqueue:kitchen",
        "fields": "tasks[2].name, tasks[3].name, tasks[4].name, tasks[5].name",
    }
    assert truth.count(house.database_url) == 0

    many = await refused(cook.enqueue_all(*(a_task(f"{'x' * 120}{i}") for i in range(1000))))
    assert many.code is DENIED and "and 990 more" in many.message


async def test_another_scope_of_a_key_needs_the_right_to_it_as_its_task_could_be_replaced(house: House) -> None:
    key = {"key": "k", "on_conflict": scheduler_pb2.DEDUP_CONFLICT_REPLACE}
    bake = await house.scheduler("enqueue:bake")
    task_id = await bake.enqueue("bake", b"bread", delay=span(60), dedup=scheduler_pb2.Dedup(**key))
    cook = await house.scheduler("enqueue:cook")
    refusal = await refused(cook.enqueue("cook", b"poison", dedup=scheduler_pb2.Dedup(scope="bake", **key)))
    assert (refusal.code, refusal.facts["fields"]) == (DENIED, "tasks[0].dedup.scope")
    assert (await bake.get(task_id)).payload.data == b"bread"


async def test_faults_of_a_request_are_told_only_to_who_may_make_it(house: House) -> None:
    refusal = await refused((await house.scheduler("read")).enqueue("no name at all", priority=99))
    assert (refusal.code, refusal.faults) == (DENIED, {})
    assert "enqueue of the task's name" in refusal.message


# ── whose a session is ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_session_of_another_is_answered_as_if_it_did_not_exist(house: House) -> None:
    owner = await house.processor(await house.token("process:cook"), "cook")
    task_id = await (await house.scheduler("enqueue:cook")).enqueue()
    await owner.open()
    task = await owner.take_one()
    thief = await house.processor(await house.token("admin", principal="thief"))

    async def answers(session_id: str) -> list[object]:
        thief.registered = processor_pb2.RegisterResponse(session_id=session_id)
        beat, (answer,) = await thief.heartbeat(task), await thief.report(a_result(task))
        await thief.unregister()
        return [(await refused(thief.open())).code, beat.stream, len(beat.lost), answer.status]

    stolen = await answers(owner.session_id)
    assert stolen == [grpc.StatusCode.NOT_FOUND, REREGISTER, 1, LEASE_LOST]
    assert stolen == await answers(UNKNOWN_ID)
    assert (await owner.heartbeat(task)).stream == OK, "its stream was not superseded, nor the session ended"
    assert (await owner.succeed(task)).status not in (LEASE_LOST, NOT_FOUND)
    assert (await (await house.scheduler("read")).get(task_id)).state == 3


async def test_another_credential_of_the_same_principal_goes_on_with_a_session(house: House) -> None:
    first = await house.processor(await house.token("process:cook", "process:bake"), "cook", "bake")
    second = await house.processor(await house.token("process:*"))
    second.registered = first.registered
    await second.open()
    assert (await second.heartbeat()).stream == OK


async def is_refused(processor: RawProcessor, task: processor_pb2.AssignedTask) -> None:
    """Whatever it asks about its session."""
    for call in (processor.heartbeat(task), processor.report(a_result(task)), processor.unregister(), processor.open()):
        refusal = await refused(call)
        assert (refusal.code, refusal.facts["needs"]) == (DENIED, "process:bake")


async def test_every_call_of_a_session_needs_the_rights_to_all_that_it_runs_whoever_has_registered_it(
    house: House,
) -> None:
    owner = await house.processor(await house.token("process:cook", "process:bake"), "cook", "bake")
    narrow = await house.processor(await house.token("process:cook"))
    narrow.registered = owner.registered
    task_id = await (await house.scheduler("enqueue:cook")).enqueue("cook")
    await owner.open()
    task = await owner.take_one()

    await is_refused(narrow, task)
    assert (await owner.heartbeat(task)).stream == OK, "it has not ended, and its stream was not superseded"
    await is_refused(narrow, task)  # also when one who may has just been let in
    assert (await (await house.scheduler("read")).get(task_id)).state == RUNNING
    assert (await owner.succeed(task)).status == ACCEPTED


async def test_of_a_session_that_has_ended_a_weaker_credential_hears_that_and_registers_again(house: House) -> None:
    owner = await house.processor(await house.token("process:cook", "process:bake"), "cook", "bake")
    narrow = await house.processor(await house.token("process:cook"))
    narrow.registered = owner.registered
    await (await house.scheduler("enqueue:cook")).enqueue("cook")
    await owner.open()
    task = await owner.take_one()
    assert (await owner.succeed(task)).status == ACCEPTED
    await owner.unregister()

    assert (await narrow.heartbeat()).stream == REREGISTER
    assert (await narrow.succeed(task)).status == LEASE_LOST, "what was accepted is told to who may know"
    assert (await refused(narrow.open())).code is grpc.StatusCode.NOT_FOUND


async def test_what_a_session_runs_is_known_at_servers_that_do_not_push_to_it(
    house: House, start_server: StartServer
) -> None:
    strong, weak = await house.token("process:cook", "process:bake"), await house.token("process:cook")
    owner = await house.processor(strong, "cook", "bake")
    await (await house.scheduler("enqueue:cook")).enqueue("cook")
    await owner.open()
    task = await owner.take_one()
    await house.server.stop()
    house.server = await start_server(clock=house.clock, auth="required")

    narrow, again = await house.processor(weak), await house.processor(strong)
    narrow.registered = again.registered = owner.registered
    await is_refused(narrow, task)
    assert (await again.succeed(task)).status == ACCEPTED


async def test_every_capability_of_a_registration_needs_the_right_to_it(house: House) -> None:
    processor = await house.processor(await house.token("process:kitchen.*"))
    refusal = await refused(processor.register("oven", ["kitchen.cook", "hall.sweep", "kitchen.bake", "roof"], 1, {}))
    assert refusal.code is DENIED
    assert refusal.facts["needs"] == "process:hall.sweep, process:roof"
    assert refusal.facts["fields"] == "capabilities[1].name, capabilities[3].name"


async def test_a_session_is_still_somebodys_after_the_server_was_restarted(
    house: House, start_server: StartServer
) -> None:
    token, other = await house.token("process:cook"), await house.token("process:cook", principal="thief")
    processor = await house.processor(token, "cook")
    await house.server.stop()
    house.server = await start_server(clock=house.clock, auth="required")

    thief, again = await house.processor(other), await house.processor(token)
    thief.registered = again.registered = processor.registered
    assert (await thief.heartbeat()).stream == REREGISTER
    assert (await refused(thief.open())).code is grpc.StatusCode.NOT_FOUND
    await again.open()
    assert (await again.heartbeat()).stream == OK


async def test_where_nobody_is_asked_who_they_are_a_token_is_not_looked_at(start_server: StartServer) -> None:
    server = await start_server()
    channel = grpc.aio.insecure_channel(server.address, interceptors=show("garbage"))
    async with channel:
        assert await RawScheduler(channel).enqueue()


# ── the end of a credential ──────────────────────────────────────────────────────────────────────────────────────────


async def streams_of(house: House, token: str) -> tuple[grpc.aio.Call, grpc.aio.Call, grpc.aio.Call]:
    """A StreamTasks, a WatchTask and a WatchEvents that are open."""
    processor = await house.processor(token, "cook")
    stream = await processor.open()
    scheduler = RawScheduler(await house.channel(token))
    task_id = await scheduler.enqueue("bake", delay=span(86_400))
    watch = scheduler.stub.WatchTask(scheduler_pb2.WatchTaskRequest(task_id=task_id))
    await soon(watch.read())
    events = RawAdmin(await house.channel(token)).stub.WatchEvents(event_pb2.WatchEventsRequest())
    await soon(events.read())
    return stream.call, watch, events


async def test_a_revoked_token_ends_its_streams_and_no_others(house: House) -> None:
    token, other = (
        await house.token("process:*", "enqueue:*", "read"),
        await house.token("process:*", principal="other"),
    )
    ended = await streams_of(house, token)
    going_on = await house.processor(other, "cook")
    await going_on.open()

    await revoke(house.server, token)
    for call in ended:
        refusal = await end_of(call)
        assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "UNAUTHENTICATED")
    assert (await refused(RawScheduler(await house.channel(token)).enqueue())).code is UNAUTHENTICATED
    await (await house.scheduler("enqueue:cook")).enqueue("cook")
    assert await going_on.take_one()


async def test_an_expired_token_ends_its_streams_at_its_time(house: House) -> None:
    token = await house.token("process:*", "enqueue:*", "read", expire_after_seconds=60)
    calls = await streams_of(house, token)
    house.clock.advance(59.9)
    await house.server.access.tick()
    scheduler = RawScheduler(await house.channel(token))
    assert await scheduler.enqueue("bake"), "it still holds"

    house.clock.advance(0.1)
    assert (await refused(scheduler.enqueue())).code is UNAUTHENTICATED, "to the microsecond"
    await house.server.access.tick()
    for call in calls:
        assert (await end_of(call)).code is UNAUTHENTICATED


async def test_a_token_that_is_given_other_rights_ends_its_streams_and_has_those(house: House) -> None:
    """No command does that; whoever may write to the database can."""
    token = await house.token("process:*", "enqueue:*", "read")
    ended = await streams_of(house, token)
    going_on = await house.processor(await house.token("process:*", principal="other"), "cook")
    await going_on.open()

    other_rights = "UPDATE token SET rights = '[\"enqueue:cook\"]' WHERE token_id = :token"
    await tamper(house.server._store, other_rights, token=token[:15])
    await revoke(house.server)  # of nothing, but tokens are read again
    for call in ended:
        assert (await end_of(call)).code is UNAUTHENTICATED
    scheduler = RawScheduler(await house.channel(token))
    assert (await refused(scheduler.enqueue("bake"))).code is DENIED
    assert await scheduler.enqueue("cook")
    assert await going_on.take_one()


async def test_what_a_revoked_processor_was_not_sent_goes_to_another(house: House) -> None:
    token = await house.token("process:cook")
    revoked = await house.processor(token, "cook")
    await revoked.open()
    await revoke(house.server, token)
    await end_of(revoked.stream.call)
    await (await house.scheduler("enqueue:cook")).enqueue("cook")
    other = await house.processor(await house.token("process:cook"), "cook")
    await other.open()
    assert await other.take_one()


async def test_tokens_outlive_a_restart_of_the_server(house: House, start_server: StartServer) -> None:
    token, revoked = await house.token("enqueue:cook"), await house.token("enqueue:cook")
    await revoke(house.server, revoked)
    await house.server.stop()
    house.server = await start_server(clock=house.clock, auth="required")
    assert await RawScheduler(await house.channel(token)).enqueue()
    assert (await refused(RawScheduler(await house.channel(revoked)).enqueue())).code is UNAUTHENTICATED


async def test_the_last_use_of_a_token_is_written_down_once_a_minute_at_most(house: House) -> None:
    scheduler = await house.scheduler("enqueue:cook")
    start_us, last = house.clock.now_us(), "SELECT last_use_time_us FROM token"

    async def used() -> object:
        await scheduler.enqueue()
        await house.server.access.tick()
        return truth.rows(house.database_url, last)[0][0]

    assert await used() == start_us
    house.clock.advance(59.9)
    assert await used() == start_us
    house.clock.advance(0.1)
    assert await used() == start_us + 60_000_000


# ── what a call needs ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_of_which_nobody_has_said_what_it_needs_cannot_be_made(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(auth.NEEDS, "/taskq.v1.SchedulerService/GetTask")
    refusal = await refused((await house.scheduler("admin")).get(UNKNOWN_ID))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


async def test_an_admin_may_do_what_administrators_do_and_a_reader_only_look(house: House) -> None:
    await house.processor(await house.token("process:cook"), "cook")
    reader = RawAdmin(await house.channel(await house.token("read")))
    admin = RawAdmin(await house.channel(await house.token("admin")))
    (processor,) = (await reader.processors()).processors
    assert (await refused(reader.drain(processor.session_id))).facts["needs"] == "admin"
    assert (await refused(reader.drain(UNKNOWN_ID))).code is DENIED, "permission before existence"
    assert (await admin.drain(processor.session_id)).HasField("drain")
