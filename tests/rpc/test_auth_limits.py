"""How many streams a principal may have, and how often somebody may fail: told and logged so often, and no more."""

from __future__ import annotations

import grpc
import pytest
import structlog

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server import access
from tests.rpc.callers import revoke, showing
from tests.rpc.house import House
from tests.rpc.support import RawScheduler, Refusal, a_task, refused, soon

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


async def test_a_principal_has_so_many_streams_and_no_more_whatever_its_credentials(house: House) -> None:
    opened = []
    for _ in range(3):
        opened.append(await house.processor(await house.token("process:cook"), "cook"))
        await opened[-1].open()
    further = await house.processor(await house.token("process:cook"), "cook")
    refusal = await refused(further.open())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert refusal.retry_seconds == 1
    assert (await further.heartbeat()).stream, "only streams are counted"
    other = await house.processor(await house.token("process:cook", principal="other"), "cook")
    await other.open()

    await opened[0].close_stream()
    while True:  # until the server has seen it
        try:
            await further.open()
            break
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_failures_from_one_address_are_limited_and_do_not_keep_anybody_out(house: House) -> None:
    token = await house.token("enqueue:cook")
    async with grpc.aio.insecure_channel(house.server.address) as channel:
        scheduler = RawScheduler(channel)

        async def code(shown: str) -> grpc.StatusCode:
            try:
                await soon(
                    scheduler.stub.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[a_task()]), metadata=showing(shown))
                )
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        with structlog.testing.capture_logs() as logged:
            codes = [await code("garbage") for _ in range(access.MOST_FAILURES + 20)]
            assert await code(token) is grpc.StatusCode.OK
        assert codes[: access.MOST_FAILURES] == [UNAUTHENTICATED] * access.MOST_FAILURES
        assert codes[access.MOST_FAILURES :] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 20
        assert len([one for one in logged if one["event"] == "a caller was refused"]) == access.MOST_FAILURES

        house.clock.advance(60)
        assert await code("garbage") is UNAUTHENTICATED


async def test_what_a_principal_may_not_do_is_told_so_often_a_minute_and_what_it_may_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MOST_DENIALS", 80)
    tokens = [await house.token("enqueue:cook") for _ in range(2)]
    other = await house.token("enqueue:cook", principal="other")

    async def refusal(name: str, token: str) -> Refusal:
        request = scheduler_pb2.EnqueueRequest(tasks=[a_task(name)])
        return await refused(scheduler.stub.Enqueue(request, metadata=showing(token)))

    async with grpc.aio.insecure_channel(house.server.address) as channel:
        scheduler = RawScheduler(channel)
        with structlog.testing.capture_logs() as logged:
            found = [await refusal("wash", tokens[i % 2]) for i in range(access.MOST_DENIALS + 10)]

        reasons = [one.reason for one in found]
        assert reasons == ["PERMISSION_DENIED"] * access.MOST_DENIALS + ["TOO_MANY_DENIALS"] * 10
        assert {one.code for one in found} == {DENIED}, "so that nobody tries again"
        assert len([one for one in logged if one["event"] == "a caller was denied"]) == access.MOST_FAILURES
        await soon(scheduler.stub.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[a_task()]), metadata=showing(tokens[0])))
        with structlog.testing.capture_logs() as logged:
            assert (await refusal("wash", other)).reason == "PERMISSION_DENIED"
        assert [one["principal"] for one in logged] == ["other"]
        house.clock.advance(60)
        assert (await refusal("wash", tokens[0])).reason == "PERMISSION_DENIED"


async def test_a_flood_of_tokens_that_are_not_known_asks_the_database_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise AssertionError("the database was asked")

    unknown = await house.token("enqueue:cook")
    await revoke(house.server, unknown)
    scheduler = RawScheduler(await house.channel(unknown))
    monkeypatch.setattr(type(house.server._store), "read", fail)
    monkeypatch.setattr(type(house.server._store), "write", fail)
    for _ in range(20):
        assert (await refused(scheduler.enqueue())).code is UNAUTHENTICATED
    monkeypatch.undo()
