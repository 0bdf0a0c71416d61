"""AdminService, as far as it tells who has changed what."""

from __future__ import annotations

import hashlib
import re

from taskq.v1 import audit_pb2
from taskq_server.rpc.checks import Faults
from taskq_server.rpc.convert import timestamp
from taskq_server.rpc.pages import fill, page_of
from taskq_server.store.store import Store
from taskq_server.store.verbs.audit_log import Audited, Wanted

KINDS = "task", "processor", "capability", "schedule", "operation", "failure_group", "token"
MOST_TEXT = 1_024
_PLACE = re.compile(r"(\d{1,18}) (\d{1,18})")


class AuditService:
    """The audit, read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ListAuditEntries(self, request: audit_pb2.ListAuditEntriesRequest) -> audit_pb2.ListAuditEntriesResponse:
        faults = Faults()
        faults.text("principal", request.principal, MOST_TEXT)
        faults.text("target", request.target, MOST_TEXT)
        if request.target_kind and request.target_kind not in KINDS:
            faults.add("target_kind", f"must be one of {', '.join(KINDS)}, or empty")
        span = {
            name: faults.time_us(name, getattr(request, name)) if request.HasField(name) else None
            for name in ("start_time", "end_time")
        }
        of = _of(request)
        page = page_of(faults, of, request, "")
        place = _PLACE.fullmatch(page.after)
        if page.after and place is None:
            faults.add("page_token", "must be the next_page_token of a page of this list, or empty")
        faults.raise_if_any()
        before = None if place is None else (int(place[1]), int(place[2]))
        text = request.principal, request.target_kind, request.target
        found = await self._store.list_audit(Wanted(page.at_most, before, *text, span["start_time"], span["end_time"]))
        entries, token = fill(of, page, found, entry, _place)
        return audit_pb2.ListAuditEntriesResponse(entries=entries, next_page_token=token)


def entry(one: Audited) -> audit_pb2.AuditEntry:
    return audit_pb2.AuditEntry(
        entry_id=one.audit_seq,
        change_time=timestamp(one.change_time_us),
        principal=one.principal,
        peer=one.peer,
        source=one.source,  # type: ignore[arg-type]
        action=one.action,
        target_kind=one.target_kind,
        target=one.target,
        reason=one.reason,
        before=one.before,
        after=one.after,
        request_id=one.request_id,
    )


def _place(one: Audited) -> str:
    return f"{one.change_time_us} {one.audit_seq}"


def _of(request: audit_pb2.ListAuditEntriesRequest) -> str:
    """What a page token is good for: a list with the same other fields."""
    asked = audit_pb2.ListAuditEntriesRequest()
    asked.CopyFrom(request)
    asked.ClearField("page_size")
    asked.ClearField("page_token")
    return f"audit {hashlib.blake2b(asked.SerializeToString(deterministic=True), digest_size=8).hexdigest()}"
