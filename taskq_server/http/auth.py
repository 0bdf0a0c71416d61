"""Who makes a request, by the token that it shows."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from taskq_server.access import Access, Caller
from taskq_server.core.errors import PermissionDenied, TaskqError, TooManyDenials, TooManyFailures, Unauthenticated

_BEARER = "bearer "
_STATUS: dict[type[TaskqError], int] = {
    Unauthenticated: 401,
    PermissionDenied: 403,
    TooManyDenials: 403,
    TooManyFailures: 429,
}


def who(access: Access, request: Request) -> Caller:
    """Who calls; Unauthenticated for nobody. Failures count with those by gRPC from the same address."""

    def peer() -> str:  # as gRPC says it
        host = request.client.host if request.client is not None else ""
        return f"ipv6:[{host}]" if ":" in host else f"ipv4:{host}"

    shown = request.headers.get("authorization")
    if shown is None:
        raise access.by_nothing(peer)
    return access.by_token(shown[len(_BEARER) :].strip() if shown[: len(_BEARER)].lower() == _BEARER else "", peer)


def refusal(error: TaskqError) -> Response:
    """What somebody is told who may not do what they ask for."""
    status = _STATUS.get(type(error), 500)
    return PlainTextResponse(f"{error}\n", status, {"www-authenticate": "Bearer"} if status == 401 else None)
