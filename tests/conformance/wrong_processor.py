"""A small processor on the bare stubs, which keeps every promise, but for the one that its `--fault` breaks."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio

from taskq.v1 import processor_service_pb2 as pb
from taskq.v1.processor_service_pb2_grpc import ProcessorServiceStub
from taskq.v1.task_pb2 import Payload

NAMES = ("conformance.echo", "conformance.sleep", "conformance.fail", "conformance.large")
MAX_BYTES = 256 * 1024
RETRY_SECONDS = 0.2
FAULT = ""

Key = tuple[str, int]


class Processor:
    def __init__(self) -> None:
        self.held: dict[Key, asyncio.Task[None]] = {}
        self.known: set[Key] = set()
        self.waiting: list[pb.TaskResult] = []
        self.session = pb.RegisterResponse()
        self.draining = False
        self.drained = asyncio.Event()
        self.parts: list[asyncio.Task[None]] = []
        self.beat_now = asyncio.Event()
        self.superseded = False
        self.reopen = asyncio.Event()
        self.limit = asyncio.Semaphore(4 if FAULT == "runs-four-at-a-time" else 1000)
        self.connect()

    def connect(self) -> None:
        self.stub = ProcessorServiceStub(channel())  # type: ignore[no-untyped-call]
        self.heart_stub = ProcessorServiceStub(channel())  # type: ignore[no-untyped-call]

    async def run(self) -> None:
        if FAULT != "dies-of-sigterm":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.drained.set)
        await self.begin()
        await self.drained.wait()
        await self.drain()

    async def begin(self) -> None:
        """Registers; what the session of before held is stopped."""
        for part in self.parts:
            if part is not asyncio.current_task():
                part.cancel()
        for attempt in self.held.values():
            if FAULT != "outlives-its-session":
                attempt.cancel()
        self.held.clear()
        self.waiting.clear()
        limit = 5 if FAULT == "registers-for-five" else 100
        request = pb.RegisterRequest(
            processor_name=socket.gethostname().replace(" ", "-") if FAULT != "has-no-name" else "",
            capabilities=[pb.Capability(name=name) for name in NAMES],
            max_in_flight=limit,
            client="taskq-tests/1",
        )
        while True:
            try:
                self.session = await self.stub.Register(request, timeout=5, metadata=token())
                break
            except grpc.aio.AioRpcError:
                if FAULT == "registers-once":
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        self.parts = [asyncio.create_task(part()) for part in (self.stream, self.beat, self.report)]

    async def stream(self) -> None:
        while True:
            call = self.stub.StreamTasks(pb.StreamTasksRequest(session_id=self.session.session_id), metadata=token())
            code = grpc.StatusCode.OK
            reading = asyncio.create_task(self.read(call))
            reopening = asyncio.create_task(self.reopen.wait())
            await asyncio.wait({reading, reopening}, return_when=asyncio.FIRST_COMPLETED)
            self.reopen.clear()
            reopening.cancel()
            if reading.done():
                code = reading.result()
            reading.cancel()
            call.cancel()
            if code is grpc.StatusCode.NOT_FOUND and FAULT != "reopens-a-stream-that-is-not-found":
                await self.begin()
                return
            if FAULT == "does-not-reconnect-after-internal" and code is grpc.StatusCode.INTERNAL:
                return
            if self.superseded and FAULT != "fights-over-the-stream":
                await self.reopen.wait()
            self.superseded = False
            if FAULT == "trusts-any-server" and code is grpc.StatusCode.UNAVAILABLE:
                self.connect()
            if FAULT != "reconnects-at-once-and-for-ever":
                await asyncio.sleep(RETRY_SECONDS)

    async def read(
        self, call: grpc.aio.UnaryStreamCall[pb.StreamTasksRequest, pb.StreamTasksResponse]
    ) -> grpc.StatusCode:
        patience = None if FAULT == "trusts-a-silent-stream" else 3 * seconds(self.session.ping_interval)
        try:
            while (event := await asyncio.wait_for(call.read(), patience)) is not grpc.aio.EOF:
                await self.hear(event)
        except grpc.aio.AioRpcError as error:
            return error.code()
        except TimeoutError:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        return await call.code()

    async def hear(self, event: pb.StreamTasksResponse) -> None:
        kind = event.WhichOneof("event")
        if kind is None and FAULT == "dies-of-unknown-events":
            raise SystemExit(1)
        if kind == "superseded":
            self.superseded = True
        if kind == "drain" and not event.drain.processor and FAULT == "takes-a-rotation-for-a-drain":
            self.drained.set()
        if kind == "drain" and event.drain.processor and FAULT == "ends-when-drained-by-an-administrator":
            self.drained.set()
        for ref in event.cancel.attempts:
            if FAULT != "ignores-cancels-on-the-stream":
                self.stop((ref.task_id, ref.attempt))
        for task in event.tasks.tasks:
            key = (task.task_id, task.attempt)
            if FAULT == "knows-a-task-by-its-id-alone" and any(key[0] == known[0] for known in self.known):
                continue
            if key in self.held and FAULT != "runs-duplicates":
                continue
            if self.draining:
                if FAULT != "drops-what-comes-while-it-drains":
                    self.say(pb.TaskResult(task_id=key[0], attempt=key[1], released=pb.Released()))
                continue
            self.known.add(key)
            self.held[key] = asyncio.create_task(self.attempt(task))
        self.beat_now.set()

    async def attempt(self, task: pb.AssignedTask) -> None:
        result = pb.TaskResult(task_id=task.task_id, attempt=task.attempt)
        try:
            async with self.limit:
                await handle(task, result)
        except asyncio.CancelledError:
            result.cancelled.SetInParent()
            if FAULT != "reports-what-is-lost":
                return
        if FAULT == "confuses-attempts":
            result.attempt = 1
        self.say(result)

    def say(self, result: pb.TaskResult) -> None:
        if not self.draining or FAULT != "drops-results-at-the-drain":
            self.waiting.append(result)

    def stop(self, key: Key) -> None:
        if (attempt := self.held.get(key)) is not None and FAULT != "ignores-what-is-cancelled-and-lost":
            attempt.cancel()
            if not self.draining or FAULT != "waits-for-what-is-lost":
                del self.held[key]

    async def beat(self) -> None:
        interval = seconds(self.session.heartbeat_interval)
        pause = interval
        while True:
            self.beat_now.clear()
            with suppress(TimeoutError):
                if FAULT == "rests-whatever-comes":
                    await asyncio.sleep(pause)
                else:
                    await asyncio.wait_for(self.beat_now.wait(), pause)
                    await asyncio.sleep(min(pause, interval))
            if FAULT == "does-not-heartbeat" and (self.held or self.draining):
                continue
            keys = [] if FAULT == "lists-nothing" else list(self.held)
            if FAULT == "lists-no-task-that-has-ended":
                keys = [key for key, attempt in self.held.items() if not attempt.done()]
            request = pb.HeartbeatRequest(
                session_id=self.session.session_id,
                in_flight=[pb.InFlight(task_id=each[0], attempt=each[1]) for each in keys],
                draining=self.draining and FAULT != "says-nothing-of-its-drain",
            )
            pause = interval * (6 if FAULT == "heartbeats-too-seldom" else 1)
            timeout = None if FAULT == "waits-for-a-heartbeat-for-ever" else interval
            shown = () if FAULT == "shows-no-token-in-heartbeats" else token()
            try:
                reply = await self.heart_stub.Heartbeat(request, timeout=timeout, metadata=shown)
            except grpc.aio.AioRpcError:
                if FAULT == "heartbeats-until-one-fails":
                    return
                if FAULT == "begins-anew-when-a-heartbeat-fails":
                    await self.begin()
                    return
                continue
            if reply.HasField("rest") and not self.held:
                pause = seconds(reply.rest)
            if reply.stream == pb.STREAM_STATE_REREGISTER and FAULT != "ignores-reregister":
                await self.begin()
                return
            if reply.stream == pb.STREAM_STATE_REOPEN and FAULT != "ignores-reopen":
                self.reopen.set()
            if FAULT != "ignores-what-is-lost":
                for ref in reply.lost:
                    self.stop((ref.task_id, ref.attempt))
            if FAULT != "ignores-cancels-in-heartbeats":
                for ref in reply.cancelled:
                    self.stop((ref.task_id, ref.attempt))

    async def report(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            if self.waiting:
                await self.deliver()

    async def deliver(self) -> None:
        batch, size = [], 0
        while self.waiting and (size < 1 << 20 or FAULT == "reports-all-at-once"):
            size += self.waiting[0].ByteSize()
            batch.append(self.waiting.pop(0))
        answers = await self.send(batch)
        for result, answer in zip(batch, answers, strict=True):
            self.held.pop((result.task_id, result.attempt), None)
            if answer.status == pb.REPORT_STATUS_LEASE_LOST and FAULT == "insists-when-the-lease-is-lost":
                self.waiting.append(result)
            if FAULT == "reports-twice" and answer.status == pb.REPORT_STATUS_ACCEPTED:
                second = pb.TaskResult(task_id=result.task_id, attempt=result.attempt)
                second.failed.error_type = "Second"
                await self.send([second])

    async def send(self, batch: list[pb.TaskResult]) -> list[pb.ReportAnswer]:
        timeout = None if FAULT == "waits-for-an-answer-for-ever" else 3
        while True:
            request = pb.ReportResultRequest(session_id=self.session.session_id, results=batch)
            try:
                return list((await self.stub.ReportResult(request, timeout=timeout, metadata=token())).answers)
            except grpc.aio.AioRpcError as error:
                if FAULT == "dies-after-a-lost-answer" and error.details() == "the answer is lost":
                    asyncio.get_running_loop().call_later(2 * seconds(self.session.heartbeat_interval), os._exit, 3)
                if FAULT == "drops-reports-after-aborted" and error.code() is grpc.StatusCode.ABORTED:
                    return [pb.ReportAnswer() for _ in batch]
                if FAULT == "reports-once-at-the-drain" and self.draining:
                    return [pb.ReportAnswer() for _ in batch]
                for result in batch:
                    if FAULT == "changes-its-mind" and result.HasField("failed"):
                        result.failed.message = "reported for the second time"
            await asyncio.sleep(RETRY_SECONDS)

    async def drain(self) -> None:
        self.draining = True
        self.beat_now.set()
        await asyncio.gather(*self.held.values())
        while self.held and FAULT != "drops-results-at-the-drain":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if FAULT != "does-not-unregister":
            await self.stub.Unregister(pb.UnregisterRequest(session_id=self.session.session_id), metadata=token())


async def handle(task: pb.AssignedTask, result: pb.TaskResult) -> None:
    arguments = json.loads(task.payload.data)
    match task.name:
        case "conformance.echo":
            result.succeeded.result.CopyFrom(task.payload)
            if FAULT == "cuts-results":
                result.succeeded.result.data = task.payload.data[:1000]
        case "conformance.sleep":
            note(arguments["file"], "begin")
            await asyncio.sleep(arguments["seconds"])
            note(arguments["file"], "end")
            result.succeeded.SetInParent()
        case "conformance.fail":
            result.failed.error_type = arguments["error_type"] if FAULT != "calls-every-error-the-same" else "Error"
            result.failed.message = arguments["message"][: None if FAULT == "reports-messages-whole" else 4_096]
            result.failed.retryable = arguments["retryable"]
        case "conformance.large":
            if arguments["bytes"] <= MAX_BYTES or FAULT == "reports-what-is-too-large":
                result.succeeded.result.CopyFrom(Payload(data=bytes(arguments["bytes"])))
            else:
                result.failed.error_type = "TooLarge"


async def main() -> None:
    await Processor().run()


def note(file: str, word: str) -> None:
    with Path(file).open("a") as notes:
        notes.write(word + "\n")


def channel() -> grpc.aio.Channel:
    address = os.environ["TASKQ_ADDRESS"]
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 250),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.max_receive_message_length", (1 if FAULT == "takes-little" else 4) << 20),
    ]
    ca = os.environ.get("TASKQ_TLS_CA")
    if ca is None or FAULT == "talks-in-plaintext":
        return grpc.aio.insecure_channel(address, options)
    trusted = Path(ca).read_bytes()
    if FAULT == "trusts-any-server":
        host, _, port = address.rpartition(":")
        with suppress(OSError):
            trusted = ssl.get_server_certificate((host, int(port)), timeout=1).encode()
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(trusted), options)


def token() -> tuple[tuple[str, str], ...]:
    shown = os.environ.get("TASKQ_TOKEN")
    return (("authorization", f"Bearer {shown}"),) if shown else ()


def seconds(span: object) -> float:
    return span.ToNanoseconds() / 1e9  # type: ignore[attr-defined, no-any-return]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", default="")
    FAULT = parser.parse_args().fault
    asyncio.run(main())
