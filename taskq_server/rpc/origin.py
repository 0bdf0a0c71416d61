"""Where a call comes from, told once around every call that may change what an administrator answers for.

That is every call that needs the right to administer or to enqueue, but for the enqueueing of tasks itself: what is
added to the contract later is audited without a word here.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from taskq_server.access import Access
from taskq_server.core.origin import Origin, Source, enter
from taskq_server.core.rights import Need
from taskq_server.rpc.auth import NEEDS

CLI = "taskq-cli"
"""How the user agent of the `taskq` command begins."""
MOST_REQUEST_ID = 128
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_CHANGES = Need.ADMIN, Need.ENQUEUE
_FLOW = frozenset({"/taskq.v1.SchedulerService/Enqueue"})
_REASONS = "reason", "note"


def is_audited(method: MethodDescriptor) -> bool:
    """Whether what a call changes stands in the audit."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    return path not in _FLOW and NEEDS.get(path) in _CHANGES


class Teller:
    """Says of each call of a method where it comes from."""

    def __init__(self, method: MethodDescriptor, access: Access) -> None:
        self._action = f"{method.containing_service.name}/{method.name}"
        self._reason = next((name for name in _REASONS if name in method.input_type.fields_by_name), "")
        self._access = access

    def tell(self, request: Message, *, source: Source, peer: str, request_id: str, reason: str = "") -> None:
        """From now on, in this call. For whoever takes calls in another way than by gRPC, too; `peer` has no port, and
        `reason` is of a request that has no field for it."""
        reason = getattr(request, self._reason) if self._reason else reason
        told = self._access.caller().principal, peer, reason, request_id_of(request_id)
        enter(Origin(source, self._action, *told))

    def tell_grpc(self, request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """The same of a gRPC call."""
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        source = Source.CLI if metadata.get("user-agent", "").startswith(CLI) else Source.GRPC
        request_id = metadata.get("x-request-id", "")
        self.tell(request, source=source, peer=address_of(context.peer()), request_id=request_id)


def address_of(peer: str) -> str:
    """The address in `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; what stands alone, as `unix:`, has none."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") or kind


def request_id_of(text: str) -> str:
    """What a caller calls its call, as much of it as is kept."""
    return _UNPRINTABLE.sub("?", text[:MOST_REQUEST_ID])
