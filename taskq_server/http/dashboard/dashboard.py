"""The dashboard: its routes, and what stands once around every page."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from taskq_server.access import ANYBODY, Access
from taskq_server.clock import Clock
from taskq_server.core import errors
from taskq_server.http.dashboard import (
    act,
    api,
    audit,
    calendar,
    capabilities,
    export,
    failures,
    guard,
    operations,
    overview,
    processors,
    schedule_form,
    schedules,
    system,
    task,
    task_new,
    tasks,
)
from taskq_server.http.dashboard.calls import Calls, NotServed
from taskq_server.http.dashboard.frame import Frame
from taskq_server.http.dashboard.kept import Kept
from taskq_server.http.dashboard.live import Live
from taskq_server.http.dashboard.render import STATIC, Renderer
from taskq_server.http.dashboard.signin import SignIns
from taskq_server.http.dashboard.visit import Visit
from taskq_server.http.errors import Refusal

log = structlog.get_logger("taskq.http")

Page = Callable[[Visit], Awaitable[Response]]
PAGES: list[tuple[str, str, Page]] = [
    ("GET", "/", overview.page),
    ("GET", "/tasks", tasks.page),
    ("GET", "/tasks/export", export.page),
    ("GET", "/tasks/new", task_new.page),
    ("POST", "/tasks/new", task_new.enqueue),
    ("GET", "/tasks/{task_id}", task.page),
    ("GET", "/tasks/{task_id}/payload", task.payload),
    ("GET", "/failures", failures.page),
    ("GET", "/schedules", schedules.page),
    ("GET", "/schedules/new", schedule_form.page),
    ("POST", "/schedules/new", schedule_form.save),
    ("POST", "/schedules/preview", schedule_form.preview),
    ("GET", "/schedules/{schedule_id}", schedules.one),
    ("GET", "/schedules/{schedule_id}/edit", schedule_form.page),
    ("POST", "/schedules/{schedule_id}/edit", schedule_form.save),
    ("GET", "/calendar", calendar.page),
    ("GET", "/processors", processors.page),
    ("GET", "/processors/{session_id}", processors.one),
    ("GET", "/capabilities", capabilities.page),
    ("GET", "/operations", operations.page),
    ("GET", "/operations/{operation_id}", operations.one),
    ("GET", "/audit", audit.page),
    ("GET", "/system", system.page),
    ("GET", "/api", api.page),
    ("GET", "/api/{service}/{method}", api.one),
    ("POST", "/api/{service}/{method}", api.one),
    ("GET", "/act/{action}", act.ask),
    ("POST", "/act/{action}", act.do),
]
_STATUS: dict[type[errors.TaskqError], int] = {
    errors.InvalidFields: 400,
    errors.MalformedRequest: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.TooManyDenials: 403,
    errors.ReadOnly: 403,
    errors.TaskNotFound: 404,
    errors.ScheduleNotFound: 404,
    errors.SessionNotFound: 404,
    errors.TooManyFailures: 429,
    errors.TooManyStreams: 429,
    errors.StorageFull: 507,
    errors.StorageUnavailable: 503,
    errors.Stopping: 503,
}
_STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Dashboard:
    """Pages over these servicers."""

    def __init__(
        self,
        servicers: Iterable[object],
        access: Access,
        clock: Clock,
        frame: Frame,
    ) -> None:
        self._clock = clock
        self._frame = frame
        self._calls = Calls(servicers, access, is_read_only=frame.is_read_only)
        self._renderer = Renderer(frame)
        self._kept = Kept()
        self._sign_ins = SignIns(access, clock, frame.base_path)
        self._live = Live(self._calls, access)

    def routes(self) -> list[BaseRoute]:
        pages = [Route(path, self._around(page), methods=[method]) for method, path, page in PAGES]
        return [
            Route("/signin", self._guarded(self._sign_in), methods=["GET", "POST"]),
            Route("/signout", self._guarded(self._sign_out), methods=["POST"]),
            Route("/static/{name}", self._static),
            Route("/ui/events", self._around(self._live.page, is_for_people=False)),
            *pages,
        ]

    def stop(self) -> None:
        """Ends the streams of hints: the server goes."""
        self._live.stop()

    def _around(self, page: Page, *, is_for_people: bool = True) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            caller = self._sign_ins.caller(request)
            if caller is None:
                if not is_for_people or request.method != "GET":
                    return PlainTextResponse("sign in first\n", 401)
                back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return self._go(f"/signin?to={quote(back, safe='')}")
            visit = Visit(request, caller, self._calls, self._renderer, self._kept, self._clock.now_us())
            try:
                return await page(visit)
            except NotServed as error:
                return visit.show("error", 501, title="Not served by this server", why=str(error))
            except Refusal as error:
                return visit.show("error", error.status, title=_title(error.status), why=str(error))
            except errors.TaskqError as error:
                status = _STATUS.get(type(error), 404 if "NotFound" in type(error).__name__ else 409)
                return visit.show("error", status, title=_title(status), why=str(error))
            except TimeoutError:
                return visit.show("error", 504, title="No answer in time", why="the server has not answered in time")
            except Exception as error:
                error_id = uuid.uuid4().hex
                log.error("unexpected error", error_id=error_id, path=request.url.path[:200], exc_info=error)
                why = f"an unexpected error, which the server's log has as {error_id}"
                return visit.show("error", 500, title="This went wrong", why=why)

        return self._guarded(answer)

    def _guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                guard.check(request)
            except guard.Elsewhere as error:
                return PlainTextResponse(f"{error}\n", 403, dict(guard.HEADERS))
            response = await answer(request)
            for name, value in guard.HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return guarded

    async def _sign_in(self, request: Request) -> Response:
        visit = Visit(request, ANYBODY, self._calls, self._renderer, self._kept, self._clock.now_us())
        to = visit.query("to", "/")
        # Only to a path of this server: `//host` and `/\host` would be another's.
        to = to if to.startswith("/") and to[1:2] not in ("/", "\\") else "/"
        if not self._sign_ins.required:
            return self._go("/")
        if request.method == "GET":
            return visit.show("signin", to=to, why="")
        try:
            token = (await visit.form()).get("token")
            response = self._go(to)
            self._sign_ins.sign_in(request, token, response)
            return response
        except Refusal as error:
            return visit.show("signin", error.status, to=to, why=str(error))
        except errors.TaskqError as error:
            return visit.show("signin", _STATUS.get(type(error), 400), to=to, why=str(error))

    def _go(self, path: str) -> Response:
        return RedirectResponse(self._frame.base_path + path, 303)

    async def _sign_out(self, request: Request) -> Response:
        response = self._go("/signin")
        self._sign_ins.sign_out(request, response)
        return response

    async def _static(self, request: Request) -> Response:
        path = STATIC / request.path_params["name"]
        kind = _STATIC_TYPES.get(path.suffix)
        if kind is None or path.parent != STATIC or not path.is_file():
            return PlainTextResponse("there is no such file\n", 404)
        headers = dict(guard.HEADERS)
        if request.query_params.get("v"):  # its address changes with its content
            headers["cache-control"] = "public, max-age=31536000, immutable"
        return HTMLResponse(path.read_bytes(), 200, headers, media_type=kind)


def _title(status: int) -> str:
    titles = {400: "This cannot be", 403: "You may not see this", 404: "Not found", 503: "Not available"}
    return titles.get(status, "This was refused")
