"""What is done to capabilities, processors, failures, operations, and to what is past its retention."""

from __future__ import annotations

from taskq.v1 import admin_service_pb2, admin_task_pb2, bulk_operation_pb2, failure_group_pb2
from taskq_server.http.dashboard.asking import Action, Ask, Entry, reason
from taskq_server.http.dashboard.forms import Form
from taskq_server.http.dashboard.visit import Visit


async def _ask_pause(visit: Visit, form: Form) -> Ask:
    name = form.get("name")
    says = ["Its tasks are not dispatched until it is resumed, on any server. What runs goes on."]
    fields = [Entry("name", "Name", value=name, hint="of tasks; need not be known yet", is_required=True), reason(form)]
    return Ask("Pause a capability", says, "Pause", fields, back="/capabilities")


async def _pause(visit: Visit, form: Form) -> str:
    request = admin_service_pb2.PauseCapabilityRequest(name=form.get("name"), reason=form.get("reason"))
    await visit.call("AdminService/PauseCapability", request)
    return "/capabilities?note=paused"


async def _ask_resume(visit: Visit, form: Form) -> Ask:
    name = form.get("name")
    says = [f"Tasks of {name} are dispatched again."]
    return Ask("Resume a capability", says, "Resume", [reason(form)], [("name", name)], "/capabilities")


async def _resume(visit: Visit, form: Form) -> str:
    request = admin_service_pb2.ResumeCapabilityRequest(name=form.get("name"), reason=form.get("reason"))
    await visit.call("AdminService/ResumeCapability", request)
    return "/capabilities?note=resumed"


async def _ask_drain(visit: Visit, form: Form) -> Ask:
    session_id = form.get("session_id")
    says = ["It is given no further tasks for as long as it lives. What it runs goes on."]
    carried = [("session_id", session_id)]
    return Ask("Drain a processor", says, "Drain", [reason(form)], carried, f"/processors/{session_id}")


async def _drain(visit: Visit, form: Form) -> str:
    request = admin_service_pb2.DrainProcessorRequest(session_id=form.get("session_id"), reason=form.get("reason"))
    await visit.call("AdminService/DrainProcessor", request)
    return f"/processors/{request.session_id}?note=drained"


async def _ask_disconnect(visit: Visit, form: Form) -> Ask:
    session_id = form.get("session_id")
    says = [
        "Its session ends at once, and what it holds goes to others, though it may still run there.",
        "A processor that lives registers again. To have it take nothing more, drain it first.",
    ]
    carried = [("session_id", session_id)]
    back = f"/processors/{session_id}"
    return Ask("Disconnect a processor", says, "Disconnect", [reason(form)], carried, back, is_danger=True)


async def _disconnect(visit: Visit, form: Form) -> str:
    session_id, why = form.get("session_id"), form.get("reason")
    request = admin_service_pb2.DisconnectProcessorRequest(session_id=session_id, reason=why)
    await visit.call("AdminService/DisconnectProcessor", request)
    return "/processors?note=disconnected"


async def _ask_resolve(visit: Visit, form: Form) -> Ask:
    says = ["The group needs nobody's attention any more, until it is seen again."]
    fields = [Entry("note", "Note", value=form.get("note"), hint="for people: what was done about it")]
    return Ask("Resolve failures", says, "Resolve", fields, [("fingerprint", form.get("fingerprint"))], "/failures")


async def _resolve(visit: Visit, form: Form) -> str:
    fingerprint, note = form.get("fingerprint"), form.get("note")
    request = failure_group_pb2.ResolveFailureGroupRequest(fingerprint=fingerprint, note=note)
    await visit.call("AdminService/ResolveFailureGroup", request)
    return "/failures?note=resolved"


async def _ask_cancel(visit: Visit, form: Form) -> Ask:
    operation_id = form.get("operation_id")
    says = ["It ends after the batch at which it is. What it has done stays done."]
    carried = [("operation_id", operation_id)]
    return Ask("Cancel an operation", says, "Cancel it", [], carried, f"/operations/{operation_id}", is_danger=True)


async def _cancel(visit: Visit, form: Form) -> str:
    request = bulk_operation_pb2.CancelBulkOperationRequest(operation_id=form.get("operation_id"))
    await visit.call("AdminService/CancelBulkOperation", request)
    return f"/operations/{request.operation_id}?note=cancelling"


async def _ask_prune(visit: Visit, form: Form) -> Ask:
    says = ["Finished tasks whose retention has passed are deleted now: a batch of at most 10,000."]
    return Ask("Prune tasks", says, "Prune", [reason(form)], back="/system", is_danger=True)


async def _prune(visit: Visit, form: Form) -> str:
    request = admin_task_pb2.PruneTasksRequest(max_tasks=10_000, reason=form.get("reason"))
    answer = await visit.call("AdminService/PruneTasks", request)
    return f"/system?note={'pruned-more' if answer.has_more else 'pruned'}"


ACTIONS: dict[str, Action] = {
    "pause-capability": Action(_ask_pause, _pause),
    "resume-capability": Action(_ask_resume, _resume),
    "drain": Action(_ask_drain, _drain),
    "disconnect": Action(_ask_disconnect, _disconnect),
    "resolve": Action(_ask_resolve, _resolve),
    "cancel-operation": Action(_ask_cancel, _cancel),
    "prune": Action(_ask_prune, _prune),
}
