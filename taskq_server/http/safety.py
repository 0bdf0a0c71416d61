"""What keeps pages of other sites away from a server that a browser can reach.

A page may send requests wherever it likes, and lets its user's machine make them. So a request that changes something
must not come from another site; and no request may come under a name that is not the server's, by which a page would
make itself one of ours (DNS rebinding). An IP address is no such name: nobody can point one elsewhere.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from urllib.parse import urlsplit

from google.rpc import code_pb2
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskq_server.http.errors import Failure, Refusal
from taskq_server.http.json_api import google_error
from taskq_server.values import host_names

OPEN_TO_ALL = "/livez", "/readyz"
"""Probes come by whatever name, and are told nothing."""
SAFE = "GET", "HEAD", "OPTIONS"
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)


class Hosts:
    """The names under which the server answers."""

    def __init__(self, listen: str, names: str, *, any_name: bool) -> None:
        """`any_name` while no names are given: where callers show a token, a page of another site has none to show."""
        self._names = {"localhost", listen.rpartition(":")[0].lower(), *host_names(names)}
        self._any = any_name and not names

    def know(self, host: str) -> bool:
        """Whether this `Host` is the server's."""
        with contextlib.suppress(ValueError):
            parts = urlsplit(f"//{host}")
            name = (parts.hostname or "") if parts.netloc == host and "@" not in host else ""
            with contextlib.suppress(ValueError):
                ipaddress.ip_address(name)
                return True
            name = name.rstrip(".")
            return bool(name) and (self._any or name in self._names or name.endswith(".localhost"))
        return False


class Safety:
    """Stands around the application."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answered.setdefault(name, value)
                if _REQUEST_ID.fullmatch(request_id := headers.get("x-request-id", "")):
                    answered["x-request-id"] = request_id
            await send(message)

        try:
            self._check(scope, headers)
        except Refusal as refusal:
            await google_error(Failure(refusal))(scope, receive, send_safely)
            return
        await self._app(scope, receive, send_safely)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if scope["path"] not in OPEN_TO_ALL and not self._hosts.know(host):
            message = f"host must be an IP address, localhost, or a name in TASKQ_HTTP_HOSTS; is {host[:64]!r}"
            raise Refusal(421, code_pb2.PERMISSION_DENIED, "UNKNOWN_HOST", message)
        if scope["method"] not in SAFE and not _is_from_here(headers, host):
            message = "a page of another site may not do this: origin must be the host that is asked"
            raise Refusal(403, code_pb2.PERMISSION_DENIED, "CROSS_SITE", message)


def _is_from_here(headers: Headers, host: str) -> bool:
    """By what every browser says of a request that is no plain read; programs say neither."""
    if (origin := headers.get("origin")) is not None:
        return origin.lower().partition("://")[2] == host.lower()
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")
