"""Tasks that a filter matches, those enqueued last first."""

from __future__ import annotations

from starlette.responses import Response

from taskq.v1 import admin_task_pb2, stats_pb2, task_pb2
from taskq_server.core.errors import InvalidFields
from taskq_server.core.filter import FilterRefused, parse
from taskq_server.core.task import TaskState
from taskq_server.http.dashboard.visit import Visit

SIZES = (25, 50, 100, 200)
STATES = ("SCHEDULED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")


async def page(visit: Visit) -> Response:
    text = visit.query("filter")
    size = visit.query("size", "50")
    wanted = int(size) if size.isdecimal() and len(size) < 5 else 50
    counting = visit.query("total") == "1"
    request = admin_task_pb2.ListTasksRequest(
        page_size=min(max(wanted, 1), 300), page_token=visit.query("page"), filter=text, with_total=counting
    )
    why, status, answer = "", 200, admin_task_pb2.ListTasksResponse()
    try:
        answer = await visit.call("AdminService/ListTasks", request)
    except InvalidFields as error:  # the filter stays in its box, to be mended
        why, status = str(error), 400
    stats = await visit.part("AdminService/GetStats", stats_pb2.GetStatsRequest(step=stats_pb2.STATS_STEP_MINUTE))
    counts = {one.state: one for one in stats.answer.states} if stats else {}
    facets = [
        (name, with_state(text, name), counts.get(task_pb2.TaskState.Value(f"TASK_STATE_{name}"))) for name in STATES
    ]
    return await visit.show_large(
        "tasks",
        status,
        filter=text,
        size=wanted,
        sizes=SIZES,
        counting=counting,
        answer=answer,
        why=why,
        facets=facets,
        states=_states(text),
        is_first=not visit.query("page"),
    )


def _states(text: str) -> set[str]:
    """Those that a filter asks for; none of a text that is no filter."""
    try:
        terms = parse(text).of("state")
    except FilterRefused:
        return set()
    values = [value for term in terms if not term.negated for value in term.values]
    return {value.name for value in values if isinstance(value, TaskState)}


def with_state(text: str, state: str) -> str:
    """The same filter for one state only; or for all, when it is that one by now."""
    try:
        terms = [str(term) for term in parse(text).terms if term.key != "state"]
    except FilterRefused:  # it stays as it is, to be mended
        terms = [text]
    return " ".join(terms if _states(text) == {state} else [f"state:{state}", *terms])
