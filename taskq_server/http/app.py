"""What HTTP answers: whether the server lives, whether it is ready, its metrics, calls as JSON, and the dashboard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from taskq_server.access import Access
from taskq_server.core.errors import TaskqError
from taskq_server.core.rights import Need
from taskq_server.gauges import Gauges
from taskq_server.http.auth import refusal, who
from taskq_server.http.base_path import BasePath
from taskq_server.http.dashboard.dashboard import Dashboard
from taskq_server.http.errors import Failure
from taskq_server.http.json_api import JsonApi, google_error
from taskq_server.http.openapi import document
from taskq_server.http.safety import Hosts, Safety
from taskq_server.metrics import Metrics
from taskq_server.readiness import Readiness


def app(
    access: Access,
    metrics: Metrics,
    gauges: Gauges,
    readiness: Readiness,
    hosts: Hosts,
    api: JsonApi | None,
    dashboard: Dashboard | None,
    base_path: str = "",
) -> Starlette:
    """The application; whoever calls it has been listened to by `HttpServer`.

    Probes are open to all. Metrics tell names of tasks: where callers must show who they are, these need `read`. What
    the API is, as reflection by gRPC, is told to whoever has a credential.
    """

    async def livez(request: Request) -> Response:
        """That it answers is the answer."""
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        if readiness.is_ready:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"{readiness.why_not}\n", 503)

    async def show_metrics(request: Request) -> Response:
        if access.required:
            try:
                who(access, request).must_meet(Need.READ)
            except TaskqError as error:
                return refusal(error)
        gauges.look()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # In a thread: thousands of lines are put together, and streams go on meanwhile.
        text = await asyncio.to_thread(encode, metrics.registry)
        return Response(text, headers={"content-type": content_type})

    routes: list[BaseRoute] = [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", show_metrics)]
    if api is not None:
        routes.append(Route("/openapi.json", _describes(api, access, base_path)))
    if dashboard is not None:
        routes += dashboard.routes()
    around = [Middleware(BasePath, base_path=base_path), Middleware(Safety, hosts=hosts)]
    application = Starlette(routes=routes, middleware=around)
    if api is not None:
        application.router.redirect_slashes = False
        application.router.default = api
    return application


def _describes(api: JsonApi, access: Access, base_path: str) -> Callable[[Request], Awaitable[Response]]:
    described: list[bytes] = []

    async def describe(request: Request) -> Response:
        if access.required:
            try:
                who(access, request)
            except TaskqError as error:
                return google_error(Failure(error))
        if not described:
            described.append(
                json.dumps(document(api.bindings, access.required, base_path), ensure_ascii=False).encode()
            )
        return Response(described[0], media_type="application/json")

    return describe
