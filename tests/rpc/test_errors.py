"""What every error looks like, and that many faults at once still reach the caller."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator

import grpc
import pytest
import structlog

from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.core import errors
from taskq_server.rpc.status import CODES
from taskq_server.store.store import Store
from tests.rpc.conftest import Target
from tests.rpc.support import UNKNOWN_ID, Refusal, a_task, refusal_of, refused
from tests.rpc.wire import METHODS, send
from tests.support import truth

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def family(of: type[errors.TaskqError]) -> Iterator[type[errors.TaskqError]]:
    for child in of.__subclasses__():
        yield child
        yield from family(child)


async def enqueue(target: Target, *tasks: scheduler_pb2.NewTask) -> Refusal:
    before = truth.count(target.database_url)
    refusal = await refused(target.scheduler.enqueue_all(*tasks))
    assert truth.count(target.database_url) == before, "nothing of a refused call is stored"
    return refusal


async def test_every_error_that_is_raised_on_purpose_has_a_code_and_a_reason() -> None:
    assert set(CODES) == set(family(errors.TaskqError))
    reasons = [reason for _, reason in CODES.values()]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*[A-Z0-9]", reason) for reason in reasons)
    assert CODES[errors.OperationEnded] == CODES[errors.WrongState], "of tasks and of operations"
    assert len(set(reasons)) == len(reasons) - 1


async def test_an_unknown_task_is_not_found_and_its_id_is_a_fact(target: Target) -> None:
    refusal = await refused(target.scheduler.get(UNKNOWN_ID))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert (refusal.domain, refusal.facts) == ("taskq.v1", {"task_id": UNKNOWN_ID})
    assert refusal.message == f"task '{UNKNOWN_ID}' does not exist; it was never enqueued, or is pruned"
    assert refusal.retry_seconds is None


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_call_of_no_task_or_of_more_than_a_thousand_is_refused(target: Target, count: int) -> None:
    refusal = await enqueue(target, *(a_task() for _ in range(count)))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELDS")
    assert refusal.faults == {"tasks": f"must be 1 to 1,000; are {count:,}"}


async def test_a_call_of_a_thousand_tasks_is_stored(target: Target) -> None:
    before = truth.count(target.database_url)
    results = await target.scheduler.enqueue_all(*(a_task("thousand") for _ in range(1_000)))
    assert len({result.task_id for result in results}) == 1_000
    assert truth.count(target.database_url) == before + 1_000


async def test_one_bad_task_among_many_refuses_the_whole_call(target: Target) -> None:
    tasks = [a_task(task_id=str(uuid.uuid4())) for _ in range(100)]
    tasks[73].priority = 10
    refusal = await enqueue(target, *tasks)
    assert refusal.faults == {"tasks[73].priority": "must be 0 to 9; is 10"}
    assert (await refused(target.scheduler.get(tasks[0].task_id))).reason == "TASK_NOT_FOUND"


async def test_all_faults_of_a_call_are_named_at_once(target: Target) -> None:
    refusal = await enqueue(
        target, a_task("", priority=-1, tags=[""]), a_task("a b", task_id="x"), a_task(requires=["?"])
    )
    assert set(refusal.faults) == {
        "tasks[0].name",
        "tasks[0].priority",
        "tasks[0].tags[0]",
        "tasks[1].name",
        "tasks[1].task_id",
        "tasks[2].requires[0]",
    }
    assert refusal.message.endswith("; and 1 more")


WORST = [
    a_task(text, priority=-1, tags=[text], requires=[text], headers={text: text})
    for text in ("漢" * 200, "\U0001f600" * 200, "\U000e0001" * 200, "'\"\\" * 200, "\n" * 200)
]


@pytest.mark.parametrize("worst", WORST, ids=lambda task: repr(task.name[0]))
async def test_of_too_many_faults_as_many_as_fit_are_named_and_the_rest_is_counted(
    target: Target, worst: scheduler_pb2.NewTask
) -> None:
    refusal = await enqueue(target, *(worst for _ in range(1_000)))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELDS")
    assert len(refusal.faults) >= 5
    assert next(iter(refusal.faults)).startswith("tasks[0].")
    counted = re.search(r"; and (\d+) more$", refusal.message)
    assert counted is not None
    assert int(counted[1]) >= 5_000 - 5


async def test_an_error_stays_far_below_the_size_at_which_peers_cut_trailers_off(target: Target) -> None:
    for worst in WORST:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await target.scheduler.enqueue_all(*(worst for _ in range(1_000)))
        trailers = caught.value.trailing_metadata() or ()
        details = sum(len(key) + 32 + len(value) * 4 // 3 for key, value in trailers)  # in base64
        message = sum(1 if 32 <= byte <= 126 else 3 for byte in (caught.value.details() or "").encode())
        assert details + message < 7_500


async def test_a_message_over_four_mebibytes_is_refused_and_the_connection_goes_on(target: Target) -> None:
    before = truth.count(target.database_url)
    tasks = [a_task(data=b"x" * 262_144) for _ in range(17)]
    refusal = await refused(target.scheduler.enqueue_all(*tasks))
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert truth.count(target.database_url) == before
    assert await target.scheduler.enqueue_all(*tasks[:15])


async def test_a_call_that_does_not_exist_is_unimplemented(target: Target) -> None:
    call = target.channel.unary_unary("/taskq.v1.SchedulerService/Explode", None, None)
    assert (await refused(call(b""))).code == grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_of_a_megabyte_is_refused_and_the_server_lives(target: Target) -> None:
    call = target.channel.unary_unary("/taskq.v1.SchedulerService/GetTask", None, None)
    refusal = await refused(call(b"", metadata=[(f"x-{i}", "y" * 1000) for i in range(1000)]))
    assert refusal.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    assert (await target.scheduler.get(target.canary)).payload.data == b"alive"


@pytest.mark.parametrize("method", ["GetTask", "WatchTask"])
async def test_an_unexpected_error_has_an_id_that_the_log_has_too_and_no_text_of_ours(
    target: Target, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def explode(self: Store, task_ids: object) -> None:
        raise RuntimeError("the secret is in /etc/passwd")

    monkeypatch.setattr(Store, "get", explode)
    with structlog.testing.capture_logs() as logged:
        refusal = await refused(send(target.channel, method, b"\x0a\x24" + UNKNOWN_ID.encode()))
    assert (refusal.code, refusal.reason, refusal.domain) == (grpc.StatusCode.INTERNAL, "INTERNAL", "taskq.v1")
    error_id = refusal.facts.pop("error_id")
    assert not refusal.facts
    assert refusal.message == f"an unexpected error, which the server's log has as {error_id}"
    assert [entry["error_id"] for entry in logged if entry["event"] == "unexpected error"] == [error_id]


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.StorageFull(), grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"),
        (errors.StorageUnavailable("secret dsn"), grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE"),
    ],
)
async def test_an_error_of_storage_says_when_to_try_again_and_shows_no_detail(
    target: Target, monkeypatch: pytest.MonkeyPatch, error: errors.TaskqError, code: grpc.StatusCode, reason: str
) -> None:
    async def fail(self: Store, tasks: object) -> None:
        raise error

    monkeypatch.setattr(Store, "add", fail)
    refusal = await refused(target.scheduler.enqueue())
    assert (refusal.code, refusal.reason, refusal.retry_seconds, refusal.facts) == (code, reason, 1, {})
    assert "secret" not in repr(refusal)


async def test_a_stream_whose_peer_goes_away_is_no_unexpected_error(target: Target) -> None:
    with structlog.testing.capture_logs() as logged:
        for _ in range(20):
            watch = target.scheduler.stub.WatchTask(scheduler_pb2.WatchTaskRequest(task_id=target.canary))
            await watch.read()
            watch.cancel()
        await target.scheduler.get(target.canary)
    assert not [entry for entry in logged if entry["log_level"] in ("error", "critical")]


async def test_a_hundred_bad_calls_at_once_do_not_disturb_a_good_one(target: Target) -> None:
    async def bad(i: int) -> grpc.StatusCode:
        try:
            await send(target.channel, sorted(METHODS)[i % len(METHODS)], b"\xff" * 1000)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error).code
        raise AssertionError("garbage was accepted")

    *codes, task_id = await asyncio.gather(*(bad(i) for i in range(99)), target.scheduler.enqueue())
    assert set(codes) == {INVALID}
    assert (await target.scheduler.get(task_id)).task_id == task_id
