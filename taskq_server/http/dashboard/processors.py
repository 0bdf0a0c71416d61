"""The processors that live: what they run, what they hold, when they were heard, and what became of it."""

from __future__ import annotations

from starlette.responses import Response

from taskq.v1 import admin_service_pb2, admin_task_pb2
from taskq_server.core.errors import SessionNotFound
from taskq_server.http.dashboard import results
from taskq_server.http.dashboard.kept import spell
from taskq_server.http.dashboard.render import iso
from taskq_server.http.dashboard.visit import Part, Visit

MOST_PAGES = 20
MOST_RESULTS = 200
KEPT_US = 5_000_000
"""No index leads to the tasks of a processor."""
_LIST = "AdminService/ListTasks"


async def page(visit: Visit) -> Response:
    request = admin_service_pb2.ListProcessorsRequest(page_size=100, page_token=visit.query("page"))
    answer = await visit.call("AdminService/ListProcessors", request)
    return visit.show("processors", answer=answer, is_first=not request.page_token)


async def one(visit: Visit) -> Response:
    session_id = visit.path("session_id")
    request = admin_service_pb2.ListProcessorsRequest(page_size=1_000)
    for _ in range(MOST_PAGES):
        answer = await visit.call("AdminService/ListProcessors", request)
        for processor in answer.processors:
            if processor.session_id == session_id:
                return await _show(visit, processor)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    raise SessionNotFound(session_id[:64])


async def _show(visit: Visit, processor: admin_service_pb2.Processor) -> Response:
    """With what it has done of the tasks that were enqueued last. Others may have its name: what they did before it
    registered is left out."""
    key, age = f"done by {processor.session_id}", spell(processor.session_id, visit.now_us, KEPT_US)
    known = Part(visit.kept.of(key, age)) if visit.may(_LIST) else Part()
    if not known:
        text = f"processor={processor.processor_name} -state:RUNNING lease_time>={iso(processor.register_time)}"
        known = await visit.part(_LIST, admin_task_pb2.ListTasksRequest(filter=text, page_size=MOST_RESULTS))
        if known:
            known = Part((results.results(known.answer.tasks, visit.now), bool(known.answer.next_page_token)))
            visit.kept.keep(key, age, known.answer)
    done, is_partial = known.answer or ([], False)
    return visit.show(
        "processor",
        processor=processor,
        last=known,
        is_partial=is_partial,
        row=results.row(done),
        figures=results.figures(done, visit.now),
    )
