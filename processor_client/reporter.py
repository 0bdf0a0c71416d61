"""Reports attempts until the server has answered: many in one request, one request at a time."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import grpc
import grpc.aio

from client_core.backoff import Backoff
from client_core.errors import DeadlineExceeded, InvalidArgument, TaskqError, Unavailable, from_rpc_error
from processor_client import report
from processor_client.attempt import Attempt
from processor_client.link import Link
from taskq.v1.processor_service_pb2 import ReportAnswer, ReportResultRequest, ReportResultResponse, TaskResult

logger = logging.getLogger("taskq.processor")

MAX_RESULTS = 1_000
MAX_REQUEST_BYTES = 1_000_000
TIMEOUT_SECONDS = 10.0
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 5.0
_GUILTY = re.compile(r"results\[(\d+)\]")


class Report(NamedTuple):
    """An attempt and what is said of it."""

    attempt: Attempt
    result: TaskResult


class Reporter:
    """One session's reports. `answered` is told of each answer; `dropped` of attempts whose report the server refuses
    in every form."""

    def __init__(
        self,
        session_id: str,
        link: Link[grpc.aio.Channel],
        answered: Callable[[Sequence[tuple[Report, ReportAnswer]]], None],
        dropped: Callable[[Attempt], None],
    ) -> None:
        self._session_id = session_id
        self._link = link
        self._answered = answered
        self._dropped = dropped
        self._waiting: deque[Report] = deque()
        self._wake = asyncio.Event()
        self._unanswered = 0
        self._call: grpc.aio.UnaryUnaryCall[ReportResultRequest, ReportResultResponse] | None = None

    def __len__(self) -> int:
        """How many are not answered yet."""
        return self._unanswered

    def add(self, attempt: Attempt, result: TaskResult) -> None:
        """Sends it with whatever else there is as soon as the request under way, if any, is answered."""
        self._waiting.append(Report(attempt, result))
        self._unanswered += 1
        self._wake.set()

    def reroute(self) -> None:
        """The server that had the session has stopped without a word: what was sent to it is sent to another."""
        if self._call is not None:
            self._call.cancel()

    async def run(self) -> None:
        """Sends reports until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._deliver(self._next())

    def _next(self) -> list[Report]:
        batch: list[Report] = []
        size = 0
        while self._waiting and len(batch) < MAX_RESULTS:
            size += self._waiting[0].result.ByteSize() + 8
            if batch and size > MAX_REQUEST_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _deliver(self, batch: list[Report]) -> None:
        """Until every one is answered or dropped. A request that is refused is cut until the guilty report is alone."""
        try:
            answers = await self._send(batch)
        except InvalidArgument as refusal:
            if len(batch) == 1:
                await self._replace(batch[0], refusal)
                return
            guilty = _guilty(refusal, len(batch))
            middle = len(batch) // 2
            parts = [[r] for i, r in enumerate(batch) if i in guilty] if guilty else [batch[:middle], batch[middle:]]
            innocent = [r for i, r in enumerate(batch) if i not in guilty] if guilty else []
            for part in [innocent, *parts]:
                if part:
                    await self._deliver(part)
            return
        self._unanswered -= len(batch)
        self._answered(list(zip(batch, answers, strict=True)))

    async def _send(self, batch: list[Report]) -> Sequence[ReportAnswer]:
        request = ReportResultRequest(session_id=self._session_id, results=[each.result for each in batch])
        backoff = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
        while True:
            is_wedged = False
            try:
                self._call = self._link.stub.ReportResult(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
                reply = await self._call
                self._link.worked()
                if len(reply.answers) == len(batch):
                    return reply.answers
                error = TaskqError(f"{len(reply.answers)} answers to {len(batch)} reports")
            except grpc.RpcError as failure:
                error = from_rpc_error(failure)
                if isinstance(error, InvalidArgument):
                    raise error from failure
                is_wedged = isinstance(error, DeadlineExceeded)
            except asyncio.CancelledError:
                # Also what the call raises when not this task but the call is cancelled.
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                error, is_wedged = Unavailable("the server has stopped without a word"), True
            if (old := self._link.failed(is_wedged=is_wedged)) is not None:
                await old.close()
            pause = max(backoff.next(), error.retry_delay or 0.0)
            logger.warning("%d reports are not answered; again in %.1f s: %s", len(batch), pause, error)
            await asyncio.sleep(pause)

    async def _replace(self, guilty: Report, refusal: InvalidArgument) -> None:
        """Reports the attempt as failed instead, since the server does not take what was said."""
        attempt = guilty.attempt
        logger.error("the report of %r was refused: %s", attempt, refusal)
        if guilty.result.failed.error_type == "REPORT_REFUSED":
            self._unanswered -= 1
            self._dropped(attempt)
            return
        result = report.failed(attempt.assigned, "REPORT_REFUSED", str(refusal), retryable=False)
        attempt.error = report.Reported(result)
        await self._deliver([Report(attempt, result)])


def _guilty(refusal: InvalidArgument, size: int) -> set[int]:
    indices = {int(match[1]) for field, _ in refusal.fields if (match := _GUILTY.match(field))}
    return {index for index in indices if index < size}
