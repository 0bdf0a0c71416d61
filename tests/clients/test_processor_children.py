"""executor="process": a handler in a process of its own, which may be killed and may die."""

import asyncio
import os
import signal
from datetime import UTC, timedelta

import pytest

from client_core.payload import decode, encode
from taskq.v1 import processor_service_pb2 as pb
from tests.clients.handlers_for_children import MISBEHAVE, SPIN, SQUARE, WAIT, Calculate
from tests.clients.scripted_processor_service import a_task, at_work, now, ref, utc_now


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_handler_runs_in_a_child_which_serves_the_next_attempt_too() -> None:
    async with at_work(SQUARE, WAIT, concurrency=1) as (server, stream):
        tasks = [a_task("square", {"n": n}) for n in range(3)]
        stream.send(*tasks)
        results = [decode((await server.result_of(task)).succeeded.result) for task in tasks]
        asynchronous = a_task("wait")
        stream.send(asynchronous)
        assert decode((await server.result_of(asynchronous)).succeeded.result) == asynchronous.task_id

    assert [result["square"] for result in results] == [0, 1, 4]
    assert len({result["pid"] for result in results} - {os.getpid()}) == 1
    assert not is_alive(results[0]["pid"])


async def test_what_a_handler_raises_in_a_child_is_reported_as_anywhere() -> None:
    async with at_work(MISBEHAVE, concurrency=1) as (server, stream):
        tasks = {how: a_task("misbehave", {"how": how}) for how in ("exit", "raise", "fail", "snooze", "nothing")}
        stream.send(*tasks.values())
        results = {how: await server.result_of(task) for how, task in tasks.items()}

    assert results["exit"].failed.error_type == "SystemExit"
    assert (results["raise"].failed.error_type, results["raise"].failed.message) == ("LookupError", "no oven")
    assert "in misbehave" in results["raise"].failed.stack
    assert (results["fail"].failed.error_type, results["fail"].failed.retryable) == ("UNKNOWN_DISH", False)
    due = results["snooze"].released.due_time.ToDatetime(UTC)
    assert abs(due - utc_now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert results["nothing"].HasField("succeeded")


@pytest.mark.parametrize(("how", "sentence"), [("die", "exit code 4"), ("crash", "killed by signal 11")])
async def test_a_child_that_dies_is_a_failed_attempt_and_the_processor_goes_on(how: str, sentence: str) -> None:
    async with at_work(MISBEHAVE, concurrency=1) as (server, stream):
        bad, good = a_task("misbehave", {"how": how}), a_task("misbehave", {"how": "nothing"})
        stream.send(bad, good)
        failed = (await server.result_of(bad)).failed
        assert (await server.result_of(good)).HasField("succeeded")

    assert failed.error_type == "PROCESS_LOST"
    assert sentence in failed.message


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_handler_that_is_to_stop_is_killed_with_its_child(is_lost: bool) -> None:
    async with at_work(SPIN, concurrency=1) as (server, stream):
        task = a_task("spin")
        stream.send(task)
        # What it says in the child arrives with a heartbeat, like anybody's.
        told = await server.until(
            lambda: [each for beat in server.heartbeats for each in beat.in_flight if each.HasField("checkpoint")]
        )
        assert told[0].checkpoint == encode({"spinning": True})
        (pid,) = {
            int(each.progress.message)
            for beat in server.heartbeats
            for each in beat.in_flight
            if each.HasField("progress")
        }
        assert is_alive(pid)

        if is_lost:
            lost = pb.HeartbeatResponse(stream=pb.STREAM_STATE_OK, lost=[ref(task)], server_time=now())
            server.heartbeat_script.append(lost)
        else:
            stream.cancel(task)
        await server.until(lambda: not server.heartbeats[-1].in_flight)
        again = a_task("spin")
        stream.send(again)
        await server.until(lambda: server.heartbeats[-1].in_flight and not is_alive(pid))
        stream.cancel(again)
        await server.result_of(again)

    outcomes = [result.WhichOneof("outcome") for result in server.results if result.task_id == task.task_id]
    assert outcomes == ([] if is_lost else ["cancelled"])


async def test_the_hooks_of_a_task_class_run_in_the_processor() -> None:
    Calculate.outcomes = asyncio.Queue()
    async with at_work(Calculate, concurrency=1) as (_, stream):
        stream.send(a_task("calculate", {"n": 9}))
        assert await asyncio.wait_for(Calculate.outcomes.get(), 10) == {"root": 3}
        stream.send(a_task("calculate", {"n": -1}))
        assert await asyncio.wait_for(Calculate.outcomes.get(), 10) == ("ValueError: negative", True)


async def test_a_child_that_died_while_it_was_idle_is_replaced() -> None:
    async with at_work(SQUARE, concurrency=1) as (server, stream):
        first, second = a_task("square", {"n": 1}), a_task("square", {"n": 2})
        stream.send(first)
        pid = decode((await server.result_of(first)).succeeded.result)["pid"]
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        stream.send(second)
        assert decode((await server.result_of(second)).succeeded.result)["square"] == 4
