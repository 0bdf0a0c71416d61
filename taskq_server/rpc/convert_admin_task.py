"""Domain -> wire: tasks as administrators see them."""

from __future__ import annotations

from taskq.v1 import task_pb2
from taskq_server.core.task import Task
from taskq_server.rpc import convert


def basic_task(task: Task) -> task_pb2.Task:
    """Without payload, result, headers, stack traces and progress messages."""
    message = convert.task_message(task, with_payloads=False)
    message.ClearField("headers")
    if message.HasField("last_failure"):
        message.last_failure.ClearField("stack")
    if message.HasField("progress"):
        message.progress.ClearField("message")
    return message
