"""Which hosts and which sites may ask, and what every answer says to the browser.

A page of another site can make a browser send requests here. It cannot read the answers, but a name that it has made
point here (DNS rebinding) would let it: so only hosts that cannot be such a name are answered. And it could send a
form: so what changes something must come from a page of this very host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

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
    """A request that must not be answered; `status` says how."""

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        super().__init__(why)


def check(request: Request, names: Collection[str]) -> None:
    """Raises Elsewhere for a host that is none of ours, and for a change that another site asks for."""
    host = request.headers.get("host", "")
    if not _is_ours(host, names):
        raise Elsewhere(421, "this server does not answer to that host; call it by its address, or as localhost")
    if request.method not in ("GET", "HEAD") and not _is_from_here(request.headers, host):
        raise Elsewhere(403, "what changes something must be asked for from a page of this server")


def _is_ours(host: str, names: Collection[str]) -> bool:
    name = name_of(host)
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:  # nobody can make an address point elsewhere
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def name_of(address: str) -> str:
    """The host of `host:port`, without brackets."""
    if address.startswith("["):
        return address[1:].partition("]")[0].lower()
    return address.partition(":")[0].lower()


def _is_from_here(headers: Headers, host: str) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = headers.get("origin")
    if origin is None:
        return site is not None
    # Only the host: whoever ends TLS before this server makes http of https.
    return origin.partition("://")[2].lower() == host.lower()
