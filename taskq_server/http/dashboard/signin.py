"""Who asks for a page, where callers must show who they are: a cookie that stands for a token.

The cookie is a random reference into the memory of this server, which ends with the token, with the server, and after a
while. The token itself is kept nowhere: not in the browser, not here.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from taskq_server.access import ANYBODY, Access, Caller
from taskq_server.clock import SECOND_US, Clock

COOKIE = "taskq_session"
"""Its name, before the base path with dots for slashes."""
LIFE_SECONDS = 12 * 3_600
MOST = 1_000
"""So many are signed in at once; then whoever signed in first has to do so again."""
MOST_EACH = 20
"""And so many of one principal; then theirs that is oldest ends."""


@dataclass(frozen=True, slots=True)
class _SignIn:
    caller: Caller
    end_us: int


class SignIns:
    """Those who are signed in."""

    def __init__(self, access: Access, clock: Clock, base_path: str = "") -> None:
        """The cookie is sent to what is below the base path, together with those of servers above it on the same host:
        only its name tells them apart."""
        self._access = access
        self._path = base_path or "/"
        self._cookie = COOKIE + base_path.replace("/", ".")
        self._clock = clock
        self._all: dict[bytes, _SignIn] = {}

    @property
    def required(self) -> bool:
        return self._access.required

    def caller(self, request: Request) -> Caller | None:
        """Who asks; None for somebody who has to sign in first."""
        if not self._access.required:
            return ANYBODY
        found = self._all.get(key := self._key(request))
        if found is None:
            return None
        now_us = self._clock.now_us()
        if now_us >= found.end_us or not self._access.holds(found.caller):
            del self._all[key]
            return None
        found.caller.used_us = now_us
        return found.caller

    def sign_in(self, request: Request, token: str, response: Response) -> Caller:
        """Sets the cookie, or raises as any call with a token that does not hold."""
        caller = self._access.by_token(token, lambda: _peer(request))
        self._all.pop(self._key(request), None)  # whoever signs in again has left where they were
        self._make_room(caller.principal)
        reference = secrets.token_urlsafe(32)
        self._all[_hash(reference)] = _SignIn(caller, self._clock.now_us() + LIFE_SECONDS * SECOND_US)
        response.set_cookie(
            self._cookie,
            reference,
            max_age=LIFE_SECONDS,
            path=self._path,
            secure=_is_by_tls(request),
            httponly=True,
            samesite="strict",
        )
        return caller

    def _make_room(self, principal: str) -> None:
        """One more must not sign out somebody else."""
        own = [key for key, one in self._all.items() if one.caller.principal == principal]
        if len(own) >= MOST_EACH:
            del self._all[own[0]]
        elif len(self._all) >= MOST:
            del self._all[next(iter(self._all))]

    def sign_out(self, request: Request, response: Response) -> None:
        self._all.pop(self._key(request), None)
        response.delete_cookie(self._cookie, path=self._path)

    def _key(self, request: Request) -> bytes:
        return _hash(request.cookies.get(self._cookie, ""))


def _is_by_tls(request: Request) -> bool:
    """As far as the browser knows, which says it of a form: TLS may end before this server."""
    return request.url.scheme == "https" or request.headers.get("origin", "").lower().startswith("https://")


def _hash(reference: str) -> bytes:
    """Looked up by its hash, of which nobody can choose a beginning: how long that takes says nothing."""
    return hashlib.sha256(reference.encode()).digest()


def _peer(request: Request) -> str:
    host = request.client.host if request.client is not None else ""
    return f"ipv6:[{host}]" if ":" in host else f"ipv4:{host}"
