"""A processor that reports what it has received when it gets SIGUSR1, whatever the server thinks of it by then."""

from __future__ import annotations

import argparse
import queue
import signal
import threading
from pathlib import Path

import grpc

from taskq.v1.processor_service_pb2 import REPORT_STATUS_ACCEPTED, ReportStatus
from tests.support import ledger
from tests.support.history import History, Phase
from tests.support.program import READY
from tests.support.raw import RawProcessor, connected


def main(flags: argparse.Namespace) -> None:
    history, notes = History(flags.history, flags.name), History(flags.ledger, flags.name)
    asked = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: asked.set())
    with connected(flags.address) as channel:
        processor = RawProcessor(channel, "work")
        processor.open_stream()
        print(READY, flush=True)
        held = []
        while not asked.wait(0.1):
            try:
                while True:
                    task = processor.received.get_nowait()
                    notes.write(
                        ledger.OP, "invoke", task.task_id, task.attempt, due=task.due_time.ToNanoseconds() / 1e9
                    )
                    held.append(task)
            except queue.Empty:
                pass
            try:
                processor.heartbeat(*held)
            except grpc.RpcError:
                continue  # the server is away
        for task in held:
            notes.write(ledger.OP, "ok", task.task_id, task.attempt)
            status = processor.succeed(task)
            phase: Phase = "ok" if status == REPORT_STATUS_ACCEPTED else "fail"
            history.write("report", phase, task.task_id, task.attempt, status=ReportStatus.Name(status))
        processor.close()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main(parse())
