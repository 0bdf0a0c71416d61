"""What a bulk operation costs the tasks that flow beside it.

`make bench-bulk`, or with DATABASE=postgres on PostgreSQL, takes about two minutes.

    start        from the enqueue of a task that is due at once to the start of its handler, 500 tasks a second
    operation    100,000 waiting tasks, cancelled by a filter meanwhile: how many a second
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import grpc

from benchmarks import command, report
from benchmarks.database import opened
from benchmarks.flow import PER_SECOND
from benchmarks.roles import Role, Server, serving
from taskq.v1 import admin_service_pb2_grpc, scheduler_service_pb2_grpc
from taskq.v1 import bulk_operation_pb2 as bulk_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2

AT_ONCE = 1_000
LOOK_SECONDS = 0.1
ALONE_SECONDS = 10
GOING_ON = bulk_pb2.BULK_OPERATION_STATE_RUNNING


def enqueue(channel: grpc.Channel, many: int) -> None:
    """Tasks that nobody runs, for an hour."""
    later = scheduler_pb2.NewTask(name="bench.later")
    later.delay.seconds = 3_600
    stub = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
    for _ in range(many // AT_ONCE):
        stub.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[later] * AT_ONCE))


def cancel(channel: grpc.Channel) -> tuple[float, bulk_pb2.BulkOperation]:
    """When it was started, in seconds since 1970, and the operation, once it has ended."""
    stub = admin_service_pb2_grpc.AdminServiceStub(channel)
    action = bulk_pb2.BulkAction(cancel=bulk_pb2.CancelAction())
    began = time.time()
    request = bulk_pb2.StartBulkOperationRequest(filter="name:bench.later", action=action)
    operation = stub.StartBulkOperation(request).operation
    while operation.state == GOING_ON:
        time.sleep(LOOK_SECONDS)
        operation = stub.GetBulkOperation(
            bulk_pb2.GetBulkOperationRequest(operation_id=operation.operation_id)
        ).operation
    return began, operation


def started(server: Server, seconds: int) -> Role:
    role = Role("time_starts", server.address, tasks=PER_SECOND * seconds, per_second=PER_SECOND)
    role.go()
    return role


def summed(answer: dict[str, Any], since: float, until: float) -> str:
    spans = [span for sent, span in zip(answer["sent"], answer["seconds"], strict=True) if since <= sent < until]
    median, worst = report.percentiles_ms(spans)
    return f"start p50 {median:.1f} ms, p99 {worst:.1f} ms, max {1_000 * max(spans):.0f} ms, of {len(spans):,} tasks"


def measure(given: argparse.Namespace) -> None:
    with opened(given.database) as database, serving(database.make("bulk")) as server:
        print(database.title)
        alone = started(server, ALONE_SECONDS).answer()
        print(f"alone      {summed(alone, min(alone['sent']) + 1, float('inf'))}")
        with grpc.insecure_channel(server.address) as channel:
            enqueue(channel, given.tasks)
            role = started(server, given.seconds)
            time.sleep(2)
            began, operation = cancel(channel)
            took = operation.end_time.ToNanoseconds() / 1e9 - operation.start_time.ToNanoseconds() / 1e9
            counted = operation.start_time.ToNanoseconds() / 1e9 - began
        beside = role.answer()
    print(f"beside it  {summed(beside, began, began + counted + took)}")
    done = operation.done_tasks
    print(f"operation  {done:,} tasks in {took:.1f} s, {done / took:,.0f} a second; counted in {counted:.2f} s")


def main() -> None:
    parser = command.parser(__doc__, publishes=False)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--tasks", type=int, default=100_000, help="that are cancelled")
    parser.add_argument("--seconds", type=int, default=60, help="for which tasks flow beside it")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
