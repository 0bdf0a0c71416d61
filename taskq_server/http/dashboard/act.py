"""Everything that changes something: first a question, with what it is about and why, then the change.

A question is a page of its own, so that it works without scripts; with them it opens over the page from which it came.
"""

from __future__ import annotations

from starlette.responses import Response

from taskq_server.core.errors import TaskqError
from taskq_server.http.dashboard import act_others, act_schedules, act_tasks
from taskq_server.http.dashboard.asking import Action, Ask
from taskq_server.http.dashboard.calls import NotServed
from taskq_server.http.dashboard.forms import Form
from taskq_server.http.dashboard.visit import Visit

ACTIONS: dict[str, Action] = act_tasks.ACTIONS | act_schedules.ACTIONS | act_others.ACTIONS


async def ask(visit: Visit) -> Response:
    """The question."""
    name, action = _found(visit)
    form = Form(list(visit.request.query_params.multi_items()))
    return _show(visit, name, await action.ask(visit, form))


async def do(visit: Visit) -> Response:
    """The change; or the question again, with what is wrong."""
    name, action = _found(visit)
    form = await visit.form()
    try:
        return visit.go(await action.do(visit, form))
    except TaskqError as error:
        return _show(visit, name, await action.ask(visit, form), str(error), 400)


def _found(visit: Visit) -> tuple[str, Action]:
    name = visit.path("action")
    action = ACTIONS.get(name)
    if action is None:
        raise NotServed(f"the action {name[:64]!r}")
    return name, action


def _show(visit: Visit, name: str, asked: Ask, why: str = "", status: int = 200) -> Response:
    return visit.show("act", status, action=name, asked=asked, why=why)
