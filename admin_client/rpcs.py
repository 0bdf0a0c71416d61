"""Which message is asked by which call: each has a request of its own, so that the request alone says which."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.message import Message

from taskq.v1 import admin_service_pb2, schedule_service_pb2, scheduler_service_pb2

_LOOKING: Final = ("Get", "List", "Explain", "Preview", "Watch")
"""How the names of calls begin that change nothing."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """A call.

    path     `taskq.v1.AdminService/ListTasks`
    answer   the class of what it answers, or of each message of its stream
    """

    path: str
    answer: type[Message]
    is_stream: bool


def of(request: Message) -> Rpc:
    """The call that is asked by this message."""
    return _table()[request.DESCRIPTOR.full_name]


def changes(request: Message) -> bool:
    """Whether its call may change something, and is not only to show what would change."""
    if any(getattr(request, name, False) for name in ("dry_run", "validate_only")):
        return False
    return not of(request).path.rpartition("/")[2].startswith(_LOOKING)


def items(page: Message) -> Any:
    """What a page holds: its only repeated field."""
    (name,) = [field.name for field in page.DESCRIPTOR.fields if field.is_repeated]
    return getattr(page, name)


@functools.cache
def _table() -> dict[str, Rpc]:
    files = (admin_service_pb2, schedule_service_pb2, scheduler_service_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return {
        method.input_type.full_name: Rpc(
            f"{service.full_name}/{method.name}",
            message_factory.GetMessageClass(method.output_type),
            method.server_streaming,
        )
        for service in services
        for method in service.methods
    }
