"""What the metrics say, and what they never do."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq_server.metrics import MOST_REGISTERED, MOST_UNREGISTERED, OTHER
from taskq_server.store.verbs.backlog import MOST_COUNTED
from tests.http.conftest import Site, Values
from tests.rpc.support import UNKNOWN_ID, a_task, refused, retrying, soon, span, time_at


async def test_a_task_is_counted_from_its_enqueue_to_its_end(site: Site) -> None:
    oven = await site.processor()
    task_id = await site.scheduler.enqueue(delay=span(5))
    site.clock.advance(5)
    task = await oven.take_one()
    site.clock.advance(2)
    await oven.succeed(task)

    values = await site.values()
    assert values.of("taskq_tasks_enqueued_total", name="cook") == 1
    assert values.of("taskq_task_attempts_total", name="cook", outcome="succeeded") == 1
    assert values.of("taskq_tasks_finished_total", name="cook", outcome="succeeded") == 1
    assert values.of("taskq_task_lateness_seconds_count", name="cook") == 1
    assert values.of("taskq_task_lateness_seconds_sum", name="cook") == 0
    assert values.of("taskq_task_run_seconds_count", name="cook", outcome="succeeded") == 1
    assert values.of("taskq_task_run_seconds_sum", name="cook", outcome="succeeded") == pytest.approx(2)
    assert task_id not in (await site.fetch("/metrics")).text


async def test_lateness_is_from_when_a_task_was_due_until_it_was_sent(site: Site) -> None:
    await site.scheduler.enqueue(delay=span(5))
    site.clock.advance(8)
    await (await site.processor()).take_one()
    values = await site.values()
    assert values.of("taskq_task_lateness_seconds_sum", name="cook") == pytest.approx(3)
    assert values.of("taskq_task_lateness_seconds_bucket", name="cook", le="1.0") == 0
    assert values.of("taskq_task_lateness_seconds_bucket", name="cook", le="5.0") == 1


async def test_each_way_for_an_attempt_to_end_is_counted_as_what_it_is(site: Site) -> None:
    oven = await site.processor()
    await site.scheduler.enqueue_all(
        a_task(priority=9, retry_policy=retrying(60, max_attempts=2)),
        a_task(priority=8),
        a_task(priority=7),
        a_task(priority=6, retry_policy=retrying(60, max_attempts=1)),
        a_task(priority=5, run_timeout=span(1), retry_policy=retrying(60, max_attempts=1)),
    )
    retried, released, cancelled, failed, _slow = await oven.take(5)
    await oven.fail(retried)
    await oven.release(released, due_time=None)
    await site.scheduler.cancel(cancelled.task_id)
    await oven.fail(failed)
    site.clock.advance(2)
    await site.server.housekeeper.tick()
    waiting = await site.scheduler.enqueue(delay=span(3600))
    await site.scheduler.cancel(waiting)
    again = await oven.take_one()
    await oven.unregister()

    values = await site.values()
    assert again.task_id == released.task_id
    attempts = {"failed": 2, "released": 2, "cancelled": 1, "timed_out": 1, "succeeded": 0}
    for outcome, count in attempts.items():
        assert values.of("taskq_task_attempts_total", name="cook", outcome=outcome) == count, outcome
    finished = {"failed": 2, "cancelled": 2, "succeeded": 0}
    for outcome, count in finished.items():
        assert values.of("taskq_tasks_finished_total", name="cook", outcome=outcome) == count, outcome


async def test_a_lost_session_and_a_task_that_expires_are_counted(site: Site) -> None:
    oven = await site.processor()
    await site.scheduler.enqueue(retry_policy=retrying(60, max_attempts=1))
    await oven.take_one()
    await site.registered(can=["bake"])
    await site.scheduler.enqueue("bake", expire_time=time_at(site.clock.now_us() + 1_000_000))
    await site.let_pass(60)
    values = await site.values()
    assert values.of("taskq_task_attempts_total", name="cook", outcome="lost") == 1
    assert values.of("taskq_tasks_finished_total", name="cook", outcome="failed") == 1
    assert values.of("taskq_tasks_finished_total", name="bake", outcome="failed") == 1
    assert not any(one.startswith("taskq_task_attempts") and "bake" in str(labels) for one, labels in values.samples)


async def test_a_repeated_enqueue_is_not_counted_again(site: Site) -> None:
    await site.registered()
    task = a_task(task_id=UNKNOWN_ID)
    await site.scheduler.enqueue_all(task)
    await site.scheduler.enqueue_all(task)
    assert (await site.values()).of("taskq_tasks_enqueued_total", name="cook") == 1


# ── what waits ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_nobody_can_run_is_seen_by_its_name_with_its_age(site: Site) -> None:
    await site.processor(can=["cook"], labels={"zone": "eu"})
    await site.scheduler.enqueue("bake")
    await site.scheduler.enqueue("cook", requires=["zone = us"])
    await site.scheduler.enqueue("later", delay=span(3600))
    site.clock.advance(30)
    values = await site.values()
    for name in ("bake", "cook"):
        assert values.of("taskq_unroutable_tasks", capability=name) == 1, name
        assert values.of("taskq_due_tasks", capability=name) == 1, name
        assert values.of("taskq_oldest_due_age_seconds", capability=name) == pytest.approx(30)
    assert "later" not in values.labelled("taskq_due_tasks", "capability")


async def test_what_waits_for_a_busy_or_a_drained_processor_is_told_apart(site: Site) -> None:
    oven = await site.processor(max_in_flight=1)
    await site.scheduler.enqueue()
    await site.scheduler.enqueue()
    await oven.take_one()
    site.clock.advance(7)
    values = await site.values()
    assert values.of("taskq_due_tasks", capability="cook") == 1
    assert values.of("taskq_unroutable_tasks", capability="cook") == 0
    assert values.of("taskq_oldest_due_age_seconds", capability="cook") == pytest.approx(7)

    await site.admin.drain(oven.session_id, "new disk")
    values = await site.values()
    assert values.of("taskq_unroutable_tasks", capability="cook") == 1
    assert values.of("taskq_processors", state="drained") == 1


async def test_what_no_longer_waits_is_no_longer_shown(site: Site) -> None:
    task_id = await site.scheduler.enqueue("bake")
    assert "bake" in (await site.values()).labelled("taskq_due_tasks", "capability")
    await site.scheduler.cancel(task_id)
    assert not (await site.values()).labelled("taskq_due_tasks", "capability")


async def test_a_paused_name_is_shown_as_paused(site: Site) -> None:
    await site.admin.pause("cook", "the stove is being mended")
    assert (await site.values()).of("taskq_capability_paused", capability="cook") == 1
    await site.admin.resume("cook")
    assert not (await site.values()).labelled("taskq_capability_paused", "capability")


async def test_however_much_waits_it_is_counted_up_to_a_limit(site: Site) -> None:
    for _ in range(3):
        await site.scheduler.enqueue_all(*(a_task("bake", priority=p % 2) for p in range(1_000)))
    assert (await site.values()).of("taskq_due_tasks", capability="bake") == 2 * MOST_COUNTED


# ── processors ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_credits_and_sessions_are_those_of_the_processors_that_are_here(site: Site) -> None:
    oven = await site.processor(can={"cook": 3, "bake": 0}, max_in_flight=4)
    await site.registered("silent")
    for _ in range(2):
        await site.scheduler.enqueue()
    await oven.take(2)
    values = await site.values()
    assert values.of("taskq_processors", state="ready") == 1
    assert values.of("taskq_processors", state="without_stream") == 1
    assert values.of("taskq_capability_slots", capability="cook", state="used") == 2
    assert values.of("taskq_capability_slots", capability="cook", state="free") == 1
    assert values.of("taskq_capability_slots", capability="bake", state="free") == 2


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_names_that_are_invented_do_not_become_labels_without_end(site: Site) -> None:
    for start in (0, 1_000):
        await site.scheduler.enqueue_all(*(a_task(f"order-{start + i}") for i in range(1_000)))
        await site.values()
    for i in range(3):
        await site.processor(f"oven-{i}", can=[f"cook-{i}-{j}" for j in range(100)])
    values = await site.values()
    for name, label in (("taskq_due_tasks", "capability"), ("taskq_unroutable_tasks", "capability")):
        assert OTHER in values.labelled(name, label)
        assert len(values.labelled(name, label)) <= MOST_UNREGISTERED + 1
    assert values.labelled("taskq_tasks_enqueued_total", "name") == {OTHER}
    assert len(values.labelled("taskq_capability_slots", "capability")) == MOST_REGISTERED + 1


async def test_what_is_read_is_text_of_prometheus_or_of_openmetrics_as_asked(site: Site) -> None:
    await site.scheduler.enqueue()
    plain = await site.fetch("/metrics")
    assert plain.content_type.startswith("text/plain")
    page = await site.fetch("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert page.content_type.startswith("application/openmetrics-text")
    assert any(family.name == "taskq_tasks_enqueued" for family in open_metrics(page.text))


# ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_calls_are_counted_by_how_they_ended(site: Site) -> None:
    oven = await site.processor()
    await site.scheduler.enqueue()
    await refused(site.scheduler.get(UNKNOWN_ID))
    await refused(site.scheduler.enqueue_all(a_task("")))
    call = {"grpc_service": "taskq.v1.SchedulerService", "grpc_type": "unary"}
    stream = {
        "grpc_service": "taskq.v1.ProcessorService", "grpc_type": "server_stream", "grpc_method": "StreamTasks",
    }  # fmt: skip
    values = await site.values()
    assert values.of("grpc_server_handled_total", grpc_method="Enqueue", grpc_code="OK", **call) == 1
    assert values.of("grpc_server_handled_total", grpc_method="Enqueue", grpc_code="INVALID_ARGUMENT", **call) == 1
    assert values.of("grpc_server_handled_total", grpc_method="GetTask", grpc_code="NOT_FOUND", **call) == 1
    assert values.of("grpc_server_handling_seconds_count", grpc_method="Enqueue", **call) == 2
    assert values.of("grpc_server_started_total", **stream) == 1
    assert values.of("grpc_server_handled_total", grpc_code="CANCELLED", **stream) == 0

    await oven.close_stream()
    await site.dispatched()
    assert (await site.values()).of("grpc_server_handled_total", grpc_code="CANCELLED", **stream) == 1


async def test_the_store_says_how_long_it_took_and_how_many_shared_a_commit(site: Site) -> None:
    before = await site.values()
    await site.scheduler.enqueue_all(*(a_task() for _ in range(100)))
    values = await site.values()
    # on SQLite what is due is leased by the commit that stores it
    asked = [values.of("taskq_db_query_seconds_count", op=op) for op in ("add", "add_and_lease")]
    assert sum(asked) == 1
    assert values.of("taskq_commit_items_sum") - before.of("taskq_commit_items_sum") >= 100


async def test_the_event_loop_tells_how_late_it_is(site: Site) -> None:
    site.server.metrics.lagged(0.2)
    values = await site.values()
    assert values.of("taskq_event_loop_lag_seconds_bucket", le="0.1") < values.of("taskq_event_loop_lag_seconds_count")


async def test_build_info_says_what_runs(site: Site) -> None:
    values: Values = await site.values()
    assert values.labelled("taskq_build_info", "version") == {"0.1.0"}


async def test_heartbeats_and_reports_that_fail_are_counted_as_calls(site: Site) -> None:
    oven = await site.processor()
    await soon(oven.stub.Heartbeat(processor_pb2.HeartbeatRequest(session_id=oven.session_id)))
    values = await site.values()
    heartbeat = {"grpc_service": "taskq.v1.ProcessorService", "grpc_method": "Heartbeat", "grpc_type": "unary"}
    assert values.of("grpc_server_handled_total", grpc_code="OK", **heartbeat) == 1
