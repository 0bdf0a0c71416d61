"""The path below which a reverse proxy shows the server, taken off where it stands.

So nothing else has to know of it but what writes addresses: pages, redirects, the cookie, and the API's description.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class BasePath:
    """Stands around the application. What comes without the path is answered, too: some proxies take it off, and probes
    ask the server itself."""

    def __init__(self, app: ASGIApp, base_path: str) -> None:
        self._app = app
        self._base = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._base and scope["type"] == "http":
            path, raw_path = _below(self._base, scope["path"]), _below(self._base, scope["raw_path"].decode("latin-1"))
            if path is not None and raw_path is not None:
                scope = {**scope, "path": path, "raw_path": raw_path.encode("latin-1")}
        await self._app(scope, receive, send)


def _below(base: str, path: str) -> str | None:
    """The rest of a path; None for one that is not below it."""
    if path == base:
        return "/"
    return path[len(base) :] if path.startswith(f"{base}/") else None
