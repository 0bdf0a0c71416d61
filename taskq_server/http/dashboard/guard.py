"""Which sites may ask for a change, and what every answer says to the browser.

`http.safety` keeps other sites away from all that HTTP answers, and lets programs through that say nothing of where
they come from. A form of the dashboard comes from a browser, and every browser says it: so here it must have been said.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: with it, browsers say `Origin: null` for a form of this very site.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Elsewhere(Exception):
    """A change that is not asked for from a page of this server."""

    def __init__(self) -> None:
        super().__init__("what changes something must be asked for from a page of this server")


def check(request: Request) -> None:
    """Raises Elsewhere for a change that another site asks for, or that nobody says where it comes from."""
    if request.method not in ("GET", "HEAD") and not _is_from_here(request.headers):
        raise Elsewhere


def _is_from_here(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = headers.get("origin")
    if origin is None:
        return site is not None
    # Only the host: whoever ends TLS before this server makes http of https.
    return origin.partition("://")[2].lower() == headers.get("host", "").lower()
