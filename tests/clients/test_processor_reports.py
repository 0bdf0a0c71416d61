"""Reports are sent together, again until they are answered, and none stands in the way of another."""

import asyncio

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from client_core.payload import encode
from processor_client import Context
from taskq.v1 import processor_service_pb2 as pb
from tests.clients.scripted_processor_service import Refusal, Runs, a_task, at_work, seconds

NOT_OK = [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)]


async def noop() -> None: ...


def refusal_of(*fields: str) -> Refusal:
    violations = [error_details_pb2.BadRequest.FieldViolation(field=field, description="is bad") for field in fields]
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=violations))
    return refusal_with(code_pb2.INVALID_ARGUMENT, detail)


def refusal_with(code: int, detail: any_pb2.Any) -> Refusal:
    status = rpc_status.to_status(status_pb2.Status(code=code, message="as scripted", details=[detail]))
    return Refusal(status.code, status.details, status.trailing_metadata)


async def test_what_gathers_while_a_request_is_under_way_goes_into_the_next() -> None:
    async with at_work(Runs("noop", noop), concurrency=500) as (server, stream):
        server.answering.clear()
        stream.send(a_task())
        await server.beats()
        stream.send(*[a_task() for _ in range(300)])
        await server.beats(3)
        server.answering.set()
        await server.until(lambda: len(server.results) == 301)

    assert [len(request.results) for request in server.requests] == [1, 300]


async def test_a_request_has_at_most_a_thousand_results_and_less_than_a_mebibyte() -> None:
    async def cook(size: int) -> bytes:
        return b"x" * size

    async with at_work(Runs("noop", noop), Runs("cook", cook), concurrency=3_000) as (server, stream):
        server.answering.clear()
        stream.send(*[a_task() for _ in range(2_500)], *[a_task("cook", {"size": 200_000}) for _ in range(12)])
        await server.beats(3)
        server.answering.set()
        await server.until(lambda: len(server.results) == 2_512)

    assert max(len(request.results) for request in server.requests) <= 1_000
    assert max(request.ByteSize() for request in server.requests) < 1024 * 1024


@pytest.mark.parametrize("code", NOT_OK)
async def test_a_report_is_sent_again_after_every_status(code: grpc.StatusCode) -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        server.report_script.extend([Refusal(code)])
        task = a_task()
        stream.send(task)
        await server.until(lambda: len(server.requests) == 2)

        assert [request.results[0].task_id for request in server.requests] == [task.task_id] * 2


async def test_a_report_waits_as_long_as_the_server_asks() -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=seconds(0.4)))
    async with at_work(Runs("noop", noop)) as (server, stream):
        server.report_script.append(refusal_with(code_pb2.RESOURCE_EXHAUSTED, detail))
        began = asyncio.get_running_loop().time()
        stream.send(a_task())
        await server.until(lambda: len(server.requests) == 2)

    assert asyncio.get_running_loop().time() - began >= 0.4


async def test_an_attempt_stays_in_the_heartbeats_until_its_report_is_answered() -> None:
    async with at_work(Runs("noop", noop)) as (server, stream):
        server.answering.clear()
        task = a_task()
        stream.send(task)
        beats = await server.beats(3)
        assert [each.task_id for each in beats[-1].in_flight] == [task.task_id]

        server.answering.set()
        await server.until(lambda: not server.heartbeats[-1].in_flight)


async def test_a_refused_report_is_replaced_by_a_failure_and_the_others_arrive() -> None:
    async def cook(number: int) -> int:
        return number

    def refuse(request: pb.ReportResultRequest) -> Refusal | None:
        bad = [i for i, each in enumerate(request.results) if each.succeeded.result.data in (b"3", b"7")]
        return refusal_of(*[f"results[{i}].succeeded.result" for i in bad]) if bad else None

    tasks = [a_task("cook", {"number": number}) for number in range(10)]
    async with at_work(Runs("cook", cook), concurrency=10) as (server, stream):
        server.refuse = refuse
        stream.send(*tasks)
        results = [await server.result_of(task) for task in tasks]

    assert [i for i, result in enumerate(results) if result.failed.error_type == "REPORT_REFUSED"] == [3, 7]
    assert [i for i, result in enumerate(results) if result.HasField("succeeded")] == [0, 1, 2, 4, 5, 6, 8, 9]


async def test_the_guilty_report_is_found_when_the_server_does_not_name_it() -> None:
    async def cook(number: int) -> int:
        return number

    def refuse(request: pb.ReportResultRequest) -> Refusal | None:
        guilty = any(each.succeeded.result.data == b"3" for each in request.results)
        return Refusal(grpc.StatusCode.INVALID_ARGUMENT) if guilty else None

    tasks = [a_task("cook", {"number": number}) for number in range(10)]
    async with at_work(Runs("cook", cook), concurrency=10) as (server, stream):
        server.refuse = refuse
        stream.send(*tasks)
        results = [await server.result_of(task) for task in tasks]

    assert [i for i, result in enumerate(results) if result.HasField("failed")] == [3]


async def test_a_report_that_the_server_takes_in_no_form_is_dropped_and_the_others_arrive() -> None:
    cursed, task = a_task(task_id="cursed"), a_task()

    def refuse(request: pb.ReportResultRequest) -> Refusal | None:
        guilty = any(each.task_id == "cursed" for each in request.results)
        return Refusal(grpc.StatusCode.INVALID_ARGUMENT) if guilty else None

    async with at_work(Runs("noop", noop)) as (server, stream):
        server.refuse = refuse
        stream.send(cursed, task)
        await server.result_of(task)
        await server.until(lambda: server.heartbeats and not server.heartbeats[-1].in_flight)


async def test_a_failed_attempt_is_reported_after_its_checkpoint_has_arrived() -> None:
    async def cook(ctx: Context) -> None:
        ctx.save_checkpoint({"page": 2})
        raise ValueError("burnt")

    # A heartbeat interval that the checkpoint does not wait for.
    async with at_work(Runs("cook", cook), script={"heartbeat_interval": 20.0}) as (server, stream):
        task = a_task("cook")
        stream.send(task)
        await server.result_of(task)

    assert server.heartbeats[0].in_flight[0].checkpoint == encode({"page": 2})
