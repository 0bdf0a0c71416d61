"""A task's walk over the wire, with nothing but the generated stubs."""

from __future__ import annotations

import grpc

from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import processor_service_pb2_grpc, scheduler_service_pb2_grpc, task_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2
from taskq_server.server import Server


async def test_an_enqueued_task_is_pushed_run_and_its_result_kept(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        scheduler = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
        processor = processor_service_pb2_grpc.ProcessorServiceStub(channel)
        registered = await processor.Register(
            processor_pb2.RegisterRequest(
                processor_name="oven", capabilities=[processor_pb2.Capability(name="cook")], max_in_flight=1
            )
        )
        stream = processor.StreamTasks(processor_pb2.StreamTasksRequest(session_id=registered.session_id))
        new = scheduler_pb2.NewTask(name="cook", payload=task_pb2.Payload(data=b"pasta"))
        enqueued = await scheduler.Enqueue(scheduler_pb2.EnqueueRequest(tasks=[new]))

        async for response in stream:
            if response.HasField("tasks"):
                break
        (assigned,) = response.tasks.tasks
        assert assigned.task_id == enqueued.results[0].task_id
        assert assigned.payload.data == b"pasta"
        assert assigned.attempt == 1

        result = processor_pb2.TaskResult(
            task_id=assigned.task_id,
            attempt=1,
            succeeded=processor_pb2.Succeeded(result=task_pb2.Payload(data=b"al dente")),
        )
        report = processor_pb2.ReportResultRequest(session_id=registered.session_id, results=[result])
        assert (await processor.ReportResult(report)).answers[0].status == processor_pb2.REPORT_STATUS_ACCEPTED
        assert (await processor.ReportResult(report)).answers[0].status == processor_pb2.REPORT_STATUS_ALREADY_ACCEPTED

        got = await scheduler.GetTask(scheduler_pb2.GetTaskRequest(task_id=assigned.task_id))
        assert got.task.state == task_pb2.TASK_STATE_SUCCEEDED
        assert got.task.result.data == b"al dente"
        stream.cancel()
