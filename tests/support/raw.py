"""Peers that do what the clients never would: the generated stubs, called by hand."""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from client_core.channel import target
from taskq.v1 import admin_service_pb2 as admin_pb2
from taskq.v1 import admin_service_pb2_grpc, processor_service_pb2_grpc, scheduler_service_pb2_grpc, task_pb2
from taskq.v1 import processor_service_pb2 as processor_pb2
from taskq.v1 import scheduler_service_pb2 as scheduler_pb2

ANSWER_SECONDS = 10


class RawScheduler:
    """One call, one try."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)

    def enqueue(self, *tasks: scheduler_pb2.NewTask, timeout: float = ANSWER_SECONDS) -> list[int]:
        """The outcomes; raises grpc.RpcError."""
        response = self.stub.Enqueue(scheduler_pb2.EnqueueRequest(tasks=tasks), timeout=timeout)
        return [result.outcome for result in response.results]

    def get(self, task_id: str) -> task_pb2.Task:
        return self.stub.GetTask(scheduler_pb2.GetTaskRequest(task_id=task_id), timeout=ANSWER_SECONDS).task


class RawAdmin:
    """One call, one try."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = admin_service_pb2_grpc.AdminServiceStub(channel)

    def pause(self, name: str) -> None:
        self.stub.PauseCapability(admin_pb2.PauseCapabilityRequest(name=name), timeout=ANSWER_SECONDS)

    def resume(self, name: str) -> None:
        self.stub.ResumeCapability(admin_pb2.ResumeCapabilityRequest(name=name), timeout=ANSWER_SECONDS)

    def drain(self, session_id: str) -> None:
        self.stub.DrainProcessor(admin_pb2.DrainProcessorRequest(session_id=session_id), timeout=ANSWER_SECONDS)

    def disconnect(self, session_id: str) -> None:
        request = admin_pb2.DisconnectProcessorRequest(session_id=session_id)
        self.stub.DisconnectProcessor(request, timeout=ANSWER_SECONDS)

    def processors(self) -> list[admin_pb2.Processor]:
        return list(self.stub.ListProcessors(admin_pb2.ListProcessorsRequest(), timeout=ANSWER_SECONDS).processors)


class RawProcessor:
    """A session that heartbeats and reports only when it is told to."""

    def __init__(self, channel: grpc.Channel, *names: str, max_in_flight: int = 8) -> None:
        self.stub = processor_service_pb2_grpc.ProcessorServiceStub(channel)
        capabilities = [processor_pb2.Capability(name=name) for name in names]
        request = processor_pb2.RegisterRequest(
            processor_name="raw", capabilities=capabilities, max_in_flight=max_in_flight
        )
        self.session_id: str = self.stub.Register(request, timeout=ANSWER_SECONDS).session_id
        self.received: queue.Queue[processor_pb2.AssignedTask] = queue.Queue()
        self.drained, self.ended = threading.Event(), threading.Event()
        """An administrator drains it; its stream has ended."""
        self._stream: grpc.Call | None = None

    def reconnect(self, channel: grpc.Channel) -> None:
        """Goes on by another channel, in the same session."""
        self.stub = processor_service_pb2_grpc.ProcessorServiceStub(channel)

    def open_stream(self) -> None:
        """Opens it and returns once the server has said something on it."""
        stream = self.stub.StreamTasks(processor_pb2.StreamTasksRequest(session_id=self.session_id))
        self._stream = stream
        next(stream)
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: Iterator[processor_pb2.StreamTasksResponse]) -> None:
        try:
            for response in stream:
                for task in response.tasks.tasks:
                    self.received.put(task)
                if response.drain.processor:
                    self.drained.set()
        except grpc.RpcError:
            pass  # closed by us, or by the server's end
        self.ended.set()

    def take(self, seconds: float = ANSWER_SECONDS) -> processor_pb2.AssignedTask:
        """The next task that was pushed; AssertionError when none comes."""
        try:
            return self.received.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no task was pushed within {seconds:g} s") from None

    def heartbeat(self, *held: processor_pb2.AssignedTask) -> processor_pb2.HeartbeatResponse:
        in_flight = [processor_pb2.InFlight(task_id=task.task_id, attempt=task.attempt) for task in held]
        request = processor_pb2.HeartbeatRequest(session_id=self.session_id, in_flight=in_flight)
        return self.stub.Heartbeat(request, timeout=ANSWER_SECONDS)

    def succeed(self, task: processor_pb2.AssignedTask) -> processor_pb2.ReportStatus.ValueType:
        """Reports success; answers what became of the report."""
        result = processor_pb2.TaskResult(
            task_id=task.task_id, attempt=task.attempt, succeeded=processor_pb2.Succeeded()
        )
        request = processor_pb2.ReportResultRequest(session_id=self.session_id, results=[result])
        return self.stub.ReportResult(request, timeout=ANSWER_SECONDS).answers[0].status

    def close(self) -> None:
        if self._stream is not None:
            self._stream.cancel()


@contextmanager
def connected(address: str) -> Iterator[grpc.Channel]:
    """A channel without retries, which finds a restarted server at once."""
    options = [
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(target(address), options=options) as channel:
        yield channel


def a_task(name: str = "work", seconds: float = 0, size: int = 0) -> scheduler_pb2.NewTask:
    """One that runs for so long and carries so many bytes."""
    data = json.dumps({"seconds": seconds, "text": "x" * size}).encode()
    payload = task_pb2.Payload(data=data, content_type="application/json")
    return scheduler_pb2.NewTask(task_id=str(uuid.uuid4()), name=name, payload=payload)
